"""Fields that all translated dialects read alike."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router.wire.providers.fields import asks_to_think


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
