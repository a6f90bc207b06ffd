"""The order of training data: a pure function of (seed, epoch, global index), whatever the number of workers.

Shards are permuted, then rows are permuted within windows of several consecutive shards, so that only a window's shards need
to be at hand at a time. The stream of positions 0, 1, 2, ... runs through epoch after epoch without a seam: every epoch holds
each row exactly once, and a batch may span two epochs. Any position is found without walking to it, so resuming is arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dcae15.errors import DataError


class Order:
    """The rows of an epochless stream over shards.

    Args:
        counts: rows of each shard.
        seed: seed of the order.
        window: consecutive shards whose rows are mixed; the stated shuffle quality: a row moves anywhere in its epoch with
            its shard, and mixes with the rows of ``window`` shards.
    """

    def __init__(self, counts: Sequence[int], seed: int, window: int = 16) -> None:
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
