"""Text is text: what a YAML value looks like in its file, kept until the field that it is for is known.

YAML reads a bare ``no`` as false, ``001`` as 1 and ``1e3`` as 1000.0. In a field of numbers that is meant; the name of a class is
what it is written as. So values are read twice, as what YAML takes them for and as texts, and the field decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_PADDED = re.compile(r"[-+]?0[0-9_]+")


@dataclass(frozen=True)
class Spelled:
    """A value that YAML takes for something else than text."""

    value: Any  # true, 1, 1000.0, None, ...
    text: str  # as it is spelled: ``no``, ``001``, ``1e3``, ``~``; empty where nothing stands


class _Texts(yaml.SafeLoader):
    """Reads every value as text, whatever it looks like; merge keys and explicit tags mean what they mean."""


# Nothing is null, not even an empty value: it is an empty text.
_Texts.yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"))]}


def with_spelling(value: Any, text: str) -> Any:
    """Return what a YAML text was read as, with `Spelled` for what is no text, and keys as texts; lists and mappings stay."""
    return _both(value, yaml.load(text, _Texts))  # noqa: S506 - a safe loader that knows less than SafeLoader


def _both(value: Any, spelled: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(spelled, Mapping) and len(value) == len(spelled):
        items = zip(value.values(), spelled.items(), strict=True)
        return {str(key): _both(item, theirs) for item, (key, theirs) in items}
    if isinstance(value, list) and isinstance(spelled, list) and len(value) == len(spelled):
        return [_both(item, theirs) for item, theirs in zip(value, spelled, strict=True)]
    return value if isinstance(value, str | list | Mapping) else Spelled(_number(value, spelled), str(spelled or ""))


def _number(value: Any, spelled: Any) -> Any:
    """Return a number as people read it: YAML 1.1 takes ``010`` for 8 and ``1:30`` for 90."""
    if isinstance(value, int | float) and isinstance(spelled, str):
        if ":" in spelled:
            return spelled
        if _PADDED.fullmatch(spelled):
            return int(spelled.replace("_", ""))
    return value


def plain(value: Any) -> Any:
    """Return a value as YAML takes it."""
    return _each(value, lambda spelled: spelled.value)


def texts(value: Any) -> Any:
    """Return a value as it is spelled; lists and mappings stay what they are, with texts in them."""
    return _each(value, lambda spelled: spelled.text)


def _each(value: Any, chosen: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _each(item, chosen) for key, item in value.items()}
    if isinstance(value, list):
        return [_each(item, chosen) for item in value]
    return chosen(value) if isinstance(value, Spelled) else value
