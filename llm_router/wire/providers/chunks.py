"""OpenAI-shaped output: the events of a streamed answer from byte templates, and whole completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson

from llm_router.errors import AttemptFailed
from llm_router.wire.chat import dump
from llm_router.wire.error_objects import error_in, no_completion, upstream_error
from llm_router.wire.loose import load_json
from llm_router.wire.sse import data_event
from llm_router.wire.usage import Usage, to_openai

PING = b": ping\n\n"
_TAIL = b'},"finish_reason":null}]}\n\n'
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
# Nine letters and digits are an id that every vendor takes, also the strictest, and that no client rewrites.
_CALL_ID_LENGTH = 9
# Of an answer's id and its model's name; they stand in every chunk, and a provider may send megabytes as either.
_MOST_CHARS = 256


def call_id(answer: str, index: int) -> str:
    """An id for tool call `index` of `answer`, where the provider gave none; the same for the same arguments."""
    number = int.from_bytes(blake2b(f"{answer[:_MOST_CHARS]}/{index}".encode(), digest_size=8).digest())
    letters = []
    for _ in range(_CALL_ID_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(letters)


def call_id_of(call: Mapping[str, Any], answer: str, index: int) -> str:
    """The id of a tool call in whatever dialect; one is made where the provider gave none, as lookalikes do not."""
    id = call.get("id")
    return id if isinstance(id, str) and id else call_id(answer, index)


class ChunkWriter:
    """Writes the events of one answer; `id`, `created` (Unix seconds) and `model` are the same on all of them."""

    __slots__ = ("_args", "_bare", "_content", "_head", "_reasoning", "id")

    def __init__(self, id: str, created: int, model: str) -> None:
        self.id = id[:_MOST_CHARS]
        self._bare = (
            b'data: {"id":'
            + orjson.dumps(self.id)
            + b',"object":"chat.completion.chunk","created":%d,"model":' % created
            + orjson.dumps(model[:_MOST_CHARS])
            + b',"choices":['
        )
        self._head = self._bare + b'{"index":0,"delta":{'
        self._content = self._head + b'"content":'
        self._reasoning = self._head + b'"reasoning_content":'
        # A percent sign in the id or the model must not be read as a format.
        self._args = self._head.replace(b"%", b"%%") + b'"tool_calls":[{"index":%d,"function":{"arguments":'

    def __repr__(self) -> str:
        return f"<ChunkWriter {self.id}>"

    def role(self) -> bytes:
        """The preamble of every answer."""
        return self._head + b'"role":"assistant","content":""' + _TAIL

    def content(self, text: str) -> bytes:
        """A piece of the answer's text."""
        return self._content + orjson.dumps(text) + _TAIL

    def reasoning(self, text: str) -> bytes:
        """A piece of the model's thinking."""
        return self._reasoning + orjson.dumps(text) + _TAIL

    def refusal(self, text: str) -> bytes:
        """Why the model refuses."""
        return self._head + b'"refusal":' + orjson.dumps(text) + _TAIL

    def details(self, details: Sequence[Mapping[str, Any]]) -> bytes:
        """What the next turn needs of the thinking (signatures), in the form that clients carry back."""
        return self._head + b'"reasoning_details":' + orjson.dumps(details) + _TAIL

    def images(self, images: Sequence[Mapping[str, Any]]) -> bytes:
        """Images of the answer, each as an `image_url` part."""
        return self._head + b'"images":' + orjson.dumps(images) + _TAIL

    def call(self, index: int, call: Mapping[str, Any]) -> bytes:
        """The begin of a tool call, or all of it; `call` is the OpenAI-shaped object without its index."""
        return self._head + b'"tool_calls":[' + dump({"index": index, **call}) + b"]" + _TAIL

    def arguments(self, index: int, fragment: str) -> bytes:
        """A further piece of a tool call's arguments."""
        return self._args % index + orjson.dumps(fragment) + b"}}]" + _TAIL

    def finish(self, reason: str, extra: Mapping[str, Any] | None = None) -> bytes:
        """The one terminal chunk; `extra` are further keys of its choice."""
        choice = {"index": 0, "delta": {}, "finish_reason": reason, **(extra or {})}
        return self._bare + dump(choice) + b"]}\n\n"

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices that a client gets if it asked for usage."""
        return self._bare + b'],"usage":' + orjson.dumps(to_openai(usage)) + b"}\n\n"


def error_event(message: str, type: str, code: str | None = None) -> bytes:
    """An error in mid-stream. After it nothing else is written."""
    return data_event(orjson.dumps({"error": {"message": message, "type": type, "param": None, "code": code}}))


def completion_body(
    *,
    id: str,
    created: int,
    model: str,
    message: Mapping[str, Any],
    finish: str,
    usage: Usage | None,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """A whole answer; `message` is complete, `extra` are further keys of its choice."""
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None, **(extra or {})}
    body: dict[str, Any] = {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
    }
    if usage is not None:
        body["usage"] = to_openai(usage)
    return dump(body)


def message(
    text: str,
    *,
    reasoning: str = "",
    calls: Sequence[Mapping[str, Any]] = (),
    details: Sequence[Mapping[str, Any]] = (),
    refusal: str | None = None,
) -> dict[str, Any]:
    """The assistant message of a whole answer: `content` is null where there are only tool calls."""
    whole: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": refusal}
    if reasoning:
        whole["reasoning_content"] = reasoning
    if calls:
        whole["tool_calls"] = list(calls)
    if details:
        whole["reasoning_details"] = list(details)
    return whole


def function_call(id: str, name: str, arguments: str) -> dict[str, Any]:
    """A tool call in OpenAI's shape, without the index of a stream."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


# How the dialects say that a tool is called.
_CALLING = (b'"tool_use"', b'"functionCall"', b'"tool_calls"')


def whole_answer(body: bytes, is_answer: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """The JSON of a 200 answer in a dialect of its own. Raises AttemptFailed where it is an error, or no answer."""
    answer = load_json(body, exactly=any(word in body for word in _CALLING))
    error = error_in(answer)
    if error is not None:
        raise AttemptFailed(upstream_error(error))
    if not isinstance(answer, dict) or not is_answer(answer):
        raise AttemptFailed(no_completion())
    return answer
