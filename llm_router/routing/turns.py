"""What the person said: a conversation's messages reduced to the user's own words.

System and developer messages, tool results, answers and injected context are never read, so nothing that is said
there can decide a category. Any JSON may come in: what has not the expected shape says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llm_router.routing.wrappers import own_words

EARLIER = 8  # earlier user texts kept for rows of short follow-ups
_LOOKBACK = 64  # messages that are searched for earlier user texts; agent loops are long
# Messages, and parts of them, that are searched for words at all: a body may hold half a million that say nothing.
_SEARCHED = 1024
_TEXT_TYPES = ("text", "input_text", None)
_IMAGE_TYPES = ("image_url", "image", "input_image")
_RESULT_TYPES = ("tool_result",)


class Turns(NamedTuple):
    """The person's side of a conversation.

    `latest` is the newest user text that says something, `earlier` the texts before it (newest first, at most
    `EARLIER`, one that was repeated just once).
    """

    latest: str = ""
    earlier: tuple[str, ...] = ()


def read_turns(messages: Sequence[Mapping[str, Any]]) -> Turns:
    """Find the person's words in the messages of a chat request (oldest first)."""
    said: list[str] = []
    seen = parts = 0
    for message in reversed(messages):
        if type(message) is not dict:
            continue
        seen += 1
        if message.get("role") == "user":
            content = message.get("content")
            words = own_words(content) if type(content) is str else message_text(content)
            parts += len(content) if type(content) is list else 0
            # The same once more ("continue", above all) says nothing new.
            if words and words not in said[-1:]:
                said.append(words)
        if seen >= _LOOKBACK or len(said) > EARLIER or seen + parts >= _SEARCHED:
            break
    said = said or _raw(messages) or [""]
    # By position and without a call of Python: one is made a request.
    return tuple.__new__(Turns, (said[0], tuple(said[1:]) if len(said) > 1 else ()))


def in_tool_loop(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the model is waiting for, or has just been given, a tool's result; oldest message first."""
    searched = 0
    for message in reversed(messages):
        if type(message) is dict:
            role, content = message.get("role"), message.get("content")
            words = message_text(content) if role == "user" else ""
            if (looping := _is_looping(role, message, words)) is not None:
                return looping
            searched += len(content) + 1 if type(content) is list else 1
            if searched >= _SEARCHED:
                break
    return False


def _is_looping(role: object, message: Mapping[str, Any], words: str) -> bool | None:
    """Whether this is a tool's result or a call that waits for one; None where it says nothing either way."""
    if role == "user":
        content = message.get("content")
        if type(content) is list:
            if _has_part(content, _RESULT_TYPES):
                return True
            if _has_part(content, _IMAGE_TYPES):
                return False
        return False if words else None
    if role == "assistant":
        return bool(message.get("tool_calls") or message.get("function_call"))
    return True if role in ("tool", "function") else None


def message_text(content: object) -> str:
    """The person's words in one message's content: the last part that holds any."""
    if type(content) is str:
        return own_words(content)
    if type(content) is list:
        for part in reversed(content[-_SEARCHED:]):
            if (text := _part_text(part)) and (words := own_words(text)):
                return words
    return ""


def _raw(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The last user text as it is, where no message has words of its own."""
    for message in reversed(messages):
        if type(message) is not dict or message.get("role") != "user":
            continue
        content = message.get("content")
        text = content if isinstance(content, str) else _last_part(content)
        if text.strip() and not text.lstrip().startswith("<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>"):
            return [text.strip()]
    return []


def _last_part(content: object) -> str:
    parts = content[-_SEARCHED:] if isinstance(content, list) else []
    return next((text for part in reversed(parts) if (text := _part_text(part))), "")


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type") in _TEXT_TYPES and isinstance(part.get("text"), str):
        return str(part["text"])
    return ""


def _has_part(content: Sequence[Any], types: tuple[str, ...]) -> bool:
    return any(isinstance(part, dict) and part.get("type") in types for part in content)
