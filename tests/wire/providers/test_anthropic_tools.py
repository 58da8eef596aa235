"""Tools in requests to Anthropic: definitions, choice, calls and their results."""

from __future__ import annotations

from tests.wire.providers.anthropic_body import (
    OPUS_5_5,
    SCHEMA,
    body,
    tool_turns,
)
from tests.wire.providers.dialects import TOOL


def test_tool_results_come_first_in_one_user_turn() -> None:
    """All results of a step, in the order of its calls, before the person's words; ids are made acceptable on both
    sides (traps 20, 21)."""
    made = body(*tool_turns(), tools=[TOOL])
    assistant, user = made["messages"][1:]
    assert [block["type"] for block in assistant["content"]] == ["tool_use", "tool_use"]
    assert [block["id"] for block in assistant["content"]] == ["call_a", "call_b"]
    assert assistant["content"][0]["input"] == {"city": "Paris"}
    assert [block["type"] for block in user["content"]] == ["tool_result", "tool_result", "text"]
    assert [block["tool_use_id"] for block in user["content"][:2]] == ["call_a", "call_b"]
    assert [block["content"] for block in user["content"][:2]] == ["sun", "rain"]


def test_bad_arguments_in_history_do_not_fail_the_request() -> None:
    """What is no JSON object is kept as text (trap 22)."""
    turns = tool_turns()
    turns[1]["tool_calls"][0]["function"] = {"name": "get_weather", "arguments": '{"city": "Par'}
    made = body(*turns, tools=[TOOL])
    assert made["messages"][1]["content"][0]["input"] == {"_raw": '{"city": "Par'}


def test_a_call_without_a_result_gets_one() -> None:
    """Every call needs its result in the next turn, or the request is refused."""
    turns = [turn for turn in tool_turns() if turn.get("tool_call_id") != "call.a"]
    first = body(*turns, tools=[TOOL])["messages"][2]["content"][0]
    assert first["tool_use_id"] == "call_a"
    assert first["is_error"] is True


def test_tool_definitions_and_choice() -> None:
    """Name, description, schema (never missing, always an object at the top), and every form of choice."""
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"anyOf": [SCHEMA]}}}
    made = body(tools=[tool, {"type": "function", "function": {"name": "g"}}])
    assert made["tools"][0]["description"] == "d"
    assert made["tools"][0]["input_schema"] == {"type": "object", "properties": SCHEMA["properties"]}
    assert made["tools"][1]["input_schema"] == {"type": "object", "properties": {}}
    assert "tool_choice" not in made
    choices = {
        "auto": {"type": "auto"},
        "none": {"type": "none"},
        "required": {"type": "any"},
    }
    for ours, theirs in choices.items():
        assert body(tools=[tool], tool_choice=ours)["tool_choice"] == theirs
    named = {"type": "function", "function": {"name": "f"}}
    assert body(tools=[tool], tool_choice=named)["tool_choice"] == {"type": "tool", "name": "f"}
    alone = body(tools=[tool], parallel_tool_calls=False)["tool_choice"]
    assert alone == {"type": "auto", "disable_parallel_tool_use": True}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    made = body(tools=[tool, TOOL], tool_choice=allowed)
    assert [one["name"] for one in made["tools"]] == ["f"]
    assert made["tool_choice"] == {"type": "any"}


def test_forced_choice_is_lifted_where_the_model_refuses_it() -> None:
    """Models that always think, and thinking that was asked for, take no forced tool."""
    assert body(tools=[TOOL], tool_choice="required", info=OPUS_5_5)["tool_choice"] == {"type": "auto"}
    made = body(tools=[TOOL], tool_choice="required", reasoning_effort="high")
    assert made["tool_choice"] == {"type": "auto"}


def test_a_history_with_calls_keeps_its_tools() -> None:
    """A request without tools after a tool loop names the tools that were used, and forbids new calls."""
    made = body(*tool_turns())
    assert [tool["name"] for tool in made["tools"]] == ["get_weather"]
    assert made["tool_choice"] == {"type": "none"}
