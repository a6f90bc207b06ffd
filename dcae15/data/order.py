"""The order of training data: a pure function of (seed, epoch, global index), whatever the number of workers.

Shards are permuted, then rows are permuted within windows of several consecutive shards, so that only a window's shards need
to be at hand at a time. The stream of positions 0, 1, 2, ... runs through epoch after epoch without a seam: every epoch holds
each row exactly once, and a batch may span two epochs. Any position is found without walking to it, so resuming is arithmetic.

Shuffle quality: a window's rows are permuted uniformly, and which shards share a window is drawn anew for each epoch. Two
rows of one shard always share a window; with n rows in it they end up n / 3 positions apart on average, and in the same batch
of b with probability (b - 1) / (n - 1): for 16 shards of 1,024 rows 5,461 positions, and 0.8% for a batch of 128. The last
window of an epoch may hold fewer shards. prepare_images deals images into shards by a hash, so a shard is no class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dcae15.errors import DataError

WINDOW = 16
"""Shards whose rows are mixed, where two windows fit into `CACHE_BYTES`."""

CACHE_BYTES = 4 << 30
"""Memory that a process spends on shards. The order depends on it through `window_of`: another value is another order."""


def window_of(shard_bytes: Sequence[int]) -> int:
    """Return how many shards to mix: `WINDOW`, or as many as fit twice into `CACHE_BYTES`, at least 1.

    A function of the set alone: not of the machine, nor of the number of workers. One window is read from while the next one
    is fetched, so the largest ``2 * window`` shards must fit together.
    """
    largest = np.cumsum(sorted(shard_bytes, reverse=True))
    window = WINDOW
    while window > 1 and len(largest) > 0 and largest[min(2 * window, len(largest)) - 1] > CACHE_BYTES:
        window -= 1
    return window


class Order:
    """The rows of an epochless stream over shards."""

    def __init__(self, counts: Sequence[int], seed: int, window: int = WINDOW) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.seed = seed
        self.window = window
        self.total = int(self.counts.sum())
        if self.total == 0:
            raise DataError("there is nothing to train on: the split has no rows")
        self._shards: tuple[int, np.ndarray, np.ndarray] | None = None
        self._rows: tuple[tuple[int, int], np.ndarray] | None = None

    def take(self, start: int, count: int) -> np.ndarray:
        """Return (shard, row) of the stream's positions ``start`` to ``start + count``, int64 of shape (count, 2)."""
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.total)
            rows = self._from(epoch, offset, count)
            parts.append(rows)
            start, count = start + len(rows), count - len(rows)
        return np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)

    def locate(self, position: int) -> tuple[int, int, int]:
        """Return the epoch and the window that hold a position, and the position at which the next window begins."""
        epoch, offset = divmod(position, self.total)
        _, starts = self._epoch(epoch)
        window = int(np.searchsorted(starts, offset, side="right")) - 1
        end = int(starts[window + 1]) if window + 1 < len(starts) else self.total
        return epoch, window, epoch * self.total + end

    def shards_between(self, first: int, last: int) -> list[int]:
        """Return the shards of the windows that hold positions from ``first`` to ``last`` inclusive, in the order of their use."""
        shards: dict[int, None] = {}
        while first <= last and len(shards) < len(self.counts):
            epoch, window, first = self.locate(first)
            permuted, _ = self._epoch(epoch)
            shards.update(dict.fromkeys(permuted[window * self.window : (window + 1) * self.window].tolist()))
        return list(shards)

    def _from(self, epoch: int, offset: int, count: int) -> np.ndarray:
        """Return up to ``count`` rows from ``offset`` on, all of one window."""
        permuted, starts = self._epoch(epoch)
        window = int(np.searchsorted(starts, offset, side="right")) - 1
        rows = self._window(epoch, window, permuted)
        begin = offset - int(starts[window])
        return rows[begin : begin + count]

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the epoch's permutation of shards, and the offset at which each window starts."""
        if self._shards is None or self._shards[0] != epoch:
            permuted = self._generator(epoch, 0).permutation(len(self.counts))
            ends = np.cumsum(self.counts[permuted])
            starts = np.concatenate([[0], ends[self.window - 1 :: self.window]])
            self._shards = (epoch, permuted, starts[starts < self.total])
        return self._shards[1], self._shards[2]

    def _window(self, epoch: int, window: int, permuted: np.ndarray) -> np.ndarray:
        if self._rows is None or self._rows[0] != (epoch, window):
            shards = permuted[window * self.window : (window + 1) * self.window]
            rows = np.concatenate(
                [np.stack([np.full(self.counts[s], s), np.arange(int(self.counts[s]))], axis=1) for s in shards]
            )
            self._rows = ((epoch, window), self._generator(epoch, window + 1).permutation(rows))
        return self._rows[1]

    def _generator(self, epoch: int, part: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, part])))
