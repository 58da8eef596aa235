"""JSON that orjson reads otherwise than every client: texts that were cut inside a character, and long numbers.

JavaScript writes half of an emoji as `\\ud83d`, others send some of its bytes, and .NET begins with a byte order mark.
Every client reads all of it; orjson reads none. This is the way for what orjson has refused, so that no word is lost
for the sake of one character.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any

import orjson

# The parser of the standard library is slow, and holds up all others: what orjson refuses is read by it up to here.
SLOW_PARSE_BYTES = 1_000_000
_MOST_CARELESS_BYTES = 65_536  # with numbers read by functions of ours it takes ten times as long
_EXACT_DIGITS = 18
_HALF = re.compile("[\ud800-\udfff]")
_LONG = re.compile("[0-9]{19}")
_LONG_BYTES = re.compile(b"[0-9]{19}")


def load_json(data: bytes, *, exactly: bool = False) -> Any:
    """The value of `data` as every client reads it, None where it is no JSON; `exactly` as `load_exactly` does."""
    try:
        return load_exactly(data) if exactly else orjson.loads(data)
    except orjson.JSONDecodeError:
        return load_loosely(data)


def load_loosely(data: bytes) -> Any:
    """The value of `data` with U+FFFD for what is no character; None where it is no JSON for another reason, too."""
    if len(data) > SLOW_PARSE_BYTES or (data.isascii() and b"\\u" not in data):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return _sound(json.loads(data.decode("utf-8-sig", "replace")))
    return None


def load_carelessly(data: bytes) -> Any:
    """The same where the writer escaped no tabs or line breaks; a number that JSON has not is the text that it is."""
    if len(data) > _MOST_CARELESS_BYTES:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        text = data.decode("utf-8-sig", "replace")
        value = json.loads(text, strict=False, parse_constant=str, parse_float=_finite, parse_int=_whole)
        return _sound(value)
    return None


def _sound(value: Any) -> Any:
    """The value as orjson can read and write it. Raises ValueError."""
    return orjson.loads(_HALF.sub("\ufffd", json.dumps(value, ensure_ascii=False)))


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _whole(text: str) -> int | str:
    return int(text) if len(text) <= _EXACT_DIGITS else text


def load_exactly(data: bytes | str) -> Any:
    """What a tool is called with: orjson would make a float of an integer past 64 bits. Raises JSONDecodeError."""
    value = orjson.loads(data)
    if len(data) <= SLOW_PARSE_BYTES and (_LONG.search(data) if isinstance(data, str) else _LONG_BYTES.search(data)):
        with contextlib.suppress(RecursionError):
            return json.loads(data)
    return value
