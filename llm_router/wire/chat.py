"""A chat request as the client sent it: the few fields that we read are typed, all others travel unchanged."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from llm_router.errors import ApiError
from llm_router.wire.loose import SLOW_PARSE_BYTES

ROUTED_MODELS = ("router", "auto")
FORCED_PREFIX = "router/"

_MODEL_KEY = b'"model"'
# Of a longer name there is nothing to be replaced; without a bound a text that never ends is searched to its end.
_MODEL_FIELD = re.compile(rb'"model"\s*:\s*"([^"\\]{0,4096}(?:\\.[^"\\]{0,256}){0,4096})"')
# What a body's "model" is called while it is read; see `_read`. Of the same length, so that places in error messages
# stay right, and drawn at random, so that no client's field can be of that name.
_STAND_IN = secrets.token_urlsafe(len("model"))[: len("model")]
_STAND_IN_KEY = f'"{_STAND_IN}"'.encode()
_NEAR = 64  # searching so far again costs less than cutting and joining
_SHORT = 4096  # up to here a copy costs less than a view
# A model's name goes into headers, logs and the ledger.
_MODEL_CHARS = 256
_TOO_LONG = f"'model' must have at most {_MODEL_CHARS} characters and no control characters"
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MODELS_HINT = 'use "router", "router/<category>" or "provider/model"'


@dataclass(slots=True, eq=False)
class ChatRequest:
    """A checked chat request. `raw` are the client's bytes, `body` the parsed JSON object: nobody changes either.

    `messages` is the conversation, oldest first, `roles` are its messages' roles, and `has_parts` tells whether any
    content is a list. `tools` are those offered to the model. `named_at` is where the value of `model` begins and ends
    in `raw`, None where it cannot be replaced there. One is made per request: not frozen, since that takes four times
    as long to make.
    """

    raw: bytes
    body: Mapping[str, Any]
    model: str
    stream: bool
    messages: Sequence[Mapping[str, Any]] = ()
    roles: Sequence[str] = ()
    has_parts: bool = False
    tools: Sequence[Any] = ()
    named_at: tuple[int, int] | None = None

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
        asked = self.body.get("max_completion_tokens")
        if type(asked) is not int:
            asked = self.body.get("max_tokens")
        return asked if type(asked) is int else None

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for a usage chunk at the end of the stream."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def forget_body(self) -> None:
        """Lets go of the parsed form, for the time in which only the bytes are still needed."""
        self.body = {}
        self.messages = self.roles = self.tools = ()

    def with_model(self, model: str) -> bytes:
        """The client's bytes with only `model` replaced; in place where it is certain where that is."""
        if self.named_at is None:
            return dump({**self.body, "model": model})
        start, end = self.named_at
        return b"".join((self.raw[:start], _quoted(model), _from(self.raw, end)))


@lru_cache(maxsize=1024)
def _quoted(model: str) -> bytes:
    return orjson.dumps(model)


class TooDeep(ValueError):
    """JSON that can be read, but not written: its lists and objects hold one another too often."""


def dump(body: Mapping[str, Any]) -> bytes:
    """JSON bytes of `body`; what orjson refuses (lone surrogates, huge integers, deep nesting) goes the slow way.

    Raises TooDeep.
    """
    try:
        return orjson.dumps(body)
    except TypeError:
        return _dump_slowly(body)


def _dump_slowly(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, separators=(",", ":")).encode()
    except RecursionError:
        raise TooDeep("lists and objects are nested too deeply") from None


def parse_chat(raw: bytes) -> ChatRequest:
    """Reads and checks the body of a chat request. Raises ApiError (400) that names the field and the remedy."""
    body, named_at = _read(raw)
    model = body.get("model")
    if type(model) is not str:
        model = ""
    # A name that is too long is not looked up: the bodies of a thousand bad requests would be remembered.
    if (problem := _TOO_LONG if len(model) > _MODEL_CHARS else _problem_of_model(model)) is not None:
        _refuse("model", problem if "model" in body else f"'model' is missing; {_MODELS_HINT}")
    stream = body.get("stream")
    if stream is not None and type(stream) is not bool:
        _refuse("stream", "'stream' must be true, false or null")
    messages = body.get("messages")
    if type(messages) is not list or not messages:
        _refuse_messages(body)
    roles, has_parts = _check_messages(messages)
    tools = body.get("tools")
    return ChatRequest(
        raw, body, model, stream is True, messages, roles, has_parts, tools if type(tools) is list else (), named_at
    )


def _read(raw: bytes) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """The JSON object, and where the value of its `model` stands if that is certain. Raises ApiError (400).

    A text may hold "model" many times: within tools, doubled, spelled with escapes. So it is read with the first one
    renamed: if the object has the new name then, and no "model", that was the one. One parse tells what would take
    several searches of the whole text.
    """
    field = _MODEL_FIELD.search(raw)
    if field is None:
        return parse_object(raw), None
    at = field.start()
    if at < _NEAR:
        text = raw.replace(_MODEL_KEY, _STAND_IN_KEY, 1)
    else:
        text = b"".join((raw[:at], _STAND_IN_KEY, _from(raw, at + len(_MODEL_KEY))))
    body = parse_object(text)
    if _STAND_IN in body and "model" not in body:
        model = body["model"] = body.pop(_STAND_IN)
        spelled = field[1].decode()
        if spelled == model or ("\\" in spelled and json.loads(f'"{spelled}"') == model):
            start, end = field.span(1)
            return body, (start - 1, end + 1)
    return parse_object(raw), None


def _from(raw: bytes, start: int) -> bytes | memoryview:
    return raw[start:] if len(raw) < _SHORT else memoryview(raw)[start:]


@lru_cache(maxsize=1024)
def _problem_of_model(model: str) -> str | None:
    if not model.strip():
        return f"'model' must be a non-empty string; {_MODELS_HINT}"
    return None if model.isprintable() else "'model' holds control characters"


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
    if ("surrogate" in str(error) or "hex escape" in str(error)) and len(raw) <= SLOW_PARSE_BYTES:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(raw.decode(), parse_constant=_no_constant)
    _refuse(None, f"The request body is not valid JSON: {error}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_messages(body: Mapping[str, Any]) -> NoReturn:
    messages = body.get("messages")
    if isinstance(messages, list):
        _refuse("messages", "'messages' must not be empty")
    hint = "; this route takes chat completions, not the Responses API" if "input" in body else ""
    problem = "must be a list" if "messages" in body else "is missing"
    _refuse("messages", f"'messages' {problem}{hint}")


def _check_messages(messages: Sequence[Any]) -> tuple[list[str], bool]:
    """The messages' roles, and whether any content is a list of parts. Raises ApiError (400).

    Agents send hundreds of messages: the loop asks for what should be there, and only what is not is looked at.
    """
    roles: list[str] = []
    has_parts = False
    try:
        for message in messages:
            role = message["role"]
            if type(role) is not str or not role:
                _blame(messages)
            roles.append(role)
            content = message["content"]
            if type(content) is not str:
                if content is None and role != "assistant":
                    _blame(messages)
                has_parts = has_parts or type(content) is list
    except (KeyError, TypeError):
        _blame(messages)
        return [message["role"] for message in messages], any(type(m.get("content")) is list for m in messages)
    return roles, has_parts


def _blame(messages: Sequence[Any]) -> None:
    """Names the first message that is none. An assistant's content may be missing altogether."""
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
