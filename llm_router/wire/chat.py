"""A chat request as the client sent it: the few fields that we read are typed, all others travel unchanged."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from llm_router.errors import ApiError

ROUTED_MODELS = ("router", "auto")
FORCED_PREFIX = "router/"

# Keys of a JSON object may be spelled with escapes; a body that might do so is rewritten the slow way.
_ESCAPED_MODEL_KEY = re.compile(rb"\\u00(?:6[dfcDFC45])")
_MODEL_KEY = re.compile(rb'"model"')
_MODEL_FIELD = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
# A model's name goes into headers, logs and the ledger.
_MODEL_CHARS = 256
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MODELS_HINT = 'use "router", "router/<category>" or "provider/model"'
# Bodies that orjson refuses (lone surrogates) are read by the slower parser of the standard library up to here.
_SLOW_PARSE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked chat request. `raw` are the client's bytes, `body` the parsed JSON object (do not change it)."""

    raw: bytes
    body: Mapping[str, Any]
    model: str
    stream: bool

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The conversation, oldest first."""
        messages: Sequence[Mapping[str, Any]] = self.body["messages"]
        return messages

    @property
    def tools(self) -> Sequence[Any]:
        """The tools offered to the model; empty if none."""
        tools = self.body.get("tools")
        return tools if isinstance(tools, list) else ()

    @property
    def is_open(self) -> bool:
        """Whether the router finds out the category: `router` or `auto`."""
        return self.model in ROUTED_MODELS

    @property
    def is_routed(self) -> bool:
        """Whether the router chooses the model: `router`, `auto` or `router/<category>`."""
        return self.model in ROUTED_MODELS or self.model.startswith(FORCED_PREFIX)

    @property
    def output_limit(self) -> int | None:
        """The output tokens that were asked for: `max_completion_tokens`, else `max_tokens`."""
        for name in ("max_completion_tokens", "max_tokens"):
            value = self.body.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for a usage chunk at the end of the stream."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def without_body(self) -> ChatRequest:
        """The same request without its parsed form, for the time in which only the bytes are still needed."""
        return ChatRequest(self.raw, {}, self.model, self.stream)

    def with_model(self, model: str) -> bytes:
        """The client's bytes with only `model` replaced; in place where the field stands alone in the text."""
        raw = self.raw
        at = raw.find(b'"model"')
        # Over long bodies the one search is quicker as a regular expression, the other as a plain one.
        if not _MODEL_KEY.search(raw, at + 1) and (b"\\u00" not in raw or not _ESCAPED_MODEL_KEY.search(raw)):
            found = _MODEL_FIELD.match(raw, at)
            if at >= 0 and found and orjson.loads(found[1]) == self.model:
                start, end = found.span(1)
                return b"".join((raw[:start], orjson.dumps(model), memoryview(raw)[end:]))
        return dump({**self.body, "model": model})


def dump(body: Mapping[str, Any]) -> bytes:
    """JSON bytes of `body`; what orjson refuses (lone surrogates, huge integers, deep nesting) goes the slow way."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body, separators=(",", ":")).encode()


def parse_chat(raw: bytes) -> ChatRequest:
    """Reads and checks the body of a chat request. Raises ApiError (400) that names the field and the remedy."""
    body = parse_object(raw)
    model = body.get("model")
    if not isinstance(model, str):
        model = ""
    if (problem := _problem_of_model(model)) is not None:
        _refuse("model", problem if "model" in body else f"'model' is missing; {_MODELS_HINT}")
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        _refuse("stream", "'stream' must be true, false or null")
    _check_messages(body)
    return ChatRequest(raw=raw, body=body, model=model, stream=bool(stream))


@lru_cache(maxsize=1024)
def _problem_of_model(model: str) -> str | None:
    if not model.strip():
        return f"'model' must be a non-empty string; {_MODELS_HINT}"
    if not model.isprintable():
        return "'model' holds control characters"
    if not is_sane(model):
        return f"'model' must have at most {_MODEL_CHARS} characters and no control characters"
    return None


def is_sane(model: str) -> bool:
    """Whether a model's name may go into headers and logs: of bounded length and without control characters."""
    return len(model) <= _MODEL_CHARS and _UNPRINTABLE.search(model) is None


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object from `raw`. Raises ApiError (400)."""
    if not raw or raw.isspace():
        _refuse(None, "The request body is empty; send a JSON object")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        body = _parse_slowly(raw, error)
    if not isinstance(body, dict):
        _refuse(None, "The request body must be a JSON object")
    return body


def _parse_slowly(raw: bytes, error: orjson.JSONDecodeError) -> Any:
    if ("surrogate" in str(error) or "hex escape" in str(error)) and len(raw) <= _SLOW_PARSE_BYTES:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(raw.decode(), parse_constant=_no_constant)
    _refuse(None, f"The request body is not valid JSON: {error}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_messages(body: Mapping[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list):
        hint = "; this route takes chat completions, not the Responses API" if "input" in body else ""
        problem = "must be a list" if "messages" in body else "is missing"
        _refuse("messages", f"'messages' {problem}{hint}")
    if not messages:
        _refuse("messages", "'messages' must not be empty")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            _refuse(f"messages[{index}]", f"'messages[{index}]' must be an object")
        role = message.get("role")
        if not isinstance(role, str) or not role:
            _refuse(f"messages[{index}].role", f"'messages[{index}].role' must be a non-empty string")
        if message.get("content") is None and role != "assistant":
            _refuse(f"messages[{index}].content", f"'messages[{index}].content' is missing")


def _refuse(param: str | None, message: str) -> NoReturn:
    raise ApiError(400, message, param=param)
