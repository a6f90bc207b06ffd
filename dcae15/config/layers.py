"""A config from layers: defaults, then YAML files in order, then ``key=value`` overrides; later layers win."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dcae15.config.checks import leaves
from dcae15.config.schema import Config
from dcae15.errors import ConfigError
from dcae15.redaction import redact

TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "list[int]": "a list of whole numbers such as [4, 8, 32]",
}
_OPEN = "???"  # OmegaConf's mark of a value that somebody must give
_FIELDS: dict[str, dataclasses.Field[Any]] = {path: f for path, f, _ in leaves(Config())}
_SECTIONS = {path.rsplit(".", depth)[0] for path in _FIELDS for depth in range(1, path.count(".") + 1)}


@dataclass(frozen=True)
class Layer:
    """Some values of a config, and who gave them.

    Attributes:
        origin: a file name, or ``command line``; shown in errors and by --print-config.
        values: dotted path of a field -> its value.
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
    return Layer(origin, dict(_flatten(tree, "", origin)))


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
        _known(path, origin)
        if _FIELDS[path].type == "str":
            values[path] = text
            continue
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{path}={text} ({origin}) cannot be read: {error}") from error
        values[path] = parsed["value"] if isinstance(parsed, dict) else parsed
    return Layer(origin, values)


def build(layers: Sequence[Layer], base: Config | None = None) -> tuple[Config, dict[str, str]]:
    """Merge layers over a base and resolve interpolations such as ``${oc.env:HOME}`` or ``${data.resolution}``.

    Args:
        layers: in order; later ones win.
        base: the values below all layers; None means the defaults.

    Returns:
        The config, and the origin of every value that a layer gave, by dotted path. Nothing is checked yet.

    Raises:
        ConfigError: an unknown key, a value of a wrong type, a value left open, an interpolation without a value.
    """
    merged = OmegaConf.structured(Config() if base is None else base)
    origins: dict[str, str] = {}
    left_open: dict[str, str] = {}
    for layer in layers:
        for path, value in layer.values.items():
            _known(path, layer.origin)
            origins[path] = layer.origin
            if value == _OPEN:
                left_open[path] = layer.origin
                continue
            left_open.pop(path, None)
            try:
                OmegaConf.update(merged, path, _coerce(path, value), merge=False)
            except (OmegaConfBaseException, ValueError, TypeError) as error:
                raise ConfigError(_wrong_type(path, value, layer.origin)) from error
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


def _flatten(tree: Mapping[Any, Any], prefix: str, origin: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path not in _SECTIONS:
            _known(path, origin)
            yield path, value
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{path}.", origin)
        elif value is not None:  # a section whose lines are all commented out is fine
            raise ConfigError(f"{path} ({origin}) is a section, not a value{_example(path)}")


def _known(path: str, origin: str) -> None:
    if path in _SECTIONS:
        raise ConfigError(f"{path} ({origin}) is a section, not a value{_example(path)}")
    if path not in _FIELDS:
        raise ConfigError(f"{path} ({origin}) is not a configuration field{_hint(path)}")


def _example(section: str) -> str:
    first = next(path for path in _FIELDS if path.startswith(f"{section}."))
    return f"; set its fields, such as {first}"


def _hint(path: str) -> str:
    """Name the likeliest fields: the leaf's name counts most, then the section."""
    section, _, leaf = path.rpartition(".")
    scores: dict[str, float] = {}
    for known in _FIELDS:
        known_section, _, known_leaf = known.rpartition(".")
        likeness = _likeness(leaf, known_leaf)
        if likeness >= 0.7:
            scores[known] = likeness + 0.5 * difflib.SequenceMatcher(None, section, known_section).ratio()
    best = sorted(scores, key=lambda known: -scores[known])[:3]
    likely = [known for known in best if scores[known] > scores[best[0]] - 0.15]
    return f"; did you mean {' or '.join(likely)}?" if likely else "; --help lists all fields"


def _likeness(word: str, name: str) -> float:
    initials = "".join(part[0] for part in name.split("_"))
    if word == name or (len(word) > 1 and word == initials):
        return 1.0
    if len(word) > 2 and (name.startswith(word) or word.startswith(name)):
        return 0.9
    return difflib.SequenceMatcher(None, word, name).ratio()


def _coerce(path: str, value: Any) -> Any:
    wanted = _FIELDS[path].type
    if wanted == "str" and isinstance(value, bool):
        return "yes" if value else "no"  # YAML reads a bare yes or no as true or false
    if wanted == "int" and isinstance(value, float) and value.is_integer():
        return int(value)  # images=1e6
    if wanted in ("int", "float", "list[int]") and isinstance(value, bool):
        raise TypeError("true and false are no numbers")
    return value


def _wrong_type(path: str, value: Any, origin: str) -> str:
    shown = "empty" if value is None or value == "" else f"'{redact(str(value))}'"
    return f"{path} is {shown} ({origin}); it must be {TYPE_NAMES[str(_FIELDS[path].type)]}: {_doc(path)}"


def _doc(path: str) -> str:
    return _FIELDS[path].metadata["doc"]


def _first_line(error: Exception) -> str:
    return redact(str(error).split("\n", 1)[0])
