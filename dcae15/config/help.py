"""The config as text: the generated list of all fields, and a config as YAML with the origin of each value."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dcae15.config.autoencoder import PhaseConfig
from dcae15.config.schema import Config
from dcae15.redaction import redact

_BOUND_SIGNS = {"least": ">=", "most": "<=", "above": ">", "below": "<"}


def fields_help(sections: Collection[str] | None = None, width: int = 100) -> str:
    """Describe every field of some top-level sections: path, default, type, unit, range or choices, and meaning.

    Args:
        sections: names of top-level sections; None means all. Fields outside of sections always come first.
        width: columns of the terminal.
    """
    return "\n".join(_section_help(Config(), "", "general", sections, width))


def _section_help(config: Any, prefix: str, title: str, wanted: Collection[str] | None, width: int) -> Iterator[str]:
    subsections = []
    yield f"{title}:"
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            subsections.append((f, value))
            continue
        yield f"  {prefix}{f.name}={_short(value)}  ({', '.join(_facts(f))})"
        yield textwrap.fill(f.metadata["doc"], width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    for name, item in ((f.name, PhaseConfig()) for f in dataclasses.fields(config) if f.type == "list[PhaseConfig]"):
        for f in dataclasses.fields(item):
            if not dataclasses.is_dataclass(getattr(item, f.name)):
                yield f"  {prefix}{name}[i].{f.name}={_short(getattr(item, f.name))}  ({', '.join(_facts(f))})"
                yield textwrap.fill(f.metadata["doc"], width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    for f, value in subsections:
        if wanted is None or prefix or f.name in wanted:
            yield ""
            yield from _section_help(
                value, f"{prefix}{f.name}.", f"{prefix}{f.name} ({f.metadata['doc']})", wanted, width
            )


def _facts(f: dataclasses.Field[Any]) -> Iterator[str]:
    yield str(f.type)
    if f.metadata["unit"]:
        yield f.metadata["unit"]
    if f.metadata["choices"]:
        yield " | ".join(f.metadata["choices"])
    for name, bound in f.metadata["bounds"].items():
        yield f"{_BOUND_SIGNS[name]} {bound}"


def dump(config: Config, origins: Mapping[str, str]) -> str:
    """Write a config as YAML that can be read again, each value with its origin as a comment; secrets are masked.

    Args:
        config: the values.
        origins: dotted path -> who gave the value; others are defaults.
    """
    return "\n".join(_dump_lines(config, "", origins)) + "\n"


def _dump_lines(config: Any, prefix: str, origins: Mapping[str, str], indent: str = "") -> Iterator[str]:
    for f in dataclasses.fields(config):
        value, path = getattr(config, f.name), prefix + f.name
        if dataclasses.is_dataclass(value):
            yield f"{indent}{f.name}:"
            yield from _dump_lines(value, f"{path}.", origins, indent + "  ")
        elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            yield f"{indent}{f.name}:"
            for i, item in enumerate(value):
                first, *others = _dump_lines(item, f"{path}[{i}].", origins, indent + "    ")
                yield f"{indent}  - {first.strip()}"
                yield from others
        else:
            yield f"{indent}{f.name}: {_short(value)}  # {origins.get(path, 'default')}"


def _short(value: Any) -> str:
    return json.dumps(redact(value) if isinstance(value, str) else value, ensure_ascii=False)
