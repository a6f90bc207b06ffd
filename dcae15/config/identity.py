"""What a result is called: the fields that can change it, and their fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

SCHEMA_VERSION = 3


def result_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config section that can change a result, as plain nested dicts."""
    values: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            values[f.name] = result_fields(value)
        elif f.metadata.get("affects_result", True):
            values[f.name] = [_plain(v) for v in value] if isinstance(value, list) else value
    return values


def _plain(item: Any) -> Any:
    return result_fields(item) if dataclasses.is_dataclass(item) else item


def fingerprint(kind: str, inputs: dict[str, Any]) -> str:
    """Return 16 hex digits that name a result: the same for the same kind, schema and inputs, whatever the machine.

    ``inputs`` holds plain values: result fields of the config sections that matter, and the fingerprints of the inputs.
    """
    text = json.dumps({"kind": kind, "schema": SCHEMA_VERSION, "inputs": inputs}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
