"""A config from layers: defaults, then YAML files in order, then ``key=value`` overrides; later layers win."""

from __future__ import annotations

import copy
import difflib
import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from yaml import YAMLError

from dcae15.config.schema import Config
from dcae15.config.spelling import Spelled, plain, texts, with_spelling
from dcae15.config.training import SHARED, PhaseConfig
from dcae15.errors import ConfigError, InvalidConfigError, nearest
from dcae15.fields import SIGNS, Section, is_list_of_sections, section_type, type_name, words_of
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
PHASES = "autoencoder.phases"
"""The one field that holds a list of sections."""
_RENAMED = dict.fromkeys(
    ("baseline", "random_control"), "name the controls to train: arms=[baseline, random], or [] for none"
)
_RANGES = ("greater_than_equal", "greater_than", "less_than_equal", "less_than", "finite_number", "literal_error")
"""What pydantic calls a number or a word that is none of those that a field may have."""
_OPEN = "???"  # OmegaConf's mark of a value that somebody must give
_INDEX = re.compile(r"\[(\d+)\]")


def _fields(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in kind.model_fields.items():
        inner = section_type(field)
        if inner is None or is_list_of_sections(field):
            yield prefix + name, field
        if inner is not None:
            yield from _fields(inner, f"{prefix}{name}{'[]' if is_list_of_sections(field) else ''}.")


_FIELDS = dict(_fields(Config))
_SECTIONS = {path.rsplit(".", depth)[0] for path in _FIELDS for depth in range(1, path.count(".") + 1)}
OmegaConf.register_resolver("div", lambda total, parts: total // parts, replace=True)


@dataclass(frozen=True)
class Layer:
    """Some values of a config, and who gave them."""

    origin: str  # a file name, or ``command line``; shown in errors and by --print-config
    # dotted path of a field -> its value; for a list of sections the number of its items, followed by their fields
    values: Mapping[str, Any]


def from_yaml(text: str, origin: str) -> Layer:
    """Read a YAML file's text; sections may be nested or dotted.

    Raises:
        ConfigError: the text is not YAML, not a mapping, or has an unknown key.
    """
    return Layer(origin, dict(flatten(yaml_tree(text, origin), "", origin)))


def yaml_tree(text: str, origin: str) -> dict[str, Any]:
    """Return the mapping that a YAML text holds, interpolations as they stand; raise ConfigError when it holds something else.

    Keys are texts. Numbers, words such as ``no`` and empty values are `Spelled`: `flatten` knows which fields take them as texts.
    """
    try:
        tree = with_spelling(OmegaConf.to_container(OmegaConf.create(text), resolve=False), text)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error
    if not isinstance(tree, dict) or (tree and set(tree) == {text.strip()}):
        raise ConfigError(f"{origin} must hold 'key: value' lines, such as 'name: shapes'")
    return tree


def from_overrides(items: Iterable[str], origin: str = "command line") -> Layer:
    """Read ``key=value`` words; text fields take the value as it stands, others read it as YAML (``[4, 8]``, ``1e-3``).

    Items of a list of texts stay what they are, too: ``[no, 001]`` are these two texts.

    Raises:
        ConfigError: a word without '=', an unknown key, or a value that is not YAML.
    """
    values: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"'{item}' is not key=value{_hint(path)}")
        require_known(path, origin)
        if field_type(path) == "str":
            values[path] = text
            continue
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{path}={text} ({origin}) cannot be read: {error}") from error
        value = with_spelling(parsed["value"] if isinstance(parsed, dict) else parsed, text)
        values.update(_items(value, origin) if path == PHASES else [(path, _typed(path, value))])
    return Layer(origin, values)


def build(layers: Sequence[Layer], sections: Collection[str] | None = None) -> tuple[Config, dict[str, str]]:
    """Merge layers over the defaults and resolve interpolations.

    These are ``${data.resolution}``, ``${oc.env:HOME}``, or ``${div:${autoencoder.latent_channels},8}`` for a whole part of a
    number.

    Args:
        layers: in order; later ones win.
        sections: only in these top-level sections must nothing be left open; None means in all.

    Returns:
        The config, and the origin of every value that a layer gave, by dotted path. What fields say about each other is not
        checked yet.

    Raises:
        InvalidConfigError: a number is out of range, or a word is none of those to choose from.
        ConfigError: an unknown key, a value of a wrong type, a value left open, an interpolation without a value.
    """
    values, origins = _overlaid_with_origins(layers)
    left_open = {path for path, value in values.items() if value == _OPEN}
    needed = [p for p in left_open if sections is None or "." not in p or p.split(".")[0] in sections]
    if needed:
        needs = (f"{p} must be given, {_OPEN} in {origins[p]}: {_doc(p)}" for p in values if p in needed)
        raise ConfigError("\n".join(needs))
    tree = copy.deepcopy(_defaults())
    for path, value in values.items():
        if path not in left_open and "[" not in path:
            _set(tree, path, value if path != PHASES else [{} for _ in range(value)])
    phases, shared = tree["autoencoder"]["phases"], tree["autoencoder"]
    for i in range(len(phases)):
        phases[i] = {**copy.deepcopy(_phase_defaults()), **{name: copy.deepcopy(shared[name]) for name in SHARED}}
    for path, value in values.items():
        if path not in left_open and (found := _INDEX.search(path)):
            if int(found[1]) >= len(phases):
                count = f"{len(phases)} item{'s' * (len(phases) != 1)}, counted from 0"
                raise ConfigError(f"{path} ({origins[path]}): {path[: found.start()]} has {count}")
            _set(phases[int(found[1])], path[found.end() + 1 :], value)
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        path = error.full_key or "the config"
        raise ConfigError(f"{path} ({origins.get(path, 'default')}) has no value: {_first_line(error)}") from error
    try:
        return Config.model_validate(resolved), origins
    except ValidationError as error:
        out_of_range = all(found["type"] in _RANGES for found in error.errors())
        kind = InvalidConfigError if out_of_range else ConfigError
        raise kind("\n".join(_problems(error, origins))) from error


@functools.cache
def _defaults() -> dict[str, Any]:
    return Config().model_dump()


@functools.cache
def _phase_defaults() -> dict[str, Any]:
    return PhaseConfig().model_dump()


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        tree = tree[section]
    tree[name] = value


def _overlaid_with_origins(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for path in layer.values:
            require_known(path, layer.origin)
        values = overlaid([values, layer.values])
        origins |= dict.fromkeys(layer.values, layer.origin)
    return values, {path: origins[path] for path in values}


def overlaid(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values that layers give together, later ones over earlier ones; a list of phases begins anew."""
    values: dict[str, Any] = {}
    for layer in layers:
        anew = f"{PHASES}[" if PHASES in layer else ()
        values = {path: value for path, value in values.items() if not path.startswith(anew)} | dict(layer)
    return values


def _problems(error: ValidationError, origins: Mapping[str, str]) -> Iterator[str]:
    """Yield what pydantic found, one sentence each: path, value, what it must be."""
    for found in error.errors():
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in found["loc"]).removeprefix(".")
        value, kind, context = found["input"], found["type"], found.get("ctx", {})
        bound = next(((words, context[name]) for _, words, name in SIGNS.values() if name in context), None)
        if kind == "finite_number":
            yield f"{path} is {value}; it must be a finite number"
        elif bound:
            yield f"{path} is {value:g}; it must be {bound[0]} {bound[1]:g}"
        elif kind == "literal_error" and isinstance(value, str):
            words = words_of(_FIELDS[_plain(_list_of(path))])
            yield f"{path} is '{redact(value)}'; it must be {' or '.join(map(repr, words))}{nearest(value, words)}"
        else:
            yield _wrong_type(path, value, origins.get(path, origins.get(_list_of(path), "default")))


def _list_of(path: str) -> str:
    """Return the path of the field that holds an item of a plain list; other paths as they are."""
    return path if _plain(path) in _FIELDS else re.sub(r"\[\d+\]$", "", path)


def _plain(path: str) -> str:
    """Return a path without the numbers of its list items: ``autoencoder.phases[].name``."""
    return re.sub(r"^(autoencoder\.phases)\[\d+\]", r"\1[]", path)


def field_type(path: str) -> str:
    """Return the type of the field at a known path, such as ``int`` or ``list[float]``."""
    return type_name(_FIELDS[_plain(path)].annotation)


def _items(value: Any, origin: str) -> Iterator[tuple[str, Any]]:
    """Yield the number of phases, then the fields of each."""
    value = value.value if isinstance(value, Spelled) else value
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ConfigError(_wrong_type(PHASES, plain(value), origin))
    yield PHASES, len(value)
    for i, item in enumerate(value):
        yield from flatten(item, f"{PHASES}[{i}].", origin)


def flatten(tree: Mapping[Any, Any], prefix: str, origin: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted path, below ``prefix``, and the value of each field in nested or dotted sections.

    Raises:
        ConfigError: a path is no field; the message names the nearest.
    """
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path == PHASES:
            yield from _items(value, origin)
        elif _plain(path) not in _SECTIONS:
            require_known(path, origin)
            yield path, _typed(path, value)
        elif isinstance(value, Mapping):
            yield from flatten(value, f"{path}.", origin)
        elif plain(value) is not None:  # a section whose lines are all commented out is fine
            raise ConfigError(f"{path} ({origin}) is a section, not a value{_example(path)}")


def _typed(path: str, value: Any) -> Any:
    """Return a value of a field, or several values to choose from: texts as they are spelled where the field takes texts."""
    if isinstance(value, Mapping) or field_type(path) not in ("str", "list[str]"):
        return plain(value)
    words = words_of(_FIELDS[_plain(path)])
    if isinstance(value, Spelled) and isinstance(value.value, bool) and "yes" in words:
        return value.text if value.text in words else value.value  # true says yes
    return texts(value)


def require_known(path: str, origin: str) -> None:
    """Raise ConfigError unless a path is that of a field; the message names the nearest."""
    if _plain(path) in _SECTIONS:
        raise ConfigError(f"{path} ({origin}) is a section, not a value{_example(path)}")
    if _plain(path) not in _FIELDS:
        raise ConfigError(f"{path} ({origin}) is not a configuration field{_hint(path)}")


def _example(section: str) -> str:
    first = next(path for path in _FIELDS if path.startswith(f"{_plain(section)}."))
    return f"; set its fields, such as {first}"


def _hint(path: str) -> str:
    """Name the likeliest fields: the leaf's name counts most, then the section."""
    if path in _RENAMED:
        return f"; {_RENAMED[path]}"
    section, _, leaf = _plain(path).rpartition(".")
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


def _wrong_type(path: str, value: Any, origin: str) -> str:
    shown = "empty" if value is None or value == "" else f"'{redact(str(value))}'"
    known = _list_of(path)
    kind, words = field_type(known), words_of(_FIELDS[_plain(known)])
    wanted = TYPE_NAMES[kind if known == path else kind.removeprefix("list[").removesuffix("]")]
    if kind == "list[str]" and words:
        wanted = f"{'a list of words among' if known == path else 'one of'} [{', '.join(words)}]"
    return f"{path} is {shown} ({origin}); it must be {wanted}: {_doc(known)}"


def _doc(path: str) -> str:
    return _FIELDS[_plain(path)].description or ""


def _first_line(error: Exception) -> str:
    return redact(str(error).split("\n", 1)[0])
