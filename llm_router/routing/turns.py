"""What the person said: a conversation's messages reduced to the user's own words.

System and developer messages, tool results, answers and injected context are never read, so nothing that is said
there can decide a category. Any JSON may come in: what has not the expected shape says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from llm_router.routing.wrappers import own_words

EARLIER = 4  # earlier user texts kept for short follow-ups
_LOOKBACK = 64  # messages that are searched for earlier user texts; agent loops are long
_TEXT_TYPES = ("text", "input_text", None)
_IMAGE_TYPES = ("image_url", "image", "input_image")


@dataclass(frozen=True, slots=True)
class Turns:
    """The person's side of a conversation.

    `latest` is the newest user text that says something, `earlier` the texts before it (newest first, at most
    `EARLIER`). `in_tool_loop`: the model is waiting for, or has just been given, a tool's result.
    """

    latest: str = ""
    earlier: tuple[str, ...] = ()
    in_tool_loop: bool = False


def read_turns(messages: Sequence[Mapping[str, Any]]) -> Turns:
    """Find the person's words in the messages of a chat request (oldest first)."""
    known = [message for message in messages if type(message) is dict or isinstance(message, Mapping)]
    said = list(islice(_said(known), EARLIER + 1))
    return Turns(said[0] if said else "", tuple(said[1:]), _in_tool_loop(known))


def message_text(content: object) -> str:
    """The person's words in one message's content: the last part that holds any."""
    if isinstance(content, str):
        return own_words(content)
    if isinstance(content, list):
        for part in reversed(content):
            if (text := _part_text(part)) and (words := own_words(text)):
                return words
    return ""


def _said(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """User texts that say something, newest first; the raw last text where no message has words of its own."""
    found = False
    for message in islice(reversed(messages), _LOOKBACK):
        if message.get("role") == "user" and (text := message_text(message.get("content"))):
            found = True
            yield text
    if not found:
        yield from _raw(messages)


def _raw(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for message in reversed(messages):
        if message.get("role") != "user":
            continue
        content = message.get("content")
        text = content if isinstance(content, str) else _last_part(content)
        if text.strip() and not text.lstrip().startswith("<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>"):
            yield text.strip()
            return


def _last_part(content: object) -> str:
    parts = content if isinstance(content, list) else []
    return next((text for part in reversed(parts) if (text := _part_text(part))), "")


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") in _TEXT_TYPES and isinstance(part.get("text"), str):
        return str(part["text"])
    return ""


def _has_image(content: object) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and part.get("type") in _IMAGE_TYPES for part in content
    )


def _in_tool_loop(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the newest message that says something is a tool's result or a call that waits for one."""
    for message in reversed(messages):
        role, content = message.get("role"), message.get("content")
        if role in ("tool", "function"):
            return True
        if role == "assistant":
            return bool(message.get("tool_calls") or message.get("function_call"))
        if role == "user":
            if _has_tool_result(content):
                return True
            if message_text(content) or _has_image(content):
                return False
    return False


def _has_tool_result(content: object) -> bool:
    return isinstance(content, list) and any(
        isinstance(part, Mapping) and part.get("type") == "tool_result" for part in content
    )
