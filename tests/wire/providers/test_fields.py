"""Fields that all translated dialects read alike."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router.wire.providers.fields import asks_to_think
from llm_router.wire.providers.parts import Data, inline_data
from llm_router.wire.providers.tools import Choice, tool_choice


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "a level of tomorrow"}, True),
        ({"reasoning_effort": ""}, False),
        ({"reasoning_effort": 7}, False),
        ({"reasoning": {"effort": "high"}}, True),
        ({"reasoning": {"effort": "a level of tomorrow"}}, True),
        ({"reasoning": {"effort": "none"}}, False),
        ({"reasoning": {"max_tokens": 2000}}, True),
        ({"reasoning": {"enabled": False}}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 4000}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
    ],
)
def test_a_wish_for_thinking_is_seen_in_every_form(fields: dict[str, Any], asks: bool) -> None:
    """Requests that want thinking, by whichever vendor's field, are given the longer time until their first words."""
    assert asks_to_think(fields) is asks


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, Choice()),
        ("auto", Choice("auto")),
        ("none", Choice("none")),
        ("required", Choice("required")),
        ("any", Choice("required")),
        ("a word of tomorrow", Choice()),
        ({"type": "function", "function": {"name": "f"}}, Choice("required", "f")),
        ({"type": "function", "name": "f"}, Choice("required", "f")),
        ({"type": "function"}, Choice()),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [{"name": "f"}]}}, Choice("auto", None, frozenset("f"))),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"function": {"name": "f"}}, 7]},
            Choice("required", None, frozenset("f")),
        ),
        ({"type": "allowed_tools", "allowed_tools": 7}, Choice("auto")),
    ],
)
def test_every_form_of_a_tool_choice_is_read(given: Any, meant: Choice) -> None:
    """OpenAI's forms, the flat ones of the Responses API, and the words that other vendors have for them."""
    assert tool_choice({"tool_choice": given}) == meant


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("data:image/jpg;base64,QUJD", Data("image/jpeg", "QUJD")),
        ("data:image/png;base64,/9j/QUJD", Data("image/jpeg", "/9j/QUJD")),
        ("data:IMAGE/PNG;charset=x;BASE64,iVBORw0KGgo=", Data("image/png", "iVBORw0KGgo=")),
        ("data:application/octet-stream;base64,R0lGOD", Data("image/gif", "R0lGOD")),
        ("data:,a%20b", Data("text/plain", "YSBi")),
        ("data:text/csv;base64,QU\nJD", Data("text/csv", "QUJD")),
        ("https://h/x.png", None),
    ],
)
def test_inline_data_is_what_it_is(url: str, data: Data | None) -> None:
    """Vendors refuse a type that does not fit the data; clients name the wrong one, or spell it their way."""
    assert inline_data(url) == data
