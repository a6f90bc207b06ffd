"""How a group of settings is declared: typed fields with a default, a meaning, a unit, a range, and when they matter.

A rule is written once, with the field: `option` says when the field is active and whether it can change a result. The names of
results (fingerprints) and the advice "no effect, because ..." both follow from it, see `dcae15.config.activity`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
"""A whole number of at least 1, as an item of a list."""
Index = Annotated[int, Field(ge=0)]
"""A whole number of at least 0, as an item of a list."""
Weight = Annotated[float, Field(ge=0)]
"""A number of at least 0, as an item of a list."""

Condition = Callable[[Any, Any, str], str]
"""Takes the section of a field, the whole configuration and the section's path; returns why the field has no effect, or nothing."""

SIGNS = {Ge: (">=", "at least", "ge"), Le: ("<=", "at most", "le"), Gt: (">", "above", "gt"), Lt: ("<", "below", "lt")}
"""Bounds of numbers: their sign, their words, and the name of the number."""


class Section(BaseModel):
    """A group of fields. Unknown fields are refused; numbers are finite."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_surprises(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads a bare yes as true: take it as the word where a word is asked for, and never as the number 1."""
        wanted = type_name(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and wanted == "str":
            return "yes" if value else "no"
        items = value if isinstance(value, list) else [value]
        if wanted.removeprefix("list[").removesuffix("]") in ("int", "float") and any(
            isinstance(v, bool) for v in items
        ):
            raise PydanticCustomError("bool_number", "true and false are no numbers")
        return value

    def changed(self, **values: Any) -> Self:
        """Return a copy with other values; they are taken as they are."""
        return self.model_copy(update=values)


def option(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    active_if: Condition | tuple[Condition, ...] = (),
    affects_result: bool | Callable[[Any], bool] = True,
) -> Any:
    """Declare a field: its default (a list is copied for each section), its meaning in one sentence, and the bounds of a number.

    Items of lists have their bounds in their type. ``active_if`` must hold, so that the field has an effect. ``affects_result``
    False keeps the field out of fingerprints: changing it never makes a finished stage run again; it is a function of the
    section where that depends on other fields.
    """
    extra: Any = {"unit": unit, "active_if": _tuple(active_if), "affects_result": affects_result}
    given: Any = {"default_factory": lambda: list(default)} if isinstance(default, list) else {"default": default}
    return Field(**given, description=doc, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra=extra)


neutral = functools.partial(option, affects_result=False)
"""Declares a field that never changes a result."""


def section(
    kind: type[Section], doc: str, *, active_if: Condition | tuple[Condition, ...] = (), **defaults: Any
) -> Any:
    """Declare a nested group of fields, with other defaults than the group's own where given."""
    extra: Any = {"active_if": _tuple(active_if)}
    return Field(default_factory=lambda: kind(**defaults), description=doc, json_schema_extra=extra)


def when(path: str, is_: Any = None, *, is_not: Any = None) -> Condition:
    """Return the condition that another field has a value, has another value than one, or, without either, is not empty or 0.

    ``path`` leads to a field of the same section (``crop``), or of the whole configuration (``diffusion.enabled``).
    """

    def condition(own: Section, root: Section, at: str) -> str:
        owner, full = (root, path) if "." in path else (own, f"{at}.{path}" if at else path)
        value = owner
        for name in path.split("."):
            value = getattr(value, name)
        holds = value == is_ if is_ is not None else value != is_not if is_not is not None else bool(value)
        return "" if holds else f"{full} is {written(value)}"

    return condition


def _tuple(conditions: Condition | tuple[Condition, ...]) -> tuple[Condition, ...]:
    return conditions if isinstance(conditions, tuple) else (conditions,)


def written(value: Any) -> str:
    """Return a value as a sentence shows it: 'text', true, [4, 8]."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}'" if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def facts_of(field: FieldInfo) -> dict[str, Any]:
    """Return what `option` or `section` noted of a field."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def type_name(annotation: Any) -> str:
    """Return ``int``, ``float``, ``str``, ``bool``, ``list[int]``, ...; words to choose from are ``str``, sections their class."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_name(get_args(annotation)[0])
    if origin is list:
        return f"list[{type_name(get_args(annotation)[0])}]"
    return "str" if origin is Literal else annotation.__name__


def section_type(field: FieldInfo) -> type[Section] | None:
    """Return the class of a nested section, or of the items of a list of sections; None for a plain field."""
    found = field.annotation
    if get_origin(found) is list:
        (found,) = get_args(found)
    return found if isinstance(found, type) and issubclass(found, Section) else None


def is_list_of_sections(field: FieldInfo) -> bool:
    """Tell whether a field holds a list whose items have fields of their own."""
    return get_origin(field.annotation) is list and section_type(field) is not None


def words_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the words that a field chooses from; none for other fields."""
    annotation = field.annotation
    if get_origin(annotation) is list:
        (annotation,) = get_args(annotation)
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def bounds_of(field: FieldInfo) -> Iterator[str]:
    """Yield the bounds of a field's numbers, such as ``>= 1``."""
    noted = list(field.metadata)
    if get_origin(field.annotation) is list:
        (item,) = get_args(field.annotation)
        noted += [bound for note in get_args(item)[1:] for bound in getattr(note, "metadata", [])]
    for bound in noted:
        if type(bound) in SIGNS:
            sign, _, name = SIGNS[type(bound)]
            yield f"{sign} {getattr(bound, name)}"
