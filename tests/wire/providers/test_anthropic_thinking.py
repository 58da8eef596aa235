"""Thinking in requests to Anthropic: how much is asked for, and what must come back in a tool loop."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router.accounting.pricing import ModelInfo
from tests.wire.providers.anthropic_body import (
    OPUS_3,
    OPUS_4_6,
    OPUS_5,
    OPUS_5_5,
    SONNET_4_5,
    body,
    tool_turns,
)
from tests.wire.providers.dialects import TOOL


@pytest.mark.parametrize(
    ("info", "effort", "thinking", "output"),
    [
        (SONNET_4_5, "high", {"type": "enabled", "budget_tokens": 4096}, None),
        (SONNET_4_5, "minimal", {"type": "enabled", "budget_tokens": 1024}, None),
        (SONNET_4_5, "none", None, None),
        (OPUS_4_6, "high", {"type": "adaptive"}, {"effort": "high"}),
        (OPUS_4_6, "xhigh", {"type": "adaptive"}, {"effort": "high"}),
        (OPUS_5, "xhigh", {"type": "adaptive", "display": "summarized"}, {"effort": "xhigh"}),
        (OPUS_5, "minimal", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        (OPUS_5, "none", {"type": "disabled"}, None),
        (OPUS_5_5, "none", None, {"effort": "low"}),
        (OPUS_3, "high", None, None),
    ],
)
def test_reasoning_effort_becomes_thinking(info: ModelInfo, effort: str, thinking: Any, output: Any) -> None:
    """A budget for older models, adaptive thinking with an effort for newer ones, nothing where there is none."""
    made = body(info=info, reasoning_effort=effort)
    assert made.get("thinking") == thinking
    assert made.get("output_config") == output


def test_a_budget_fits_below_max_tokens() -> None:
    """A budget as large as the whole answer is refused, so thinking gives way."""
    assert body(reasoning_effort="max", max_tokens=3000)["thinking"]["budget_tokens"] == 2999
    assert "thinking" not in body(reasoning_effort="max", max_tokens=1000)
    assert body(reasoning={"max_tokens": 5000})["thinking"]["budget_tokens"] == 5000
    assert body(reasoning={"effort": "low"})["thinking"]["budget_tokens"] == 1024
    assert "thinking" not in body(reasoning={"enabled": False})


def test_anthropics_own_thinking_field_is_understood() -> None:
    """What clients send to Anthropic's compatibility endpoint works here too; OpenAI's fields come before it."""
    assert body(thinking={"type": "enabled", "budget_tokens": 5000})["thinking"]["budget_tokens"] == 5000
    assert body(thinking={"type": "enabled"})["thinking"]["budget_tokens"] == 2048
    assert body(info=OPUS_4_6, thinking={"type": "adaptive"})["thinking"] == {"type": "adaptive"}
    assert body(info=OPUS_5, thinking={"type": "disabled"})["thinking"] == {"type": "disabled"}
    both = body(thinking={"type": "enabled", "budget_tokens": 5000}, reasoning_effort="low")
    assert both["thinking"]["budget_tokens"] == 1024


def test_signed_thinking_comes_back_in_a_tool_loop() -> None:
    """What an answer carried out in `reasoning_details` goes back as thinking blocks, in front."""
    details = [
        {
            "type": "reasoning.encrypted",
            "id": "call.a",
            "format": "unknown",
            "data": 'anthropic:[{"type":"thinking","thinking":"Hm","signature":"c2ln"},'
            '{"type":"redacted_thinking","data":"ZGF0YQ=="}]',
        }
    ]
    turns = tool_turns()[:4]
    turns[1]["reasoning_details"] = details
    content = body(*turns, tools=[TOOL], reasoning_effort="low")["messages"][1]["content"]
    assert content[:2] == [
        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    ]
    assert body(*turns, tools=[TOOL])["messages"][1]["content"][0]["type"] == "tool_use"


def test_only_a_tool_loop_gets_its_thinking_back() -> None:
    """What led to an answer in words is not needed any more, and would be paid for again."""
    signed = [{"type": "thinking", "thinking": "Hm", "signature": "c2ln"}]
    answered = {"role": "assistant", "content": "Hello", "thinking_blocks": signed}
    content = body("Hi", answered, "And now?", reasoning_effort="low")["messages"][1]["content"]
    assert [block["type"] for block in content] == ["text"]


def test_a_loop_without_its_signatures_goes_on_without_thinking() -> None:
    """Clients drop unknown fields: then older models must not think in that loop, newer ones still may."""
    turns = tool_turns()[:4]
    turns[1]["reasoning_content"] = "unsigned"
    assert "thinking" not in body(*turns, tools=[TOOL], reasoning_effort="low")
    assert body(*turns, tools=[TOOL], reasoning_effort="low", info=OPUS_5)["thinking"]["type"] == "adaptive"


@pytest.mark.parametrize(
    "signed",
    [
        {"reasoning_details": [
            {"type": "reasoning.text", "text": "Hm", "signature": "c2ln", "format": "anthropic-claude-v1"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm", "signature": "c2ln"}]},
    ],
)  # fmt: skip
def test_other_gateways_ways_of_carrying_thinking_are_read(signed: dict[str, Any]) -> None:
    """OpenRouter's and LiteLLM's forms of signed thinking become blocks too."""
    turns = tool_turns()[:4]
    turns[1] |= signed
    content = body(*turns, tools=[TOOL], reasoning_effort="low")["messages"][1]["content"]
    assert content[0] == {"type": "thinking", "thinking": "Hm", "signature": "c2ln"}
