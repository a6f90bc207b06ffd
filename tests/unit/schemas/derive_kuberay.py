"""Derive the compact, strict JSON schemas of KubeRay's RayJob and RayCluster from its CRD files (see README.md)."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

KEPT_KEYWORDS = {
    *("type", "required", "enum", "pattern", "anyOf"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
}
METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def strict(node: dict[str, Any]) -> dict[str, Any]:
    """Return the validating keywords of an OpenAPI v3 node; objects with known properties allow no others."""
    kept = {key: node[key] for key in KEPT_KEYWORDS & node.keys()}
    if "properties" in node:
        kept["properties"] = {name: strict(child) for name, child in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            kept["additionalProperties"] = False
    elif isinstance(node.get("additionalProperties"), dict):
        kept["additionalProperties"] = strict(node["additionalProperties"])
    if "items" in node:
        kept["items"] = strict(node["items"])
    return kept


def derive(crd_path: Path) -> tuple[str, dict[str, Any]]:
    """Return the kind and the strict schema of version v1 of a CRD file, with `status` left out."""
    crd = yaml.safe_load(crd_path.read_text())
    kind = crd["spec"]["names"]["kind"]
    (v1,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    properties = {
        "apiVersion": {"enum": [f"{crd['spec']['group']}/v1"]},
        "kind": {"enum": [kind]},
        "metadata": METADATA,
        "spec": strict(v1["schema"]["openAPIV3Schema"]["properties"]["spec"]),
    }
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return kind, schema


def main(target: str, *crd_paths: str) -> None:
    """Write the schemas of `crd_paths`, by kind, to the gzipped JSON file `target`; the same input, the same bytes."""
    schemas = dict(derive(Path(path)) for path in crd_paths)
    text = json.dumps(schemas, sort_keys=True, separators=(",", ":"))
    Path(target).write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
