"""The channel prefix: which latent channels a training step keeps. The idea of DC-AE 1.5 lives here and nowhere else.

``mask(C, c)`` is c ones, then C - c zeros (arXiv 2508.00413, Eq. 1). Slicing to the first c channels and multiplying with the
mask are the same function for a network whose first layer is linear with a full bias, and slicing is cheaper. So one draw
for a whole batch is an ``int`` to slice by, and a draw per sample is a mask.

torch is imported where something is computed: the configuration reads the fields and rules of `Prefix` without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dcae15.errors import ConfigError
from dcae15.fields import Count, Section, Weight, option, when

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Kept: TypeAlias = "int | Tensor"
"""What a draw keeps: the first ``int`` channels of every sample, or a 0/1 mask of shape (B or 1, C)."""

_DRAWN = when("kind", is_not="none")


def _no_list(own: Any, root: Any, path: str) -> str:
    return f"{path}.choices is given" if own.choices else ""


def _room_for_fixed(own: Any, root: Any, path: str) -> str:
    """One draw for a whole batch leaves no room for prefixes that are always there, as in the official code."""
    return f"{path}.per is 'step' and {path}.draws is 1" if own.per == "step" and own.draws == 1 else ""


def _unless_min_max(own: Any, root: Any, path: str) -> str:
    return f"{path}.always_min_max is true" if own.always_min_max else ""


def _something_random(own: Any, root: Any, path: str) -> str:
    """Two draws for a whole batch are no draws at all where the smallest prefix and all channels are always there."""
    fixed = own.always_min_max and own.per == "step" and own.draws == 2
    return f"{path}.always_min_max leaves none of 2 draws per step to chance" if fixed else ""


def _several_draws(own: Any, root: Any, path: str) -> str:
    """A weighted loss stands for the average over all draws; their number tells only where some of them are fixed."""
    if own.kind != "weighted" or (own.per == "step" and (own.always_full or own.always_min_max)):
        return ""
    return f"{path}.kind is 'weighted', and all draws are alike"


class Prefix(Section):
    """The channel prefix: how many front channels are kept in a training step.

    What draws needs the choices of a latent: `resolved` returns it.
    """

    kind: Literal["prefix", "random", "weighted", "none"] = option(
        "prefix",
        "'prefix': the first c channels (the method); 'random': c channels anywhere (a control); 'weighted', for diffusion only: "
        "all channels, the loss weighted towards the front as the prefixes would do it (a control); 'none': all channels (the "
        "baseline)",
    )
    first: int = option(4, "smallest prefix", unit="channels", ge=1, active_if=(_DRAWN, _no_list))
    step: int = option(
        4,
        "distance between prefixes; the choices are first, first + step, ... and always all channels",
        unit="channels",
        ge=1,
        active_if=(_DRAWN, _no_list),
    )
    choices: list[Count] = option(
        [],
        "explicit list of prefixes, ascending, ending with all channels; replaces first and step",
        unit="channels",
        active_if=_DRAWN,
    )
    per: Literal["step", "sample"] = option(
        "sample", "draw one prefix per 'step' (as the official code) or per 'sample'", active_if=_DRAWN
    )
    draws: int = option(
        1,
        "prefixes drawn per step: one encoding, several decodings; the losses are averaged",
        ge=1,
        active_if=(_DRAWN, _several_draws),
    )
    always_full: bool = option(
        False, "all channels are always among the draws", active_if=(_DRAWN, _room_for_fixed, _unless_min_max)
    )
    always_min_max: bool = option(
        False, "the smallest prefix and all channels are always among the draws", active_if=(_DRAWN, _room_for_fixed)
    )
    choice_weights: list[Weight] = option(
        [],
        "relative frequency of each prefix among the random draws, in the order of the choices; empty means equal",
        active_if=(_DRAWN, _something_random),
    )
    draw_weights: list[Weight] = option(
        [],
        "weight of each draw's loss in the average of a step, one for each of draws; empty means equal",
        active_if=(_DRAWN, when("draws", is_not=1), _several_draws),
    )

    @property
    def masks(self) -> bool:
        """Whether a step hides channels."""
        return self.kind in ("prefix", "random")

    def described(self, channels: int) -> str:
        """Return what is drawn of a latent of so many channels, in words: ``prefix masks [4, 8]``."""
        return f"{self.kind} masks {self.prefixes(channels)}" if self.masks else "no masks"

    def prefixes(self, channels: int) -> list[int]:
        """Return the prefixes that training draws from: ascending, ending with all ``channels``."""
        if self.kind == "none":
            return [channels]
        return list(self.choices) or [*range(self.first, channels, self.step), channels]

    def problems(self, channels: int, path: str) -> Iterator[str]:
        """Yield what is wrong with the fields for a latent of so many channels; ``path`` leads to them."""
        if self.kind == "none":
            return
        if not self.choices and self.first > channels:
            yield f"{path}.first is {self.first}, more than the latent's {channels} channels; lower it"
        if self.choices:
            if sorted(set(self.choices)) != self.choices:
                yield f"{path}.choices {self.choices} must be ascending, without repeats"
            elif self.choices[-1] != channels:
                yield f"{path}.choices {self.choices} must end with all {channels} channels of the latent"
        if any(weight == 0 for weight in self.choice_weights[:-1]):
            yield f"{path}.choice_weights {self.choice_weights} never draw a prefix; leave it out of the choices instead"
        count = len(self.prefixes(channels))
        for name, expected, of in (("choice_weights", count, "choices"), ("draw_weights", self.draws, "draws")):
            weights = getattr(self, name)
            if weights and (len(weights) != expected or not sum(weights)):
                yield f"{path}.{name} is {weights}; give one number for each of the {expected} {of}, not all 0"

    def resolved(self, channels: int, path: str = "prefix") -> Prefix:
        """Return the same with its choices spelt out for a latent of so many channels.

        Raises:
            ConfigError: they do not fit the latent, or each other; ``path`` leads to the fields.
        """
        if problems := list(self.problems(channels, path)):
            raise ConfigError("\n".join(problems))
        return self.changed(choices=self.prefixes(channels))

    @property
    def channels(self) -> int:
        """C, the number of latent channels, of resolved choices."""
        return self.choices[-1]

    @property
    def trained(self) -> tuple[int, ...]:
        """Prefix lengths that a model trained this way has seen: all choices for ``prefix``, else only C."""
        return tuple(self.choices) if self.kind == "prefix" else (self.channels,)

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
        if not self.masks:
            return [self.channels]
        if self.per == "step":
            lengths = self._fixed[: self.draws] if self.draws > 1 else []
            lengths += [self._pick(1, generator)[0] for _ in range(self.draws - len(lengths))]
            return list(lengths) if self.kind == "prefix" else [self._hide([n], generator) for n in lengths]
        drawn: list[Kept] = []
        for _ in range(self.draws):
            lengths, period = self._pick(batch, generator), len(self._fixed) + 1
            for i, length in enumerate(self._fixed):
                lengths[i::period] = [length] * len(lengths[i::period])
            drawn.append(self._hide(lengths, generator))
        return drawn

    def channel_weights(self) -> tuple[float, ...] | None:
        """Return the weight that each channel's error has, on average over the draws, in the loss of prefix training.

        With prefixes c drawn with probability p(c) and a loss that is a mean over the c kept channels, channel i weighs
        the sum of p(c) / c over all c > i. The C weights are descending and sum to 1. None unless the kind is ``weighted``.
        """
        if self.kind != "weighted":
            return None
        random = self.choice_weights or [1.0] * len(self.choices)
        shares = {c: weight / sum(random) for c, weight in zip(self.choices, random, strict=True)}
        if self.per == "sample":
            slots: list[int | None] = [*self._fixed, None]  # None: drawn
            of_slots = [1.0] * len(slots)
        else:
            fixed: list[int | None] = [*(self._fixed[: self.draws] if self.draws > 1 else [])]
            slots = [*fixed, *[None] * (self.draws - len(fixed))]
            of_slots = list(self.draw_weights) or [1.0] * len(slots)
        probability = dict.fromkeys(self.choices, 0.0)
        for slot, weight in zip(slots, of_slots, strict=True):
            for c in [slot] if slot else self.choices:
                probability[c] += weight / sum(of_slots) * (1.0 if slot else shares[c])
        return tuple(sum(p / c for c, p in probability.items() if c > i) for i in range(self.channels))

    def average(self, losses: Sequence[Tensor]) -> Tensor:
        """Return the average of a step's losses, one of each draw, by ``draw_weights``; where nothing is drawn there is one."""
        import torch

        weights = self.draw_weights if self.draw_weights and len(losses) == self.draws else [1.0] * len(losses)
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)

    @property
    def _fixed(self) -> list[int]:
        """Prefixes that are present in every step, where there is room for them."""
        if self.always_min_max:
            return [self.choices[0], self.channels]
        return [self.channels] if self.always_full else []

    def _pick(self, count: int, generator: torch.Generator) -> list[int]:
        import torch

        if self.choice_weights:
            weights = torch.tensor(self.choice_weights, device=generator.device)
            picks = torch.multinomial(weights, count, replacement=True, generator=generator)
        else:
            picks = torch.randint(len(self.choices), (count,), generator=generator, device=generator.device)
        return [self.choices[i] for i in picks.tolist()]

    def _hide(self, lengths: Sequence[int], generator: torch.Generator) -> Tensor:
        """Return masks of shape (len(lengths), C) that keep ``lengths`` channels each."""
        import torch

        rank = torch.arange(self.channels, device=generator.device).expand(len(lengths), -1)
        if self.kind == "random":
            scores = torch.rand(len(lengths), self.channels, generator=generator, device=generator.device)
            rank = scores.argsort(dim=1).argsort(dim=1)
        return (rank < torch.tensor(lengths, device=generator.device)[:, None]).float()


def as_mask(kept: Kept, channels: int) -> Tensor:
    """Return what a draw keeps as a mask (B or 1, C): the same function as a slice, with the same shape for every draw."""
    import torch

    return (torch.arange(channels) < kept).float()[None] if isinstance(kept, int) else kept


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
    return {word: min(ordered, key=lambda c: abs(c - share * ordered[-1])) for word, share in LANDMARKS.items()}


def default_ladder(channels: int) -> list[int]:
    """Return an eighth, a quarter, a half and all of the channels: prefixes that are measured whatever was trained."""
    return sorted({max(1, int(channels * share)) for share in LANDMARKS.values()})
