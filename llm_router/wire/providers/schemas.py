"""JSON schemas made acceptable: each vendor takes a part of JSON Schema, and refuses requests with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEPTH = 64
_STRICT_KEYS = frozenset(
    {"type", "enum", "const", "anyOf", "allOf", "$ref", "$defs", "title", "description", "properties", "required",
     "additionalProperties", "items", "minItems", "format"}
)  # fmt: skip
_STRICT_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)


def object_schema(schema: Any) -> dict[str, Any]:
    """Tool parameters whose top level is an object; alternatives at the top are folded into one object."""
    if not isinstance(schema, Mapping):
        return {"type": "object", "properties": {}}
    whole = dict(schema)
    branches = [whole.pop(key) for key in ("anyOf", "oneOf", "allOf") if isinstance(whole.get(key), list)]
    if branches:
        properties = whole["properties"] = _properties(whole)
        for branch in (one for group in branches for one in group if isinstance(one, Mapping)):
            for name, about in _properties(branch).items():
                properties.setdefault(name, about)
    whole["type"] = "object"
    if not isinstance(whole.get("properties"), Mapping):
        whole["properties"] = {}
    return whole


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    found = schema.get("properties")
    return dict(found) if isinstance(found, Mapping) else {}


def strict_schema(schema: Any, depth: int = _DEPTH) -> dict[str, Any]:
    """A schema as Anthropic's strict outputs take it: closed objects; other limits become part of the description."""
    if not isinstance(schema, Mapping) or depth <= 0:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    strict: dict[str, Any] = {}
    limits: list[str] = []
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            strict["$defs" if key == "definitions" else key] = {
                name: strict_schema(sub, depth - 1) for name, sub in value.items()
            }
        elif key in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            strict["allOf" if key == "allOf" else "anyOf"] = [strict_schema(sub, depth - 1) for sub in value]
        elif key == "items" and isinstance(value, Mapping):
            strict[key] = strict_schema(value, depth - 1)
        elif key == "$ref" and isinstance(value, str):
            strict[key] = value.replace("#/definitions/", "#/$defs/")
        elif _strict_keeps(key, value):
            strict[key] = value
        elif key not in ("$schema", "$id", "default", "additionalProperties", "strict"):
            limits.append(f"{key}: {value}")
    if strict.get("type") == "object" or "properties" in strict:
        strict.setdefault("type", "object")
        strict.setdefault("properties", {})
        strict["additionalProperties"] = False
    if limits:
        strict["description"] = "\n\n".join(filter(None, (strict.get("description"), f"({', '.join(limits)})")))
    return strict


def _strict_keeps(key: str, value: Any) -> bool:
    if key == "format":
        return isinstance(value, str) and value in _STRICT_FORMATS
    if key == "minItems":
        return value in (0, 1)
    return key in _STRICT_KEYS and key != "additionalProperties"
