"""Ollama's answers: NDJSON lines turned into OpenAI-shaped chunks, and whole answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from llm_router.errors import AttemptFailed
from llm_router.wire.chat import dump
from llm_router.wire.error_objects import nothing_said
from llm_router.wire.loose import load_json
from llm_router.wire.providers.base import Completion
from llm_router.wire.providers.chunks import (
    ChunkWriter,
    call_id,
    call_id_of,
    completion_body,
    error_event,
    function_call,
    message,
)
from llm_router.wire.sse import DONE_EVENT, MAX_EVENT_BYTES, EventTooLarge
from llm_router.wire.usage import Usage, token_count


def from_ollama(answer: Mapping[str, Any]) -> Usage | None:
    """The counts on a `done` line, 0 for one that is missing; None where both are."""
    prompt, output = answer.get("prompt_eval_count"), answer.get("eval_count")
    if prompt is None and output is None:
        return None
    return Usage(fresh_input=token_count(prompt), output=token_count(output))


def told_usage(usage: Usage | None, answer: Mapping[str, Any]) -> Usage | None:
    """What a client is told: nothing where the prompt's count is missing, as it is of a prompt served from the cache.

    The books have a count of their own for that half.
    """
    return None if answer.get("prompt_eval_count") is None else usage


def created_at(answer: Mapping[str, Any], default: int) -> int:
    """Unix seconds of an answer's `created_at`, or `default`."""
    try:
        return int(datetime.fromisoformat(str(answer.get("created_at"))).timestamp())
    except ValueError:
        return default


def answer_id(answer: Mapping[str, Any]) -> str:
    """An id for an answer, since Ollama gives none."""
    return "chatcmpl-" + call_id(f"{answer.get('created_at')}{answer.get('model')}", 0)


def finish_reason(done_reason: Any, *, called: bool) -> str:
    """OpenAI's finish reason; Ollama says `stop` for tool calls too."""
    if done_reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


def read_calls(said: Mapping[str, Any], answer: str, start: int) -> list[dict[str, Any]]:
    """The tool calls of one message, in OpenAI's shape; `start` is the number of calls before it."""
    calls: list[dict[str, Any]] = []
    given = said.get("tool_calls")
    for raw in given if isinstance(given, list) else ():
        function = raw.get("function") if isinstance(raw, dict) else None
        if not isinstance(function, dict):
            continue
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else dump(arguments or {}).decode()
        id = call_id_of(raw, answer, start + len(calls))
        calls.append(function_call(id, str(function.get("name") or ""), text))
    return calls


class OllamaTranslator:
    """State of one streamed answer. `created` is used where a line has no time of its own."""

    __slots__ = ("_calls", "_created", "_ended", "_model", "_rest", "_size", "_wants_usage", "_writer", "usage")

    def __init__(self, model: str, created: int, *, wants_usage: bool) -> None:
        self.usage: Usage | None = None
        self._model = model
        self._created = created
        self._wants_usage = wants_usage
        self._writer: ChunkWriter | None = None
        self._rest: list[bytes] = []  # of a line that has not ended
        self._size = 0
        self._calls = 0
        self._ended = False

    def __repr__(self) -> str:
        return f"<OllamaTranslator calls={self._calls} ended={self._ended}>"

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they were read, gives the chunks of the lines that are complete. Raises EventTooLarge."""
        end = data.rfind(b"\n") + 1
        if end == 0:
            self._size += len(data)
            if self._size > MAX_EVENT_BYTES:
                raise EventTooLarge(f"a line is longer than {MAX_EVENT_BYTES} bytes")
            self._rest.append(data)
            return b""
        whole = b"".join([*self._rest, data[:end]])
        self._rest = [data[end:]] if end < len(data) else []
        self._size = len(data) - end
        return b"".join([self._line(line) for line in whole.split(b"\n") if line])

    def close(self) -> bytes:
        """The upstream ended: a last line may lack its end."""
        rest = b"".join(self._rest)
        self._rest = []
        return self._line(rest)

    def _line(self, line: bytes) -> bytes:
        if self._ended:
            return b""
        answer = load_json(line, exactly=b"tool_calls" in line)
        if not isinstance(answer, dict):
            return b""
        if answer.get("error"):
            self._ended = True
            return _error(answer["error"])
        out = b""
        writer = self._writer
        if writer is None:
            created = created_at(answer, self._created)
            model = str(answer.get("model") or self._model)
            writer = self._writer = ChunkWriter(answer_id({"model": model, **answer}), created, model)
            out = writer.role()
        said = answer.get("message")
        if isinstance(said, dict):
            out += self._message(writer, said)
        if answer.get("done") is True:
            out += self._finish(writer, answer)
        return out

    def _message(self, writer: ChunkWriter, said: Mapping[str, Any]) -> bytes:
        out = b""
        thinking, content = said.get("thinking"), said.get("content")
        if isinstance(thinking, str) and thinking:
            out += writer.reasoning(thinking)
        if isinstance(content, str) and content:
            out += writer.content(content)
        if said.get("tool_calls"):
            calls = read_calls(said, writer.id, self._calls)
            out += b"".join([writer.call(self._calls + number, call) for number, call in enumerate(calls)])
            self._calls += len(calls)
        return out

    def _finish(self, writer: ChunkWriter, answer: Mapping[str, Any]) -> bytes:
        self._ended = True
        self.usage = from_ollama(answer)
        out = writer.finish(finish_reason(answer.get("done_reason"), called=self._calls > 0))
        told = told_usage(self.usage, answer)
        if self._wants_usage and told is not None:
            out += writer.usage(told)
        return out + DONE_EVENT


def _error(error: Any) -> bytes:
    said = error.get("message") if isinstance(error, dict) else error
    return error_event(said if isinstance(said, str) and said else "the provider reported an error", "api_error")


def completion(answer: Mapping[str, Any], *, model: str, created: int) -> Completion:
    """A whole answer of `/api/chat` as a completion. Raises AttemptFailed where it holds nothing and no end."""
    answer = {"model": model, **answer}
    id = answer_id(answer)
    said = answer["message"]
    calls = read_calls(said, id, 0)
    text, reasoning = str(said.get("content") or ""), str(said.get("thinking") or "")
    if answer.get("done") is not True and not (text or reasoning or calls):
        raise AttemptFailed(nothing_said())
    usage = from_ollama(answer)
    body = completion_body(
        id=id,
        created=created_at(answer, created),
        model=str(answer["model"]),
        message=message(text, reasoning=reasoning, calls=calls),
        finish=finish_reason(answer.get("done_reason"), called=bool(calls)),
        usage=told_usage(usage, answer),
    )
    return Completion(body, usage)
