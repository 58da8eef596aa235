"""What a provider sends must cost about as much as it sent: no small answer may hold up or fill the router."""

from __future__ import annotations

import time

import pytest

from tests.wire.providers.dialects import read_stream, translate

_MANY = {
    "text in parts": ("google", b'data: {"candidates":[{"content":{"parts":[%s]}}]}\n\n', b'{"text":"a"}', b'":"a"'),
    "calls in parts": (
        "google",
        b'data: {"candidates":[{"content":{"parts":[%s]}}]}\n\n',
        b'{"functionCall":{}}',
        b'"function":{',
    ),
    "calls in a line": ("ollama", b'{"message":{"tool_calls":[%s]}}\n', b'{"function":{}}', b'"function":{'),
    "calls to be numbered": (
        "google_compat",
        b'data: {"choices":[{"delta":{"tool_calls":[%s]}}]}\n\n',
        b'{"function":{"name":"f"}}',
        b'"index":',
    ),
}


@pytest.mark.parametrize("what", _MANY)
def test_many_things_in_one_event_are_translated_one_by_one(what: str) -> None:
    """A hundred thousand take a second; where each were added to all before, they would take minutes of the loop."""
    dialect, event, one, sign = _MANY[what]
    data = event % b",".join([one] * 100_000)
    began = time.process_time()
    out = translate(dialect, data)
    assert time.process_time() - began < 6.0
    assert out.count(sign) >= 100_000


_LONG = b"m" * 100_000
_NAMED = {
    "anthropic": (
        b'data: {"type":"message_start","message":{"id":"%s","model":"%s"}}\n\n' % (_LONG, _LONG),
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}\n\n',
    ),
    "google": (
        b'data: {"responseId":"%s","modelVersion":"%s"}\n\n' % (_LONG, _LONG),
        b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n\n',
    ),
    "ollama": (b'{"model":"%s","message":{}}\n' % _LONG, b'{"message":{"content":"a"}}\n'),
}


@pytest.mark.parametrize("dialect", _NAMED)
def test_a_long_name_is_not_repeated_with_every_word(dialect: str) -> None:
    """An id or a model's name of megabytes in every chunk would make gigabytes of a single read."""
    start, word = _NAMED[dialect]
    out = translate(dialect, start + word * 100)
    assert len(out) < len(start) + 100 * 1000
    assert read_stream(out).text == "a" * 100
