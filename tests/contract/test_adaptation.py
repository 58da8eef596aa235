"""How far a request is changed for each provider, at the edges: limits that are null or doubled."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Desk

BOTH = {"max_tokens": 5, "max_completion_tokens": 6}
NULL = {"max_tokens": 5, "max_completion_tokens": None}


@pytest.mark.parametrize(
    ("model", "sent", "got"),
    [
        ("groq/x", {"max_completion_tokens": 6}, {"max_tokens": 6}),
        ("groq/x", BOTH, {"max_tokens": 6}),
        ("groq/x", NULL, {"max_tokens": 5}),
        ("google/gemini-2.5-flash", BOTH, {"max_tokens": 6}),
        ("google/gemini-2.5-flash", NULL, {"max_tokens": 5}),
        ("ollama/x", {"max_completion_tokens": 6}, {"max_tokens": 6}),
        ("ollama/x", NULL, {"max_tokens": 5}),
        ("openai/o3", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("openai/o3", BOTH, {"max_completion_tokens": 6}),
        ("openai/o3", NULL, {"max_completion_tokens": 5}),
        ("openai/gpt-4o", BOTH, BOTH),
        ("openai/gpt-4o", NULL, NULL),
        ("openrouter/openai/o3", BOTH, BOTH),
    ],
)
async def test_one_limit_reaches_the_provider(
    desk: Desk, model: str, sent: dict[str, Any], got: dict[str, Any]
) -> None:
    """The limit keeps its value under the name that the provider knows; a null one does not displace a number."""
    assert (await desk.chat(model, **sent)).status == 200
    body = desk.up[model.partition("/")[0]].last.request.json()
    assert {name: value for name, value in body.items() if name.startswith("max_")} == got
