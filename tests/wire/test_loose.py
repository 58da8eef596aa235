"""What is right JSON but for a character is read all the same."""

from __future__ import annotations

import pytest

from llm_router.wire.loose import load_loosely


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":"Hi \\ud83d"}', {"a": "Hi \ufffd"}),
        (b'{"a":"\\ude00 Hi"}', {"a": "\ufffd Hi"}),
        (b'{"\\ud83d":[null,true,1.5,-7,"\\ud83d\\ude00"]}', {"\ufffd": [None, True, 1.5, -7, "😀"]}),
        (b'{"a":"\\\\ud83d \\ud83d"}', {"a": "\\ud83d \ufffd"}),
        ('{"a":"grün"}'.encode("latin-1"), {"a": "gr\ufffdn"}),
        (b'{"a":"\xf0\x9f\x98"}', {"a": "\ufffd"}),
    ],
)
def test_what_is_no_character_becomes_one(data: bytes, value: object) -> None:
    """Half of an emoji costs itself alone: every other word, number and name stays as it was."""
    assert load_loosely(data) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[DONE]",
        b"{broken",
        b'{"a":"\\ud83d"',
        b'{"a":"\\ud83d","b":NaN}',
        b'{"a":"\\ud83d","b":' + b"[" * 100_000,
        b'{"a":"\\ud83d","b":' + b"9" * 5000 + b"}",
        b'{"a":"\\ud83d' + b"x" * 1_000_000 + b'"}',
    ],
    ids=["empty", "done", "broken", "cut", "nan", "deep", "huge number", "large"],
)
def test_nothing_else_becomes_json(data: bytes) -> None:
    """A bad character opens no way for what is no JSON, nor for megabytes that would be parsed slowly."""
    assert load_loosely(data) is None
