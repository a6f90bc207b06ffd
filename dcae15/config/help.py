"""The config as text: the generated list of all fields, and a config as YAML with the origin of each value."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from dcae15.config.schema import Config
from dcae15.fields import Section, bounds_of, facts_of, is_list_of_sections, section_type, type_name, words_of
from dcae15.redaction import redact


def fields_help(sections: Collection[str] | None = None, width: int = 100) -> str:
    """Describe every field of some top-level sections: path, default, type, unit, range or choices, and meaning.

    Args:
        sections: names of top-level sections; None means all. Fields outside of sections always come first.
        width: columns of the terminal.
    """
    return "\n".join(_section_help(Config(), "", "general", sections, width))


def _section_help(own: Section, prefix: str, title: str, wanted: Collection[str] | None, width: int) -> Iterator[str]:
    yield f"{title}:"
    fields = type(own).model_fields
    yield from _lines(own, prefix, width)
    for name, field in fields.items():
        if is_list_of_sections(field) and (kind := section_type(field)):
            yield from _lines(kind(), f"{prefix}{name}[i].", width)
    for name, field in fields.items():
        value = getattr(own, name)
        if isinstance(value, Section) and (wanted is None or prefix or name in wanted):
            yield ""
            title = f"{prefix}{name} ({field.description})"
            yield from _section_help(value, f"{prefix}{name}.", title, wanted, width)


def _lines(own: Section, prefix: str, width: int) -> Iterator[str]:
    for name, field in type(own).model_fields.items():
        if not isinstance(value := getattr(own, name), Section):
            yield f"  {prefix}{name}={_short(value)}  ({', '.join(_facts(field))})"
            yield textwrap.fill(field.description or "", width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _facts(field: FieldInfo) -> Iterator[str]:
    yield type_name(field.annotation)
    if unit := facts_of(field)["unit"]:
        yield unit
    if words := words_of(field):
        yield " | ".join(words)
    yield from bounds_of(field)


def dump(config: Config, origins: Mapping[str, str]) -> str:
    """Write a config as YAML that can be read again, each value with its origin as a comment; secrets are masked.

    ``origins`` says who gave a value, by dotted path; others are defaults.
    """
    return "\n".join(_dump_lines(config, "", origins)) + "\n"


def _dump_lines(own: Section, prefix: str, origins: Mapping[str, str], indent: str = "") -> Iterator[str]:
    for name in type(own).model_fields:
        value, path = getattr(own, name), prefix + name
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _dump_lines(value, f"{path}.", origins, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], Section):
            yield f"{indent}{name}:"
            for i, item in enumerate(value):
                first, *others = _dump_lines(item, f"{path}[{i}].", origins, indent + "    ")
                yield f"{indent}  - {first.strip()}"
                yield from others
        else:
            yield f"{indent}{name}: {_short(value)}  # {origins.get(path, 'default')}"


def _short(value: Any) -> str:
    return json.dumps(redact(value) if isinstance(value, str) else value, ensure_ascii=False)
