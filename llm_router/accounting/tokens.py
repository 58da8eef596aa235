"""Counting tokens: texts, whole prompts, and how both stay cheap.

What was counted before is remembered by its hash, so a conversation of n turns is tokenised once, not once a turn.
No call of the tokenizer is long, and a request can ask for only so much of it: what goes beyond is sampled. Where
there is no tokenizer at all the count is an estimate. Both are said in the result.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import orjson

from llm_router.wire.loose import SLOW_PARSE_BYTES

MESSAGE_OVERHEAD = 3
NAME_OVERHEAD = 1
REPLY_PRIMING = 3
# An image of 1024 x 1024 at high detail; the real size would have to be decoded or fetched.
IMAGE_TOKENS = 765
IMAGE_LOW_TOKENS = 85

# tiktoken needs up to 0.6 us for a character of a hostile text, more in longer pieces; before that blanks are marked
# under the interpreter lock.
_CHUNK = 16_384
_REQUEST_BUDGET = 4 * 1024 * 1024
_TEXT_BUDGET = 1024 * 1024
_TEXTS_KEPT = 16_384
_REQUESTS_KEPT = 2_048
# Requests longer than the one are compared and not hashed; so much of them is kept for that.
_LONG_BYTES, _LONG_KEPT_BYTES = 32 * 1024, 2 * 1024 * 1024
_SAMPLED_KEPT = 256
# The JSON parser holds the interpreter lock: bodies beyond this, without their images, are counted as plain text.
_PARSE_BYTES = 1024 * 1024
_MAX_DEPTH = 8
# Between these characters every pattern of ours ends one piece and begins the next: a cut there changes no token.
_SAFE_CUT = re.compile(r"[A-Za-z](?= [A-Za-z])")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{512,}")


V = TypeVar("V")


class Encoding(Protocol):
    """What tells tokens apart."""

    def count(self, text: str) -> int:
        """How many tokens `text` has, special tokens' names read as plain text."""
        ...


class Count(NamedTuple):
    """A number of tokens; `genuine` is False where any part of it was estimated (no tokenizer, sampled, an image)."""

    tokens: int
    genuine: bool


NO_TOKENS = Count(0, True)


class Recent(Generic[V]):
    """A bounded memory in two generations: what nobody asked for while one filled up is forgotten with the next."""

    __slots__ = ("_limit", "_new", "_old")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._new: dict[int, V] = {}
        self._old: dict[int, V] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def get(self, key: int) -> V | None:
        """What was put under `key`, if it is still remembered."""
        value = self._new.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: int, value: V) -> None:
        """Remembers `value`."""
        if len(self._new) >= self._limit:
            self._old = self._new
            self._new = {}
        self._new[key] = value


class Counter:
    """Counts with one encoding (None: estimates). Not for several threads at once."""

    __slots__ = ("_encoding", "_long", "_long_bytes", "_requests", "_sampled", "_texts", "encoded_chars")

    def __init__(self, encoding: Encoding | None) -> None:
        self._encoding = encoding
        self._texts: Recent[int] = Recent(_TEXTS_KEPT)
        self._sampled: Recent[int] = Recent(_SAMPLED_KEPT)
        self._requests: Recent[Count] = Recent(_REQUESTS_KEPT)
        self._long: deque[tuple[bytes, Count]] = deque()
        self._long_bytes = 0
        self.encoded_chars = 0

    def __repr__(self) -> str:
        return f"<Counter texts={len(self._texts)} requests={len(self._requests)} encoded={self.encoded_chars}>"

    def text(self, text: str) -> Count:
        """The tokens of one text."""
        if not text:
            return NO_TOKENS
        tokens, _, genuine = self.lookup(text)
        return Count(tokens, genuine)

    def request(self, raw: bytes) -> Count:
        """The prompt tokens of a chat request's JSON; the same bytes are read once."""
        if len(raw) > _LONG_BYTES:
            return self._long_request(raw)
        key = hash(raw)
        count = self._requests.get(key)
        if count is None:
            count = self._read_request(raw)
            self._requests.put(key, count)
        return count

    def _long_request(self, raw: bytes) -> Count:
        """To compare long bytes takes a tenth of the time of hashing them; so the last few are kept themselves."""
        for known, count in self._long:
            if known == raw:
                return count
        count = self._read_request(raw)
        self._long.append((raw, count))
        self._long_bytes += len(raw)
        while self._long_bytes > _LONG_KEPT_BYTES:
            self._long_bytes -= len(self._long.popleft()[0])
        return count

    def _read_request(self, raw: bytes) -> Count:
        if len(raw) > _PARSE_BYTES and b";base64," in raw:
            raw = _BASE64.sub(b"", raw)
        if len(raw) > _PARSE_BYTES:
            return Count(self.text(raw.decode("utf-8", "replace")).tokens, False)
        body = _parse(raw)
        return Count(estimate_bytes(raw), False) if body is None else self.prompt(body)

    def prompt(self, body: Mapping[str, Any]) -> Count:
        """The prompt tokens of a parsed chat request: messages, tools and schemas, with OpenAI's chat overhead."""
        walk = _Walk(self)
        tokens = REPLY_PRIMING
        messages = body.get("messages")
        for message in messages if isinstance(messages, list) else ():
            if type(message) is dict:
                tokens += walk.message(message)
        for name in ("tools", "functions", "response_format"):
            value = body.get(name)
            if name == "response_format" and isinstance(value, dict):
                value = value.get("json_schema")
            if value and (type(value) is dict or type(value) is list):
                tokens += walk.json(value)
        return Count(tokens, walk.genuine)

    def lookup(self, text: str, budget: int = _TEXT_BUDGET) -> tuple[int, int, bool]:
        """(tokens, characters that had to be tokenised, whether nothing was estimated), as a plain tuple."""
        if self._encoding is None:
            return estimate_text(text), 0, False
        key = hash(text)
        tokens = self._texts.get(key)
        if tokens is not None:
            return tokens, 0, True
        size = len(text)
        if size <= _CHUNK:
            tokens = self._encoding.count(text)
        elif size <= budget:
            tokens = self._encode_long(self._encoding, text)
        else:
            tokens = self._sampled.get(key)
            if tokens is not None:
                return tokens, 0, False
            tokens = self._sample(self._encoding, text, budget)
            self._sampled.put(key, tokens)
            return tokens, budget, False
        self.encoded_chars += size
        self._texts.put(key, tokens)
        return tokens, size, True

    def _encode_long(self, encoding: Encoding, text: str) -> int:
        tokens = start = 0
        while start < len(text):
            end = _cut(text, start + _CHUNK)
            tokens += encoding.count(text[start:end])
            start = end
        return tokens

    def _sample(self, encoding: Encoding, text: str, budget: int) -> int:
        """Counts pieces spread evenly over the text and takes them for the whole."""
        pieces = max(4, budget // _CHUNK)
        step = len(text) // pieces
        seen = tokens = 0
        for start in range(0, pieces * step, step):
            piece = text[start : start + min(step, _CHUNK)]
            tokens += encoding.count(piece)
            seen += len(piece)
        self.encoded_chars += seen
        return round(tokens * len(text) / seen)


class _Walk:
    """The way through one prompt, with what it may still tokenise."""

    __slots__ = ("_budget", "_counter", "genuine")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._budget = _REQUEST_BUDGET
        self.genuine = True

    def text(self, text: str) -> int:
        if not text:
            return 0
        tokens, spent, genuine = self._counter.lookup(text, min(self._budget, _TEXT_BUDGET))
        self._budget -= spent
        if not genuine:
            self.genuine = False
        return tokens

    def json(self, value: Any) -> int:
        """A structure as the text that most chat templates show to a model."""
        try:
            return self.text(orjson.dumps(value).decode())
        except TypeError:  # lone surrogates, deep nesting
            try:
                return self.text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
            except RecursionError:
                self.genuine = False
                return 0

    def message(self, message: dict[str, Any]) -> int:
        tokens = MESSAGE_OVERHEAD
        for name, value in message.items():
            if not value:
                continue
            if name == "role":
                tokens += 1
            elif name == "content" or name == "refusal" or name == "reasoning_content":
                tokens += self.text(value) if type(value) is str else self._parts(value)
            elif name == "name" and type(value) is str:
                tokens += NAME_OVERHEAD + self.text(value)
            elif name == "tool_calls" and type(value) is list:
                for call in value:
                    tokens += self._call(call)
            elif name == "function_call":
                tokens += self._function(value)
        return tokens

    def _parts(self, parts: Any, depth: int = 0) -> int:
        if type(parts) is not list or depth > _MAX_DEPTH:
            self.genuine = False
            return 0
        tokens = 0
        for part in parts:
            if type(part) is str:
                tokens += self.text(part)
            elif type(part) is dict:
                tokens += self._part(part, depth)
        return tokens

    def _part(self, part: dict[str, Any], depth: int) -> int:
        for name in ("text", "refusal", "thinking"):
            if type(value := part.get(name)) is str:
                return self.text(value)
        if type(content := part.get("content")) is str:
            return self.text(content)
        if type(content) is list:
            return self._parts(content, depth + 1)
        # An image, a sound, a file: nothing that can be counted as text.
        self.genuine = False
        image = part.get("image_url")
        low = type(image) is dict and image.get("detail") == "low"
        return IMAGE_LOW_TOKENS if low else IMAGE_TOKENS

    def _call(self, call: Any) -> int:
        return self._function(call.get("function") or call.get("custom")) if type(call) is dict else 0

    def _function(self, function: Any) -> int:
        if type(function) is not dict:
            return 0
        values = (function.get(name) for name in ("name", "arguments", "input"))
        return sum(self.text(value) for value in values if type(value) is str)


def estimate_text(text: str) -> int:
    """About how many tokens a text has: four ASCII characters each, more for scripts of longer UTF-8 forms."""
    size = len(text)
    extra = 0 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) - size
    return (size * 5 + extra * 8 + 19) // 20


def estimate_bytes(raw: bytes) -> int:
    """About how many prompt tokens a request has, without reading it; images in base64 count as images."""
    images = 0
    if b";base64," in raw:
        raw, images = _BASE64.subn(b"", raw)
    return len(raw) // 4 + images * IMAGE_TOKENS


def _cut(text: str, end: int) -> int:
    """A place to cut before `end`, where possible one that changes no token."""
    if end >= len(text):
        return len(text)
    last = end
    for found in _SAFE_CUT.finditer(text, end - 512, end):
        last = found.end()
    return last


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        if len(raw) > SLOW_PARSE_BYTES:
            return None
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return body if isinstance(body, dict) else None
