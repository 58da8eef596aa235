"""JSON schemas made acceptable."""

from __future__ import annotations

import time
from typing import Any

import pytest
from anthropic import transform_schema

from llm_router.wire.providers.schemas import object_schema, strict_schema

_NESTED = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "title": "T",
    "required": ["a"],
    "properties": {
        "a": {"type": "array", "items": {"$ref": "#/$defs/P"}, "minItems": 1},
        "b": {"anyOf": [{"type": "string", "format": "email"}, {"type": "null"}]},
        "c": {"type": "string", "enum": ["x", "y"], "description": "d"},
    },
    "$defs": {"P": {"type": "object", "properties": {"n": {"type": "number"}}, "additionalProperties": True}},
}


def test_objects_are_closed_and_nested_parts_kept() -> None:
    """Anthropic's strict outputs want closed objects, at every depth."""
    strict = strict_schema(_NESTED)
    assert strict["additionalProperties"] is False
    assert strict["$defs"]["P"]["additionalProperties"] is False
    assert strict["properties"]["a"] == {"type": "array", "items": {"$ref": "#/$defs/P"}, "minItems": 1}
    assert "$schema" not in strict


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}},
        {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "boolean"}, "minItems": 1}}},
        {"type": "object", "properties": {"a": {"oneOf": [{"type": "string", "format": "uuid"}]}}},
        {
            "$defs": {"P": {"type": "object", "properties": {}}},
            "type": "object",
            "properties": {"p": {"$ref": "#/$defs/P"}},
        },
    ],
)
def test_the_vendors_own_helper_agrees(schema: dict[str, Any]) -> None:
    """For schemas without further limits Anthropic's client package makes the same."""
    assert strict_schema(schema) == transform_schema(schema)


def test_other_limits_become_words() -> None:
    """What would be refused is at least said, in the description."""
    made = strict_schema({"type": "integer", "description": "Years", "minimum": 1, "maximum": 9})
    assert made == {"type": "integer", "description": "Years\n\n(minimum: 1, maximum: 9)"}


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": "string"}, {"type": "object", "properties": {}}),
        ({"oneOf": [{"properties": {"a": {}}}, 7]}, {"type": "object", "properties": {"a": {}}}),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"properties": {"a": {}, "b": {}}}]},
         {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}}),
    ],
)  # fmt: skip
def test_the_top_of_a_tools_parameters_is_an_object(schema: Any, made: Any) -> None:
    """Alternatives at the top are folded into one object, since they are refused there."""
    assert object_schema(schema) == made


@pytest.mark.parametrize("least", [0, 1, 2])
def test_a_least_number_of_items_is_told_where_it_is_not_taken(least: int) -> None:
    """Strict outputs know only none and one; more is said in words."""
    made = strict_schema({"type": "array", "items": {"type": "string"}, "minItems": least})
    kept = {"minItems": least} if least < 2 else {"description": "(minItems: 2)"}
    assert made == {"type": "array", "items": {"type": "string"}, **kept}


def test_a_schema_without_end_stops() -> None:
    """Depth is bounded."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(500):
        schema = {"type": "object", "properties": {"a": schema}}
    assert strict_schema(schema)["type"] == "object"


def test_many_alternatives_are_gone_through_once() -> None:
    """Alternatives at the top are folded into one object as they come, however many there are."""
    branches = [{"properties": {f"a{number}": {}, "b": {"enum": [number]}}} for number in range(40_000)]
    began = time.process_time()
    folded = object_schema({"anyOf": branches})["properties"]
    assert time.process_time() - began < 5.0
    assert len(folded) == 40_001
    assert folded["b"] == {"enum": [0]}
