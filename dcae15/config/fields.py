"""How a configuration field is declared: its default, unit, range and meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import field
from typing import Any


def option(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    affects_result: bool = True,
) -> Any:
    """Declare one configuration field.

    Args:
        default: the value where nobody gives another; a list is copied for each config.
        doc: the meaning, one sentence.
        unit: unit of a number.
        choices: valid values of a text.
        least: smallest valid number (of a list: of each item).
        most: largest valid number.
        above: valid numbers are larger than this.
        below: valid numbers are smaller than this.
        affects_result: False keeps the field out of fingerprints: changing it never makes a finished stage run again.
    """
    bounds = {"least": least, "most": most, "above": above, "below": below}
    metadata = {
        "doc": doc,
        "unit": unit,
        "choices": choices,
        "bounds": {name: bound for name, bound in bounds.items() if bound is not None},
        "affects_result": affects_result,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def sections(doc: str) -> Any:
    """Declare a list of groups of fields, empty by default."""
    return field(default_factory=list, metadata={"doc": doc, "unit": "", "choices": (), "bounds": {}})


def section(cls: type, doc: str, **defaults: Any) -> Any:
    """Declare a nested group of fields, with other defaults than the group's own where given."""
    return field(default_factory=lambda: cls(**defaults), metadata={"doc": doc})


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Yield (dotted path, field, value) of every field that is not a section, in the schema's order."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            for i, item in enumerate(value):
                yield from leaves(item, f"{prefix}{f.name}[{i}].")
        else:
            yield prefix + f.name, f, value
