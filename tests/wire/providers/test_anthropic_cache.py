"""The cache of Anthropic: which prefix is marked, and whose marks stand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wire.providers.anthropic_body import (
    MARK,
    body,
    tool_turns,
)
from tests.wire.providers.dialects import TOOL


def _marked(made: dict[str, Any]) -> list[str]:
    found = []
    for place in ("tools", "system"):
        found += [f"{place}{i}" for i, one in enumerate(made.get(place, ())) if "cache_control" in one]
    for number, message in enumerate(made["messages"]):
        found += [f"{number}.{i}" for i, block in enumerate(message["content"]) if "cache_control" in block]
    return found


def test_the_cache_is_used_from_the_second_turn_on_or_with_tools() -> None:
    """A one-shot prompt would only pay the price of writing."""
    system = {"role": "system", "content": "s"}
    again = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"}]
    assert _marked(body(system, "Hi")) == []
    assert _marked(body(system, "Hi", tools=[TOOL, TOOL])) == ["tools1", "system0"]
    assert _marked(body(system, "Hi", *again)) == ["system0", "1.0"]
    assert _marked(body(*tool_turns(), tools=[TOOL])) == ["tools0", "2.1"]
    assert _marked(body(system, "Hi", *again, option=False)) == []
    longer = body(system, "Hi", *again, option="1h")
    assert longer["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    "marked",
    [
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "s", "cache_control": MARK}]}, "Hi"]},
        {"messages": [{"role": "user", "content": "Hi", "cache_control": MARK}]},
        {"messages": ["Hi"], "tools": [{**TOOL, "cache_control": MARK}]},
        {"messages": ["Hi"], "cache_control": MARK},
    ],
)
def test_the_clients_own_marks_stand(marked: dict[str, Any]) -> None:
    """Whoever marks the prefix knows better: the marks pass, and none is added."""
    messages = marked.pop("messages")
    rest = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"}]
    made = body(*messages, *rest, **{"tools": [TOOL], **marked})
    assert len(_marked(made)) + ("cache_control" in made) == 1


def test_marks_in_tool_results_belong_to_the_result() -> None:
    """A mark on a part of a tool message becomes the mark of its result; blocks inside carry none."""
    turns = tool_turns()
    turns[3]["content"] = [{"type": "text", "text": "sun", "cache_control": MARK}]
    result = body(*turns, tools=[TOOL])["messages"][2]["content"][0]
    assert result["cache_control"] == MARK
    assert result["content"] == "sun"


def test_the_prefix_of_a_growing_conversation_is_stable() -> None:
    """The next request begins with the bytes of this one up to the marks, or the cache would never be read."""
    turns: list[Any] = [{"role": "system", "content": "s"}, *tool_turns()]
    before = body(*turns[:-1], tools=[TOOL])
    after = body(*turns, {"role": "assistant", "content": "Take a coat."}, "Thanks", tools=[TOOL])
    for made in (before, after):
        for block in [*made["tools"], *made["system"], *(b for m in made["messages"] for b in m["content"])]:
            block.pop("cache_control", None)
    assert after["tools"] == before["tools"]
    assert after["system"] == before["system"]
    assert after["messages"][2]["content"][:2] == before["messages"][2]["content"][:2]
