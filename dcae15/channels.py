"""The channel prefix: which latent channels a training step keeps. The idea of DC-AE 1.5 lives here and nowhere else.

``mask(C, c)`` is c ones, then C - c zeros (arXiv 2508.00413, Eq. 1). Slicing to the first c channels and multiplying with the
mask are the same function for a network whose first layer is linear with a full bias, and slicing is cheaper; so one draw
for a whole batch is an ``int`` to slice by, and a draw per sample is a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dcae15.errors import ConfigError

Kept = int | Tensor
"""What a draw keeps: the first ``int`` channels of every sample, or a 0/1 mask of shape (B or 1, C)."""


@dataclass(frozen=True)
class PrefixChoices:
    """How many channels a training step keeps.

    Attributes:
        choices: prefix lengths in ascending order; the last is C, all channels.
        kind: ``prefix`` (the method), ``random`` (as many channels, anywhere; a control), ``weighted`` (all channels, but the
            loss weighted as prefixes weight it on average; a control for diffusion) or ``none`` (all; the baseline).
        per: ``step`` draws once for the batch, as the official code does; ``sample`` draws for each sample.
        draws: draws per step; the losses of a step are averaged over them.
        always_full: all channels are among the draws.
        always_min_max: the smallest prefix and all channels are among the draws.
        choice_weights: relative frequency of each choice among the random draws; empty means equal.
        draw_weights: weight of each draw's loss in a step's average; empty means equal.
    """

    choices: tuple[int, ...]
    kind: str = "prefix"
    per: str = "step"
    draws: int = 1
    always_full: bool = False
    always_min_max: bool = False
    choice_weights: tuple[float, ...] = ()
    draw_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.choices or list(self.choices) != sorted(set(self.choices)) or self.choices[0] < 1:
            raise ConfigError(
                f"prefix choices {list(self.choices)} must be distinct positive channel counts in ascending order"
            )
        for name, count in (("choice_weights", len(self.choices)), ("draw_weights", self.draws)):
            weights = getattr(self, name)
            if weights and (len(weights) != count or min(weights) < 0 or not sum(weights)):
                raise ConfigError(f"{name} {list(weights)} must be {count} numbers of at least 0, not all 0")

    @property
    def channels(self) -> int:
        """C, the number of latent channels."""
        return self.choices[-1]

    @property
    def trained(self) -> tuple[int, ...]:
        """Prefix lengths that a model trained this way has seen: all choices for ``prefix``, else only C."""
        return self.choices if self.kind == "prefix" else (self.channels,)

    def draw(self, batch: int, generator: torch.Generator) -> list[Kept]:
        """Draw what one step keeps.

        Args:
            batch: samples in the global batch; a rank takes its rows of a mask.
            generator: the source of randomness, the same on all ranks.

        Returns:
            One entry per draw. Per step: with n draws, ``always_min_max`` gives [first, C] and n - 2 uniform ones, ``always_full``
            gives [C] and n - 1 uniform ones; with one draw both are ignored (as in the official code). Per sample: the flags
            spread the lengths that are always present evenly over the batch (a third each for [first, C, uniform]).
        """
        if self.kind in ("none", "weighted"):
            return [self.channels]
        always = self._always
        if self.per == "step":
            lengths = always[: self.draws] if self.draws > 1 else []
            lengths += [self._pick(1, generator)[0] for _ in range(self.draws - len(lengths))]
            if self.kind == "prefix":
                return list(lengths)
            return [self._masks([length], generator) for length in lengths]
        drawn: list[Kept] = []
        for _ in range(self.draws):
            lengths = self._pick(batch, generator)
            period = len(always) + 1
            for i, length in enumerate(always):
                lengths[i::period] = [length] * len(lengths[i::period])
            drawn.append(self._masks(lengths, generator))
        return drawn

    def channel_weights(self) -> tuple[float, ...]:
        """Return the weight that each channel's error has, on average over the draws, in the loss of prefix training.

        With prefixes c drawn with probability p(c) and a loss that is a mean over the c kept channels, channel i weighs
        the sum of p(c) / c over all c > i. The C weights are descending and sum to 1.
        """
        random = self.choice_weights or (1.0,) * len(self.choices)
        shares = {c: weight / sum(random) for c, weight in zip(self.choices, random, strict=True)}
        if self.per == "sample":
            slots: list[int | None] = [*self._always, None]  # None: drawn
            of_slots = [1.0] * len(slots)
        else:
            fixed: list[int | None] = [*(self._always[: self.draws] if self.draws > 1 else [])]
            slots = [*fixed, *[None] * (self.draws - len(fixed))]
            of_slots = list(self.draw_weights) or [1.0] * len(slots)
        probability = dict.fromkeys(self.choices, 0.0)
        for slot, weight in zip(slots, of_slots, strict=True):
            for c in [slot] if slot else self.choices:
                probability[c] += weight / sum(of_slots) * (1.0 if slot else shares[c])
        return tuple(sum(p / c for c, p in probability.items() if c > i) for i in range(self.channels))

    @property
    def _always(self) -> list[int]:
        """Prefixes that are present in every step, where there is room for them."""
        if self.always_min_max:
            return [self.choices[0], self.channels]
        return [self.channels] if self.always_full else []

    def average(self, losses: Sequence[Tensor]) -> Tensor:
        """Return the average of a step's losses, one of each draw, by ``draw_weights``; with kind ``none`` there is one."""
        weights = self.draw_weights if self.draw_weights and len(losses) == self.draws else (1.0,) * len(losses)
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)

    def _pick(self, count: int, generator: torch.Generator) -> list[int]:
        if self.choice_weights:
            weights = torch.tensor(self.choice_weights, device=generator.device)
            picks = torch.multinomial(weights, count, replacement=True, generator=generator)
        else:
            picks = torch.randint(len(self.choices), (count,), generator=generator, device=generator.device)
        return [self.choices[i] for i in picks.tolist()]

    def _masks(self, lengths: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return masks of shape (len(lengths), C) that keep ``lengths`` channels each."""
        rank = torch.arange(self.channels, device=generator.device).expand(len(lengths), -1)
        if self.kind == "random":
            scores = torch.rand(len(lengths), self.channels, generator=generator, device=generator.device)
            rank = scores.argsort(dim=1).argsort(dim=1)
        return (rank < torch.tensor(lengths, device=generator.device)[:, None]).float()


def prefix_mask(channels: int, prefix: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ``prefix`` ones, then zeros, of shape (C,)."""
    return (torch.arange(channels, device=device) < prefix).float()


def as_mask(kept: Kept, channels: int) -> Tensor:
    """Return what a draw keeps as a mask (B or 1, C): the same function as a slice, with the same shape for every draw."""
    return prefix_mask(channels, kept)[None] if isinstance(kept, int) else kept


def keep(latents_BChw: Tensor, kept: Kept) -> Tensor:
    """Return the kept channels: sliced to (B, c, h, w) for an int, zero-filled (B, C, h, w) for a mask."""
    if isinstance(kept, int):
        return latents_BChw[:, :kept]
    return latents_BChw * kept.to(latents_BChw)[:, :, None, None]


def mean_over_kept(error_BChw: Tensor, kept: Kept, weights_C: Tensor | None = None) -> Tensor:
    """Mean of an error over the kept channels and all positions, then over samples: normalised by c, not by C.

    ``error_BChw`` has the shape that `keep` returns. Each sample weighs the same, whatever its prefix. With weights, which sum
    to 1, the mean over the channels is a weighted one; all channels must be kept then.
    """
    if weights_C is not None:
        return (error_BChw.mean(dim=(0, 2, 3)) * weights_C).sum()
    if isinstance(kept, int):
        return error_BChw.mean()
    mask = kept.to(error_BChw)
    per_sample = (error_BChw.mean(dim=(2, 3)) * mask).sum(dim=1) / mask.sum(dim=1)
    return per_sample.mean()


def rows(kept: Kept, start: int, stop: int) -> Kept:
    """Return the part of a draw that belongs to samples ``start`` to ``stop`` of the global batch."""
    return kept if isinstance(kept, int) or len(kept) == 1 else kept[start:stop]


LANDMARKS = {"eighth": 1 / 8, "quarter": 1 / 4, "half": 1 / 2, "all": 1.0}
"""Shares of the channels that stand for a curve, by the word that names them whatever C is."""
IN_TABLES = ("eighth", "quarter", "all")
"""The landmarks that tables and headline numbers show."""


def landmarks(prefixes: Iterable[int]) -> dict[str, int]:
    """Return the prefix nearest to each landmark's share of all channels (the longest prefix); the smaller one of two."""
    ordered = sorted(prefixes)
    return {
        word: min(ordered, key=lambda prefix: abs(prefix - share * ordered[-1])) for word, share in LANDMARKS.items()
    }


def default_ladder(channels: int) -> list[int]:
    """Return an eighth, a quarter, a half and all of the channels: prefixes that are measured whatever was trained."""
    return sorted({max(1, int(channels * share)) for share in LANDMARKS.values()})
