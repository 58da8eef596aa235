"""What is right JSON but for a character is read all the same, and what has long numbers keeps them."""

from __future__ import annotations

import orjson
import pytest

from llm_router.wire.loose import load_carelessly, load_exactly, load_loosely


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":"Hi \\ud83d"}', {"a": "Hi \ufffd"}),
        (b'{"a":"\\ude00 Hi"}', {"a": "\ufffd Hi"}),
        (b'{"\\ud83d":[null,true,1.5,-7,"\\ud83d\\ude00"]}', {"\ufffd": [None, True, 1.5, -7, "😀"]}),
        (b'{"a":"\\\\ud83d \\ud83d"}', {"a": "\\ud83d \ufffd"}),
        ('{"a":"grün"}'.encode("latin-1"), {"a": "gr\ufffdn"}),
        (b'{"a":"\xf0\x9f\x98"}', {"a": "\ufffd"}),
        (b'\xef\xbb\xbf{"a":"marked"}', {"a": "marked"}),
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


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":"b\tc\n\\ud83d"}', {"a": "b\tc\n\ufffd"}),
        (b'{"a":NaN,"b":-Infinity,"c":1e999}', {"a": "NaN", "b": "-Infinity", "c": "1e999"}),
        (b'{"a":-7,"b":1.5,"c":' + b"9" * 400 + b"}", {"a": -7, "b": 1.5, "c": "9" * 400}),
        (b'\xef\xbb\xbf["gr\xfcn"]', ["gr\ufffdn"]),
    ],
)
def test_what_was_written_carelessly_can_be_written_again(data: bytes, value: object) -> None:
    """The words of an error must get out again: no half characters, and no numbers that JSON has not."""
    assert load_carelessly(data) == value
    assert orjson.loads(orjson.dumps(load_carelessly(data))) == value


@pytest.mark.parametrize("data", [b"", b"{broken", b"[" * 100_000, b'"' + b"\t" * 65_536 + b'"'])
def test_carelessness_has_its_limits(data: bytes) -> None:
    """What is no JSON in anybody's eyes, too deep or too large is nothing."""
    assert load_carelessly(data) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"wei":1000000000000000000001}', {"wei": 1000000000000000000001}),
        ('{"wei":-1000000000000000000001,"b":[1.5,true,null,"1000000000000000000001"]}',
         {"wei": -1000000000000000000001, "b": [1.5, True, None, "1000000000000000000001"]}),
        ('{"a":18446744073709551615,"b":1.0}', {"a": 18446744073709551615, "b": 1.0}),
        ('{"a":' + "9" * 300 + ".5}", {"a": 1e300}),
    ],
)  # fmt: skip
def test_long_numbers_stay(text: str, value: object) -> None:
    """An amount or an id of a tool's is worth every digit, however many there are."""
    assert load_exactly(text) == load_exactly(text.encode()) == value


def test_a_long_number_deep_down_is_read_at_least_roughly() -> None:
    """Nothing that was read before is refused for its depth."""
    deep = '{"a":1000000000000000000001,"b":' + "[" * 1000 + "]" * 1000 + "}"
    assert isinstance(load_exactly(deep), dict)


def test_what_is_no_json_is_refused_as_ever() -> None:
    """Long digits open no way for what is no JSON."""
    for text in ('{"a":NaN,"b":1000000000000000000001}', '{"a":1000000000000000000001', ""):
        with pytest.raises(orjson.JSONDecodeError):
            load_exactly(text)
