"""JSON that is right but for its text, as providers send it when they cut an answer inside a character.

JavaScript writes half of an emoji as `\\ud83d`, others send some of its bytes. Every client reads both; orjson reads
neither. This is the way for what orjson has refused, so that no word is lost for the sake of one character.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

# The parser of the standard library is slow, and holds up all others.
_MOST_BYTES = 1_000_000
_HALF = re.compile("[\ud800-\udfff]")


def load_loosely(data: bytes) -> Any:
    """The value of `data` with U+FFFD for what is no character; None where it is no JSON for another reason, too."""
    if len(data) > _MOST_BYTES or (data.isascii() and b"\\u" not in data):
        return None
    try:
        text = json.dumps(json.loads(data.decode("utf-8", "replace")), ensure_ascii=False)
        return orjson.loads(_HALF.sub("\ufffd", text))
    except (ValueError, RecursionError):
        return None
