"""A sweep from its YAML file: one scale is chosen, every key is known, every value has the right form."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from dcae15 import storage
from dcae15.config import PHASES, flatten, from_yaml, overlaid, plain, texts, yaml_tree
from dcae15.errors import ConfigError, StorageError, nearest
from dcae15.redaction import redact
from dcae15.sweep.checks import check_sweep
from dcae15.sweep.file import Figure, Range, Sweep

KEYS = [f.name for f in dataclasses.fields(Sweep) if f.name not in ("scale", "origin", "layers")]
"""Keys of a file, beside ``scales`` and ``default_scale``."""
_TEXTS = ("name", "question", "default_scale", "config", "metric", "include", "figures")
"""Keys that hold nothing but texts; those of the configuration know it field by field."""
_FORMS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_pattern_mismatch": "of letters, digits, '.', '_' and '-' only",
    "seeds": "a list of whole numbers such as [0, 1, 2]",
    "figures": "a list of figures, each with 'kind' and 'measures'",
}
_RANGE = "a list of values such as [16, 32], or a range such as {low: 1e-4, high: 1e-2, log: true}"
_MISSING = {
    "name": "give the sweep a name, such as 'name: channels'",
    "kind": "a figure needs its kind and what it measures",
    "measures": "a figure needs its kind and what it measures",
}


def read_text(uri: str) -> str:
    """Return the text of a file; raise ConfigError when it cannot be read."""
    try:
        return storage.read_bytes(storage.expanded(uri)).decode()
    except StorageError as error:
        raise ConfigError(f"{redact(uri)} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{redact(uri)} is not a text file") from error


def sweep_from_yaml(text: str, origin: str, scale: str = "", own: Mapping[str, Any] | None = None) -> Sweep:
    """Read a sweep's file.

    Its keys are the fields of `Sweep`; ``scales`` (by name: keys that take the place of the file's own, or with ``set``
    come over them) and ``default_scale``. Fields of the configuration may be nested or dotted. Values of ``space`` are lists, or
    mappings with ``low`` and ``high``, ``log`` and ``step``.

    Args:
        text: of the file.
        origin: its path or URI; files of ``config`` are relative to its folder.
        scale: name of the scale; empty means the file's ``default_scale``.
        own: keys that take the place of the file's, as the command line gives them.

    Raises:
        ConfigError: the text is not YAML, a key is unknown, a value has the wrong form, or they contradict each other. It names
            the file and the key.
    """
    shown = redact(origin)
    tree = {**_at_scale(yaml_tree(text, shown), scale, shown), **(own or {})}
    tree["set"] = overlaid([tree.get("set") or {}])
    arms = _mapping(tree.get("arms"), f"{shown}: arms")
    tree["arms"] = {name: _fields(fields, f"{shown}: arms.{name}") for name, fields in arms.items()}
    tree["space"] = dict(_space(tree.get("space"), f"{shown}: space"))
    tree = {key: texts(value) if key in _TEXTS else plain(value) for key, value in tree.items()}
    try:
        sweep = TypeAdapter(Sweep).validate_python({**tree, "origin": shown})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{shown}: {_problem(detail)}" for detail in error.errors())) from error
    files = tuple(_beside(origin, path) for path in sweep.config)
    layers = tuple(from_yaml(read_text(path), redact(path)) for path in files)
    included = tuple(_beside(origin, name) if name.endswith((".yaml", ".yml")) else name for name in sweep.include)
    sweep = dataclasses.replace(sweep, config=files, layers=layers, include=included)
    check_sweep(sweep)
    return sweep


def _at_scale(tree: dict[str, Any], scale: str, origin: str) -> dict[str, Any]:
    """Return the keys of the file with those of one scale over them."""
    _require_keys(tree, [*KEYS, "scales", "default_scale"], origin)
    scales = _mapping(tree.pop("scales", None), f"{origin}: scales")
    default = str(texts(tree.pop("default_scale", "")))
    tree["set"] = _fields(tree.get("set"), f"{origin}: set")
    of = f"it must be one of {', '.join(scales)}" if scales else "the file has no scales"
    if default and default not in scales:
        raise ConfigError(f"{origin}: default_scale is '{default}'; {of}{nearest(default, scales)}")
    if scale and scale not in scales:
        raise ConfigError(f"{origin} has no scale '{scale}'; {of}{nearest(scale, scales)}")
    if scales and not (scale or default):
        raise ConfigError(f"{origin}: default_scale is missing; {of}")
    if not scales:
        return tree
    where = f"{origin}: scales.{scale or default}"
    own = _mapping(scales[scale or default], where)
    _require_keys(own, [key for key in KEYS if key != "name"], where)
    both = overlaid([tree["set"], _fields(own.get("set"), f"{where}: set")])
    return {**tree, **own, "set": both, "scale": scale or default}


def _require_keys(tree: Collection[str], keys: Collection[str], where: str) -> None:
    for key in tree:
        if key not in keys:
            hint = nearest(key, keys) or f"; the keys are {', '.join(keys)}"
            raise ConfigError(f"{where}: '{key}' is no key of a sweep{hint}")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    value = value if isinstance(value, Mapping) else plain(value)
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {_shown(value)}; it must be a section of 'key: value' lines")
    return {str(key): item for key, item in (value or {}).items()}


def _fields(value: Any, where: str) -> dict[str, Any]:
    return overlaid([dict(flatten(_mapping(value, where), "", where))])


def _space(value: Any, where: str) -> Any:
    for path, item in flatten(_mapping(value, where), "", where):
        if path == PHASES:
            raise ConfigError(
                f"{where}: {path} holds sections; search a field of one, such as {path}[0].training.images"
            )
        if not isinstance(item, list) and not (isinstance(item, dict) and {"low", "high"} <= item.keys()):
            raise ConfigError(f"{where}: {path} is {_shown(item)}; it must be {_RANGE}")
        yield path, item


def _beside(origin: str, path: str) -> str:
    """Return a path relative to the folder of a file or URI as one that can be opened."""
    if "://" in path or path.startswith(("/", "~")) or "/" not in origin:
        return path
    scheme, found, rest = origin.rpartition("://")
    return scheme + found + posixpath.normpath(posixpath.join(posixpath.dirname(rest), path))


def _shown(value: Any) -> str:
    return "empty" if value is None or value == "" else f"'{redact(str(value))}'"


def _problem(error: ErrorDetails) -> str:
    """Put into words what pydantic found: where, which value, and what it must be."""
    places = [place for place in error["loc"] if place not in ("values", "range")]
    path = "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places)[1:]
    kind, value, key = error["type"], error["input"], str(places[-1])
    context: dict[str, Any] = error.get("ctx", {})
    if kind == "missing":
        return f"{path} is missing; {_MISSING[key]}"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        owner, name = (Range, "range") if "range" in error["loc"] else (Figure, "figure")
        keys = [f.name for f in dataclasses.fields(owner)]
        owned = path.removesuffix(f".{key}")
        return f"{owned}: '{key}' is no key of a {name}; the keys are {', '.join(keys)}{nearest(key, keys)}"
    if kind == "literal_error":
        words = re.findall(r"'(\w+)'", context["expected"])
        return f"{path} is {_shown(value)}; it must be one of {', '.join(words)}{nearest(str(value), words)}"
    if kind == "greater_than_equal":
        return f"{path} is {value}; it must be at least {context['ge']}"
    if kind == "string_too_short":
        return f"{path} is empty; give what trials are compared by, such as frechet_distance.generated"
    form = _FORMS.get(kind) or _FORMS.get(key) or error["msg"]
    return f"{path} is {_shown(value)}; it must be {form}"
