"""A config from layers: defaults, then YAML files in order, then ``key=value`` overrides; later layers win."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dcae15.config.autoencoder import PhaseConfig
from dcae15.config.fields import leaves
from dcae15.config.schema import Config
from dcae15.errors import ConfigError
from dcae15.redaction import redact

TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "list[int]": "a list of whole numbers such as [4, 8, 32]",
    "list[float]": "a list of numbers such as [1, 0.5]",
    "list[str]": "a list of words such as [encoder, decoder_head]",
    "list[PhaseConfig]": "a list of phases, each with fields such as 'name' and 'training: {images: 1000}'",
}
_OPEN = "???"  # OmegaConf's mark of a value that somebody must give
_FIELDS: dict[str, dataclasses.Field[Any]] = {path: f for path, f, _ in leaves(Config())}
_LISTS: dict[str, tuple[type, tuple[str, ...]]] = {
    "autoencoder.phases": (PhaseConfig, ("losses", "prefix", "training"))
}
"""Fields that hold lists of sections: what an item is, and which of its sections start as those beside the list."""
for _path, (_item, _) in _LISTS.items():
    _FIELDS.update({f"{_path}[].{path}": f for path, f, _ in leaves(_item())})
_SECTIONS = {path.rsplit(".", depth)[0] for path in _FIELDS for depth in range(1, path.count(".") + 1)}
_INDEX = re.compile(r"\[(\d+)\]")


def _div(total: int, parts: int) -> int:
    return total // parts


OmegaConf.register_resolver("div", _div, replace=True)


@dataclass(frozen=True)
class Layer:
    """Some values of a config, and who gave them.

    Attributes:
        origin: a file name, or ``command line``; shown in errors and by --print-config.
        values: dotted path of a field -> its value; for a list of sections the number of its items, followed by their fields.
    """

    origin: str
    values: Mapping[str, Any]


def from_yaml(text: str, origin: str) -> Layer:
    """Read a YAML file's text; sections may be nested or dotted.

    Raises:
        ConfigError: the text is not YAML, not a mapping, or has an unknown key.
    """
    try:
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error
    if not isinstance(tree, dict) or (tree and set(tree) == {text.strip()}):
        raise ConfigError(f"{origin} must hold 'key: value' lines, such as 'name: shapes'")
    return Layer(origin, dict(flatten(tree, "", origin)))


def from_overrides(items: Iterable[str], origin: str = "command line") -> Layer:
    """Read ``key=value`` words; text fields take the value as it stands, others read it as YAML (``[4, 8]``, ``1e-3``).

    Raises:
        ConfigError: a word without '=', an unknown key, or a value that is not YAML.
    """
    values: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"'{item}' is not key=value{_hint(path)}")
        require_known(path, origin)
        if field_of(path).type == "str":
            values[path] = text
            continue
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{path}={text} ({origin}) cannot be read: {error}") from error
        value = parsed["value"] if isinstance(parsed, dict) else parsed
        values.update(_items(path, value, origin) if path in _LISTS else [(path, value)])
    return Layer(origin, values)


def build(
    layers: Sequence[Layer], base: Config | None = None, sections: Collection[str] | None = None
) -> tuple[Config, dict[str, str]]:
    """Merge layers over a base and resolve interpolations.

    These are ``${data.resolution}``, ``${oc.env:HOME}``, or ``${div:${autoencoder.latent_channels},8}`` for a whole part of a
    number.

    Args:
        layers: in order; later ones win.
        base: the values below all layers; None means the defaults.
        sections: only in these top-level sections must nothing be left open; None means in all.

    Returns:
        The config, and the origin of every value that a layer gave, by dotted path. Nothing is checked yet.

    Raises:
        ConfigError: an unknown key, a value of a wrong type, a value left open, an interpolation without a value.
    """
    merged = copy.deepcopy(_defaults()) if base is None else OmegaConf.structured(base)
    origins: dict[str, str] = {}
    left_open: dict[str, str] = {}
    for layer in layers:
        _merge(merged, layer, origins, left_open, items=False)
    for path in _LISTS:
        _merge_items(merged, path, layers, origins, left_open)
    left_open = {
        path: origin
        for path, origin in left_open.items()
        if sections is None or "." not in path or path.split(".")[0] in sections
    }
    if left_open:
        needs = (f"{path} must be given, {_OPEN} in {origin}: {_doc(path)}" for path, origin in left_open.items())
        raise ConfigError("\n".join(needs))
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        path = error.full_key or "the config"
        raise ConfigError(f"{path} ({origins.get(path, 'default')}) has no value: {_first_line(error)}") from error
    assert isinstance(config, Config)
    return config, origins


@functools.cache
def _defaults() -> Any:
    """Return the tree of the defaults; a copy of it takes a fifth of the time of a new one, which counts for many trials."""
    return OmegaConf.structured(Config())


def _merge(
    merged: Any, layer: Layer, origins: dict[str, str], left_open: dict[str, str], *, items: bool, within: str = ""
) -> None:
    """Take in the values of a layer: those of list items, or all others."""
    for path, value in layer.values.items():
        require_known(path, layer.origin)
        if path in _LISTS or ("[" in path) != items or not path.startswith(within):
            continue
        if items:
            _in_range(merged, path, layer.origin)
        origins[path] = layer.origin
        if value == _OPEN:
            left_open[path] = layer.origin
            continue
        left_open.pop(path, None)
        try:
            OmegaConf.update(merged, path, _coerce(path, value), merge=False)
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            raise ConfigError(_wrong_type(path, value, layer.origin)) from error


def _in_range(merged: Any, path: str, origin: str) -> None:
    found = _INDEX.search(path)
    assert found
    name = path[: found.start()]
    count = len(OmegaConf.select(merged, name))
    if int(found[1]) >= count:
        raise ConfigError(f"{path} ({origin}): {name} has {count} item{'s' * (count != 1)}, counted from 0")


def _merge_items(
    merged: Any, path: str, layers: Sequence[Layer], origins: dict[str, str], left_open: dict[str, str]
) -> None:
    """Fill a list of sections: the last layer that gives the list says how many there are; it and later ones fill them."""
    start = max((i for i, layer in enumerate(layers) if path in layer.values), default=None)
    if start is not None:
        kind, inherited = _LISTS[path]
        beside = OmegaConf.select(merged, path.rsplit(".", 1)[0])
        items = [OmegaConf.structured(kind()) for _ in range(layers[start].values[path])]
        for item in items:
            for name in inherited:
                item[name] = copy.deepcopy(beside._get_node(name))  # with its interpolations
        OmegaConf.update(merged, path, items, merge=False)
        origins[path] = layers[start].origin
    for layer in layers[start or 0 :]:
        _merge(merged, layer, origins, left_open, items=True, within=path)


def is_list_of_sections(path: str) -> bool:
    """Tell whether a path is that of a list whose items have fields of their own, such as ``autoencoder.phases``."""
    return path in _LISTS


def overlaid(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values that layers give together, later ones over earlier ones, as `build` would take them."""
    values: dict[str, Any] = {}
    for layer in layers:
        anew = tuple(f"{path}[" for path in _LISTS if path in layer)
        values = {path: value for path, value in values.items() if not path.startswith(anew)} | dict(layer)
    return values


def field_of(path: str) -> dataclasses.Field[Any]:
    """Return the field at a known path; the index of a list item does not matter."""
    return _FIELDS[_INDEX.sub("[]", path)]


def _items(path: str, value: Any, origin: str) -> Iterator[tuple[str, Any]]:
    """Yield the number of items of a list of sections, then the fields of each."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ConfigError(_wrong_type(path, value, origin))
    yield path, len(value)
    for i, item in enumerate(value):
        yield from flatten(item, f"{path}[{i}].", origin)


def flatten(tree: Mapping[Any, Any], prefix: str, origin: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted path, below ``prefix``, and the value of each field in nested or dotted sections.

    Raises:
        ConfigError: a path is no field; the message names the nearest.
    """
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in _LISTS:
            yield from _items(path, value, origin)
        elif _INDEX.sub("[]", path) not in _SECTIONS:
            require_known(path, origin)
            yield path, value
        elif isinstance(value, Mapping):
            yield from flatten(value, f"{path}.", origin)
        elif value is not None:  # a section whose lines are all commented out is fine
            raise ConfigError(f"{path} ({origin}) is a section, not a value{_example(path)}")


def require_known(path: str, origin: str) -> None:
    """Raise ConfigError unless a path is that of a field; the message names the nearest."""
    if _INDEX.sub("[]", path) in _SECTIONS:
        raise ConfigError(f"{path} ({origin}) is a section, not a value{_example(path)}")
    if _INDEX.sub("[]", path) not in _FIELDS:
        raise ConfigError(f"{path} ({origin}) is not a configuration field{_hint(path)}")


def _example(section: str) -> str:
    first = next(path for path in _FIELDS if path.startswith(f"{_INDEX.sub('[]', section)}."))
    return f"; set its fields, such as {first}"


def _hint(path: str) -> str:
    """Name the likeliest fields: the leaf's name counts most, then the section."""
    section, _, leaf = _INDEX.sub("[]", path).rpartition(".")
    scores: dict[str, float] = {}
    for known in (known for known in _FIELDS if ("[]" in known) == ("[]" in section)):
        known_section, _, known_leaf = known.rpartition(".")
        likeness = _likeness(leaf, known_leaf)
        if likeness >= 0.7:
            scores[known] = likeness + 0.5 * difflib.SequenceMatcher(None, section, known_section).ratio()
    best = sorted(scores, key=lambda known: -scores[known])[:3]
    likely = [known for known in best if scores[known] > scores[best[0]] - 0.15]
    for index in _INDEX.findall(path):
        likely = [known.replace("[]", f"[{index}]", 1) for known in likely]
    return f"; did you mean {' or '.join(likely)}?" if likely else "; --help lists all fields"


def _likeness(word: str, name: str) -> float:
    initials = "".join(part[0] for part in name.split("_"))
    if word == name or (len(word) > 1 and word == initials):
        return 1.0
    if len(word) > 2 and (name.startswith(word) or word.startswith(name)):
        return 0.9
    return difflib.SequenceMatcher(None, word, name).ratio()


def _coerce(path: str, value: Any) -> Any:
    wanted = field_of(path).type
    if wanted == "str" and isinstance(value, bool):
        return "yes" if value else "no"  # YAML reads a bare yes or no as true or false
    if wanted == "int" and isinstance(value, float) and value.is_integer():
        return int(value)  # images=1e6
    if wanted in ("int", "float", "list[int]", "list[float]") and isinstance(value, bool):
        raise TypeError("true and false are no numbers")
    return value


def _wrong_type(path: str, value: Any, origin: str) -> str:
    shown = "empty" if value is None or value == "" else f"'{redact(str(value))}'"
    return f"{path} is {shown} ({origin}); it must be {TYPE_NAMES[str(field_of(path).type)]}: {_doc(path)}"


def _doc(path: str) -> str:
    return field_of(path).metadata["doc"]


def _first_line(error: Exception) -> str:
    return redact(str(error).split("\n", 1)[0])
