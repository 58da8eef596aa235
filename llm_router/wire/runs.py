"""Runs of like events in a stream: their texts are cut out together, so that the parser is called once for all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

_CONTENT = b'"content":"'
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+')
_SHORTEST_RUN = 4
# So much of an event's end (`}]}` and a blank line) is searched for: rare bytes, so that the search can leap.
_END_BYTES = 5
# What OpenAI and Mistral add to each event, so that its length says nothing about its text.
_PADDING = re.compile(rb'"(?:obfuscation|p)":"([^"\\]*)"')

_Place = tuple[int, int, int, int]


class Run(NamedTuple):
    """Neighbouring events that differ in their text alone: where they stand, the text, the first of them."""

    start: int
    end: int
    text: str
    event: dict[str, Any]


def find_run(piece: bytes) -> Run | None:
    """The longest part of most streams: its events have the same bytes around their texts, and need no parsing each.

    What is left of them are the texts, which are JSON strings without their quotes. Whatever is odd is left to the
    parser.
    """
    found = _find_text_event(piece)
    event = _text_event(piece, found) if found is not None else None
    if found is None or event is None:
        return None
    start, first, behind, end = found
    before, after = piece[start:first], piece[behind:end]
    to_padding = b""
    if (padding := _PADDING.search(after)) is not None:
        to_padding, after = after[: padding.start(1)], after[padding.end(1) :]
    texts = _cut_events(piece[start:], before, after)
    between = (after + before).join(texts)
    behind = first + len(between)
    if len(texts) < _SHORTEST_RUN or not (piece.startswith(between, first) and piece.startswith(after, behind)):
        return None
    try:
        texts = _strip_padding(texts, to_padding)
        return Run(start, behind + len(after), _load_strings(texts), event)
    except ValueError:
        return None


def _cut_events(events: bytes, before: bytes, after: bytes) -> list[bytes]:
    """What stands between `before` and `after`, if all events are so but for the last few."""
    parts = events.split(after[-_END_BYTES:])
    after = after[:-_END_BYTES]
    while parts and not (parts[-1].startswith(before) and parts[-1].endswith(after)):
        parts.pop()
    return list(map(itemgetter(slice(len(before), -len(after) or None)), parts))


def _strip_padding(texts: list[bytes], to_padding: bytes) -> list[bytes]:
    """The texts without their padding and what leads to it. Raises ValueError."""
    if not to_padding:
        return texts
    stripped, found, paddings = zip(*(text.partition(to_padding) for text in texts), strict=True)
    if not all(found):
        raise ValueError("not padded")
    _load_strings(paddings)
    return list(stripped)


def _load_strings(strings: Sequence[bytes]) -> str:
    """What these JSON strings without their quotes say one after the other. Raises ValueError."""
    joined = b"".join(strings)
    # A backslash at the end of one would have taken the quote after it along.
    if b"\\" in joined and b"\\\n" in b"\n".join(strings) and not all(map(_STRING.fullmatch, strings)):
        raise ValueError("not a string")
    text: str = orjson.loads(b'"' + joined + b'"')
    return text


def _find_text_event(piece: bytes) -> _Place | None:
    """The first event of one line with a `content` that is not empty: its start, its text's start and end, its end."""
    at = piece.find(_CONTENT)
    while at >= 0:
        first = at + len(_CONTENT)
        if not piece.startswith(b'"', first) and (text := _STRING.match(piece, first)) is not None:
            start, behind = piece.rfind(b"\n", 0, at) + 1, text.end()
            end = piece.find(b"\n", behind) + 2
            if piece.startswith(b"data: {", start) or end == 1:
                return (start, first, behind, end) if piece.endswith(b"}\n\n", behind, end) else None
            # Its line is nothing to us, however often the word is in it.
            first = end - 1
        at = piece.find(_CONTENT, first)
    return None


def _text_event(piece: bytes, place: _Place) -> dict[str, Any] | None:
    """The event, if the text that was found is all that it says: one choice, no end, no usage."""
    start, first, behind, end = place
    try:
        event = orjson.loads(piece[start + 6 : end])
        (choice,) = event["choices"]
        delta = choice["delta"]
        if delta["content"] != orjson.loads(piece[first - 1 : behind + 1]):
            return None
        for name, value in delta.items():
            if value and name != "content" and name != "role":
                return None
        said_more = choice.get("index") or choice.get("finish_reason") or choice.get("usage")
        said_more = said_more or event.get("usage") or event.get("x_groq")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return None if said_more else event
