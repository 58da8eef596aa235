"""Automatic prompt caching: which blocks of an Anthropic request end a stable prefix.

Writing to the cache costs more than plain input, so a one-shot prompt is left alone. Tools and system come first in
the prompt and rarely change. In the conversation the mark goes behind the last thing that the next request will
hold at the same place: agents put passing remarks at the very end, so a person's newest words are not marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNMARKABLE = frozenset({"thinking", "redacted_thinking"})


def has_marks(body: Mapping[str, Any]) -> bool:
    """Whether the client marked its own prefix anywhere in the (translated) request."""
    if body.get("cache_control"):
        return True
    blocks: list[Any] = [*_list(body.get("tools")), *_list(body.get("system"))]
    for message in _list(body.get("messages")):
        blocks += _list(message.get("content"))
    return any(isinstance(block, dict) and block.get("cache_control") for block in blocks)


def mark_stable_prefix(body: dict[str, Any], option: Any) -> None:
    """Adds `cache_control` to a request that is ours to change. `option` is the provider's `cache` setting:
    False switches it off, "1h" asks for the longer lifetime."""
    messages = _list(body.get("messages"))
    second_turn = any(message["role"] == "assistant" for message in messages)
    if option is False or has_marks(body) or not (second_turn or body.get("tools")):
        return
    mark = {"type": "ephemeral", "ttl": "1h"} if option == "1h" else {"type": "ephemeral"}
    for blocks in (_list(body.get("tools")), _list(body.get("system")), _stable_blocks(messages)):
        if blocks:
            blocks[-1]["cache_control"] = mark


def _stable_blocks(messages: list[Any]) -> list[dict[str, Any]]:
    """The blocks of the conversation up to the end of its stable part, the last of them markable."""
    for message in reversed(messages):
        blocks = message["content"]
        if message["role"] == "user":
            results = [block for block in blocks if block["type"] == "tool_result"]
            if results:
                return results
            continue
        markable = [block for block in blocks if block["type"] not in _UNMARKABLE]
        if markable:
            return markable
    return []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
