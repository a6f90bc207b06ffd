"""Which of the state dicts in a file: of several networks, or of the last weights and their moving averages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dcae15.errors import WeightsError

Path = tuple[str, ...]
_AVERAGE = r"(ema|swa|polyak|averaged?|averages|shadow)"
_AVERAGED = re.compile(rf"(.*_)?{_AVERAGE}(_.*)?", re.IGNORECASE)
_AVERAGED_WITHIN = re.compile(rf"(^|[._]){_AVERAGE}([._ ]|$)", re.IGNORECASE)
_UNDOTTED = "model_ema"  # of the original latent diffusion code, which leaves the dots out of the names
_USUAL = (  # beginnings of names, and what checkpoints call a network; the first is taken
    "state_dict", "model_state_dict", "model", "module", "_orig_mod", "network", "net", "generator", "autoencoder", "vae",
    "first_stage_model", "params", "weights",
)  # fmt: skip
_DEEPEST = 8
_SHOWN = 8


@dataclass(frozen=True)
class Wanted:
    """What a reader looks for."""

    what: str  # what it is, for messages
    known: Callable[[str], bool]  # tells whether it has a tensor of this name
    example: str = ""  # such names, for messages
    # first components of names that belong to it although they are not known, so that they are refused later
    parts: tuple[str, ...] = ()
    rest: bool = True  # whether the user should read what else lies beside its tensors


@dataclass(frozen=True)
class _Found:
    """A state dict in a file."""

    path: Path  # the entries and beginnings of names that lead to it
    weights: dict[str, Tensor]
    beside: dict[str, int]  # what lies beside it under other names: tensors by first component

    @property
    def name(self) -> str:
        return ".".join(self.path) or "what lies at its top"

    @property
    def averaged(self) -> bool:
        return any(map(_AVERAGED.fullmatch, self.path))

    @property
    def decay(self) -> float | None:
        """The decay of an average that is kept by it."""
        numbers = [float(match[1]) for part in self.path if (match := re.search(r"(?:^|[_=-])(0?\.\d+)$", part))]
        return numbers[-1] if numbers and self.averaged else None

    @property
    def asked(self) -> str:
        """How a user asks for it."""
        return f"ema={self.decay:g}" if self.decay is not None else ".".join(self.path)


def choose(value: Any, uri: str, entry: str = "", wanted: Wanted | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict in what a file holds, and sentences on what was left.

    Beginnings that all names share (``module.``, ``_orig_mod.``, ``vae.``) are left out as far as ``wanted`` does not know them.
    Of the last weights and their moving averages the last weights are taken, unless ``entry`` asks otherwise; of several
    networks that fit, the one of the most usual name.

    Args:
        value: what the file holds.
        uri: the file, for messages.
        entry: what to take: its name; ``ema`` for the only moving average; ``ema=0.999`` for the one of that decay.
        wanted: what is looked for; None takes any names, as they are.

    Raises:
        WeightsError: there is none, no such one, or several that nothing tells apart.
    """
    tensors, loose = _flat(value)
    if not tensors:
        raise WeightsError(
            f"{uri} does not hold a state dict (names and tensors) at its top or under an entry: it has {inventory(value)}"
        )
    found = list(_known(tensors, wanted)) if wanted else list(_dictionaries(value, ()))
    if not found and wanted:
        example = f" (names such as {wanted.example})" if wanted.example else ""
        raise WeightsError(f"{uri} holds no {wanted.what}{example}: it has {inventory(value)}")
    chosen, notes = _pick(found, uri, entry, [part for part in _nameless(value) if _AVERAGED_WITHIN.search(part)])
    if dropped := [name for place, names in loose.items() if place == chosen.path[: len(place)] for name in names]:
        notes.append(f"left out {_listed(dropped)}, which {'is no tensor' if len(dropped) == 1 else 'are no tensors'}")
    if chosen.beside and wanted and wanted.rest:
        counts = [f"{name} ({count:,} tensors)" for name, count in chosen.beside.items()]
        notes.append(f"left out what is not of the {wanted.what}: {_listed(counts)}")
    return chosen.weights, notes


def inventory(value: Any) -> str:
    """Say in a few words what a file holds."""
    tensors, _ = _flat(value)
    if tensors:
        for depth in (3, 2, 1):
            groups = Counter(".".join(path[:depth]) for path in tensors)
            if len(groups) <= _SHOWN:
                break
        listed = [f"{name} ({count:,})" for name, count in groups.most_common()]
        return f"{len(tensors):,} tensors, of {_listed(listed)}; the first is '{'.'.join(next(iter(tensors)))}'"
    if isinstance(value, Mapping):
        if not value:
            return "an empty dictionary"
        return f"a dictionary of {_listed([f'{key} ({type(inner).__name__})' for key, inner in value.items()])}"
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)} without a name"
    return f"a value of type {type(value).__name__}"


def _flat(value: Any, path: Path = ()) -> tuple[dict[Path, Tensor], dict[Path, list[str]]]:
    """Return all tensors by the parts of their names; and the other values beside tensors, by where those are."""
    tensors: dict[Path, Tensor] = {}
    loose: dict[Path, list[str]] = {}
    if not isinstance(value, Mapping) or len(path) > _DEEPEST:
        return tensors, loose
    others = []
    for key, inner in value.items():
        if isinstance(inner, Tensor):
            tensors[(*path, *str(key).split("."))] = inner.detach()
        elif isinstance(inner, Mapping):
            below, told = _flat(inner, (*path, str(key)))
            tensors |= below
            loose |= told
        else:
            others.append(str(key))
    if others and any(isinstance(inner, Tensor) for inner in value.values()):
        loose[path] = others
    return tensors, loose


def _dictionaries(value: Any, path: Path) -> Iterator[_Found]:
    """Yield each dictionary of names and tensors, as it is, but for those that are numbered: they are an optimizer's."""
    if isinstance(value, Mapping) and len(path) <= _DEEPEST:
        weights = {k: v.detach() for k, v in value.items() if isinstance(v, Tensor) and isinstance(k, str)}
        if weights and not re.fullmatch(r"\d+", path[-1] if path else ""):
            yield _Found(path, weights, {})
        for key, inner in value.items():
            yield from _dictionaries(inner, (*path, str(key)))


def _known(tensors: dict[Path, Tensor], wanted: Wanted, path: Path = ()) -> Iterator[_Found]:
    """Yield what is known after a common beginning of names, at every depth."""
    groups: dict[str, dict[Path, Tensor]] = {}
    for key, value in tensors.items():
        groups.setdefault(key[0], {})[key[1:]] = value
    own = {name for name, group in groups.items() if any(wanted.known(".".join((name, *rest))) for rest in group)}
    below: list[_Found] = []
    for name, group in groups.items():
        if name not in own and len(path) < _DEEPEST:
            below += _known({rest: value for rest, value in group.items() if rest}, wanted, (*path, name))
    if own:
        own |= groups.keys() & set(wanted.parts)
        weights = {
            ".".join((name, *rest)): value for name in groups if name in own for rest, value in groups[name].items()
        }
        taken = own | {found.path[len(path)] for found in below} | {_UNDOTTED}
        below.insert(0, _Found(path, weights, {n: len(group) for n, group in groups.items() if n not in taken}))
    yield from below
    average = {rest[0]: value for rest, value in groups.get(_UNDOTTED, {}).items() if len(rest) == 1}
    for found in [one for one in below if average and not one.averaged]:
        names = {name.replace(".", ""): name for name in found.weights}
        if restored := {names[undotted]: value for undotted, value in average.items() if undotted in names}:
            # it has parameters only; buffers are those of the last weights
            yield _Found((*path, _UNDOTTED), found.weights | restored, {})


def _nameless(value: Any, path: Path = ()) -> Iterator[str]:
    """Yield where tensors lie that have no names, with their number: ``ema.shadow_params (12 tensors without names)``."""
    if isinstance(value, Mapping) and len(path) <= _DEEPEST:
        for key, inner in value.items():
            yield from _nameless(inner, (*path, str(key)))
    elif isinstance(value, (list, tuple)) and value and all(isinstance(item, Tensor) for item in value):
        yield f"{'.'.join(path)} ({len(value):,} tensors without names)"


def _pick(found: list[_Found], uri: str, entry: str, nameless: list[str]) -> tuple[_Found, list[str]]:
    averages, plain = [one for one in found if one.averaged], [one for one in found if not one.averaged]
    if entry:
        return _asked(found, averages, uri, entry, nameless), []
    pool = plain or averages
    ranked = sorted(pool, key=lambda one: [_rank(part) for part in one.path])
    first, others = ranked[0], ranked[1:]
    alike = others and [_rank(part) for part in first.path] == [_rank(part) for part in others[0].path]
    if alike or (others and not plain):
        raise WeightsError(
            f"{uri} holds several state dicts that would fit: {_listed([one.name for one in ranked])}; "
            f"say which, as in {uri}#{first.asked}"
        )
    notes = []
    if plain and averages:
        several = len(averages) > 1
        asked = averages[0].asked if several else "ema"
        python = f"{averages[0].decay:g}" if averages[0].decay is not None else "True"
        notes.append(
            f"took the last weights ({first.name}), not their moving average{'s' if several else ''} "
            f"({_listed([one.name for one in averages])}), for which give {uri}#{asked}, or ema={python} in Python"
        )
    elif nameless:
        notes.append(
            f"took the last weights ({first.name}); which tensor is which in the moving average cannot be told: {_listed(nameless)}"
        )
    elif averages:
        notes.append(f"took the moving average {first.name}; there are no other weights in it")
    if others:
        notes.append(
            f"took {first.name}; it also holds {_listed([one.name for one in others])}, for which give {uri}#{others[0].asked}"
        )
    return first, notes


def _rank(part: str) -> int:
    return _USUAL.index(part) if part in _USUAL else len(_USUAL)


def _asked(found: list[_Found], averages: list[_Found], uri: str, entry: str, nameless: list[str]) -> _Found:
    """Return what a user asked for."""
    have = f"it has {_listed([*(one.name for one in found), *nameless])}"
    if named := [one for one in found if ".".join(one.path) == entry]:
        return named[0]
    if match := re.fullmatch(r"ema(?:=(.*))?", entry):
        wanted = match[1]
        fitting = averages if wanted is None else [one for one in averages if _is_number(wanted, one.decay)]
        if len(fitting) == 1:
            return fitting[0]
        of = f" of decay {wanted}" if wanted is not None else ""
        decays = [f"{one.decay:g}" for one in averages if one.decay is not None]
        if fitting:
            raise WeightsError(
                f"{uri} has several moving averages{of}: {_listed([one.name for one in fitting])}; say which, as in "
                f"{uri}#{fitting[0].asked}"
            )
        if decays:
            raise WeightsError(f"{uri} has no moving average{of}: it has {', '.join(decays)}")
        if averages:
            raise WeightsError(
                f"{uri} has no moving average{of}: it has {_listed([one.name for one in averages])}, whose decay it does not say; "
                f"give {uri}#{averages[0].asked}, or ema=True in Python"
            )
        raise WeightsError(f"{uri} has no moving average{of}: it has none under 'ema' or a like name; {have}")
    within = [one for one in found if entry in one.path]
    if len(within) == 1:
        return within[0]
    raise WeightsError(
        f"{uri} has {'several' if within else 'no'} weights under '{entry}': {have}; name one of these after the #"
    )


def _is_number(text: str, number: float | None) -> bool:
    try:
        return number is not None and float(text) == number
    except ValueError:
        return False


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
