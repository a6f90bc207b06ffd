"""A sweep from its YAML file: one scale is chosen, every key is known, every value has the right form."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dcae15.config.checks import nearest
from dcae15.config.layers import flatten, from_yaml, is_list_of_sections, overlaid
from dcae15.config.sweep import Figure, Range, Sweep, Value
from dcae15.config.sweep_checks import check_sweep
from dcae15.errors import ConfigError
from dcae15.redaction import redact

_SCALES = ("scales", "default_scale")
_NOT_IN_FILES = ("scale", "origin", "layers")


def read_local(path: str) -> str:
    """Return the text of a local file; raise ConfigError when it cannot be read."""
    try:
        return Path(path).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def sweep_from_yaml(
    text: str,
    origin: str,
    scale: str = "",
    loader: Callable[[str], str] = read_local,
    own: Mapping[str, Any] | None = None,
) -> Sweep:
    """Read a sweep's file.

    Its keys are the fields of `Sweep`; ``scales`` (by name: keys that take the place of the file's own, or with ``set``
    come over them) and ``default_scale``. Fields of the configuration may be nested or dotted. Values of ``space`` are lists, or
    mappings with ``low`` and ``high``, ``log`` and ``step``.

    Args:
        text: of the file.
        origin: its path or URI; files of ``config`` are relative to its folder.
        scale: name of the scale; empty means the file's ``default_scale``.
        loader: returns the text of a file of ``config``.
        own: keys that take the place of the file's, as the command line gives them.

    Raises:
        ConfigError: the text is not YAML, a key is unknown, a value has the wrong form, or they contradict each other. It names
            the file and the key.
    """
    shown = redact(origin)
    tree = {**_chosen(_tree(text, shown), scale, shown), **(own or {})}
    values: dict[str, Any] = {key: _READERS[key](value, f"{shown}: {key}") for key, value in tree.items()}
    if "name" not in values:
        raise ConfigError(f"{shown}: name is missing; give the sweep a name, such as 'name: channels'")
    files = tuple(_beside(origin, path) for path in values.get("config", ()))
    layers = tuple(from_yaml(loader(path), redact(path)) for path in files)
    if "include" in values:
        named = (_beside(origin, name) if name.endswith((".yaml", ".yml")) else name for name in values["include"])
        values["include"] = tuple(named)
    sweep = Sweep(**{**values, "config": files, "origin": shown, "layers": layers})
    check_sweep(sweep)
    return sweep


def _tree(text: str, origin: str) -> dict[str, Any]:
    try:
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error
    if not isinstance(tree, dict) or set(tree) == {text.strip()}:
        raise ConfigError(f"{origin} must hold 'key: value' lines, such as 'name: channels'")
    return {str(key): value for key, value in tree.items()}


def _chosen(tree: dict[str, Any], scale: str, origin: str) -> dict[str, Any]:
    """Return the keys of the file with those of one scale over them."""
    _require_keys(tree, (*_READERS, *_SCALES), origin)
    scales = {str(name): keys for name, keys in _mapping(tree.pop("scales", None), f"{origin}: scales").items()}
    default = _text(tree.pop("default_scale", None) or "", f"{origin}: default_scale")
    if default and default not in scales:
        raise ConfigError(f"{origin}: default_scale is '{default}'; {_scales_of(scales, default)}")
    if scale and scale not in scales:
        raise ConfigError(f"{origin} has no scale '{scale}'; {_scales_of(scales, scale)}")
    if scales and not (scale or default):
        raise ConfigError(f"{origin}: default_scale is missing; {_scales_of(scales, '')}")
    if not scales:
        return tree
    path = f"{origin}: scales.{scale or default}"
    own = _mapping(scales[scale or default], path)
    _require_keys(own, [key for key in _READERS if key != "name"], path)
    both = {"set": overlaid([_fields(of.get("set"), f"{name}: set") for name, of in ((origin, tree), (path, own))])}
    return {**tree, **own, **both, "scale": scale or default}


def _scales_of(scales: Mapping[str, Any], word: str) -> str:
    return f"it must be one of {', '.join(scales)}{nearest(word, scales)}" if scales else "the file has no scales"


def _require_keys(tree: Mapping[str, Any], keys: Any, where: str) -> None:
    for key in tree:
        if key not in keys or key in _NOT_IN_FILES:
            known = [k for k in keys if k not in _NOT_IN_FILES]
            hint = nearest(str(key), known) or f"; the keys are {', '.join(known)}"
            raise ConfigError(f"{where}: '{key}' is no key of a sweep{hint}")


def _beside(origin: str, path: str) -> str:
    """Return a path relative to the folder of a file or URI as one that can be opened."""
    if "://" in path or path.startswith(("/", "~")) or "/" not in origin:
        return path
    scheme, found, rest = origin.rpartition("://")
    return scheme + found + posixpath.normpath(posixpath.join(posixpath.dirname(rest), path))


def _wrong(where: str, value: Any, wanted: str) -> ConfigError:
    shown = "empty" if value is None or value == "" else f"'{redact(str(value))}'"
    return ConfigError(f"{where} is {shown}; it must be {wanted}")


def _text(value: Any, where: str) -> str:
    if isinstance(value, list | dict) or value is None:
        raise _wrong(where, value, "text")
    return str(value)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_text(item, where) for item in (value if isinstance(value, list) else [value]))


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise _wrong(where, value, "a whole number")
    return int(value)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(where, value, "a number")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, value, "true or false")
    return value


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise _wrong(where, value, "a section of 'key: value' lines")
    return {str(key): item for key, item in (value or {}).items()}


def _fields(value: Any, where: str) -> dict[str, Value]:
    return overlaid([dict(flatten(_mapping(value, where), "", where))])


def _arms(value: Any, where: str) -> dict[str, dict[str, Value]]:
    return {name: _fields(fields, f"{where}.{name}") for name, fields in _mapping(value, where).items()}


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _wrong(where, value, "a list of whole numbers such as [0, 1, 2]")
    return tuple(_whole(item, where) for item in value)


def _space(value: Any, where: str) -> dict[str, tuple[Value, ...] | Range]:
    space: dict[str, tuple[Value, ...] | Range] = {}
    for path, item in flatten(_mapping(value, where), "", where):
        if is_list_of_sections(path):
            raise ConfigError(
                f"{where}: {path} holds sections; search a field of one, such as {path}[0].training.images"
            )
        space[path] = _values(path, item, where)
    return space


def _values(path: str, value: Any, where: str) -> tuple[Value, ...] | Range:
    where = f"{where}: {path}"
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict) or not {"low", "high"} <= value.keys():
        raise _wrong(
            where, value, "a list of values such as [16, 32], or a range such as {low: 1e-4, high: 1e-2, log: true}"
        )
    ends = {name: _number(value[name], f"{where}.{name}") for name in ("low", "high", "step") if name in value}
    return Range(**ends, log=_flag(value.get("log", False), f"{where}.log"))


def _figures(value: Any, where: str) -> tuple[Figure, ...]:
    if not isinstance(value, list):
        raise _wrong(where, value, "a list of figures, each with 'kind' and 'measures'")
    return tuple(_figure(item, f"{where}[{i}]") for i, item in enumerate(value))


def _figure(value: Any, where: str) -> Figure:
    tree, keys = _mapping(value, where), [f.name for f in dataclasses.fields(Figure)]
    for key in tree:
        if key not in keys:
            raise ConfigError(
                f"{where}: '{key}' is no key of a figure; the keys are {', '.join(keys)}{nearest(key, keys)}"
            )
    for key in ("kind", "measures"):
        if key not in tree:
            raise ConfigError(f"{where}.{key} is missing; a figure needs its kind and what it measures")
    texts = {key: _text(item, f"{where}.{key}") for key, item in tree.items() if key != "measures"}
    return Figure(**texts, measures=_texts(tree["measures"], f"{where}.measures"))


def _name(value: Any, where: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text := _text(value, where), flags=re.ASCII):
        raise _wrong(where, text, "of letters, digits, '.', '_' and '-' only")
    return text


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "name": _name,
    "question": _text,
    "scale": _text,
    "config": _texts,
    "set": _fields,
    "arms": _arms,
    "seeds": _seeds,
    "space": _space,
    "search": _text,
    "trials": _whole,
    "skip_invalid": _flag,
    "scheduler": _text,
    "metric": _text,
    "mode": _text,
    "reduction": _whole,
    "include": _texts,
    "figures": _figures,
    "concurrent": _whole,
    "cpus_per_trial": _whole,
    "gpus_per_trial": _whole,
}
"""How each key of a file is read; the names are those of `Sweep`."""
