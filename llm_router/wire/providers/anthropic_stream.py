"""Anthropic's event stream turned into OpenAI-shaped chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from llm_router.proxy.gate import error_in
from llm_router.wire.providers.anthropic_answer import (
    arguments_text,
    choice_extra,
    finish_reason,
    from_anthropic,
    refusal_text,
)
from llm_router.wire.providers.anthropic_request import JSON_TOOL
from llm_router.wire.providers.chunks import PING, ChunkWriter, error_event
from llm_router.wire.providers.reasoning import pack_thinking
from llm_router.wire.sse import DONE_EVENT, EventSplitter, iter_events
from llm_router.wire.usage import Usage

_Event = dict[str, Any]


class AnthropicTranslator:
    """State of one streamed answer.

    `writer` makes the chunk writer from the answer's id and model. `json_tool` says that the arguments of the
    forced tool are the answer's text.
    """

    __slots__ = (
        "_block", "_called", "_calls", "_ended", "_fragments", "_handlers", "_json_tool", "_make_writer", "_meaning",
        "_reported", "_splitter", "_thinking", "_thought", "_wants_usage", "_writer", "usage",
    )  # fmt: skip

    def __init__(self, writer: Callable[[str, str], ChunkWriter], *, wants_usage: bool, json_tool: bool) -> None:
        self.usage: Usage | None = None
        self._make_writer = writer
        self._wants_usage = wants_usage
        self._json_tool = json_tool
        self._splitter = EventSplitter()
        self._writer: ChunkWriter | None = None
        self._reported: dict[str, Any] = {}
        self._block: _Event = {}  # the content block that is being sent
        self._fragments = False  # whether its arguments have begun
        self._calls: list[str] = []
        self._called = False
        self._thinking: list[_Event] = []
        self._thought: list[str] = []  # the text of the last of them, while it comes
        self._meaning = False
        self._ended: str | None = None  # "finish" after the finish chunk, "done" when nothing may follow
        self._handlers: dict[str, Callable[[_Event], bytes]] = {
            "content_block_delta": self._delta,
            "message_start": self._start,
            "content_block_start": self._block_start,
            "content_block_stop": self._block_stop,
            "message_delta": self._message_delta,
            "message_stop": lambda _: self._stop(),
            "ping": lambda _: PING if self._meaning else b"",
            "error": self._error,
        }

    def __repr__(self) -> str:
        return f"<AnthropicTranslator calls={len(self._calls)} ended={self._ended}>"

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they were read, gives the chunks that are complete."""
        return self._translate(self._splitter.feed(data))

    def close(self) -> bytes:
        """The upstream ended: what still waited for its blank line, and the usage that nobody ended with."""
        out = self._translate(self._splitter.rest())
        return out + self._usage_chunk() if self._ended == "finish" else out

    def _translate(self, whole: bytes) -> bytes:
        if not whole:
            return b""
        out: list[bytes] = []
        for event in iter_events(whole):
            if self._ended == "done" or not event.data:
                continue
            try:
                payload = orjson.loads(event.data)
            except orjson.JSONDecodeError:
                continue
            if isinstance(payload, dict):
                kind = payload.get("type")
                handler = self._handlers.get(kind if isinstance(kind, str) else event.name.decode("latin-1"))
                if handler is None and payload.get("error"):
                    handler = self._error  # of a gateway on the way, which does not know Anthropic's form
                if handler is not None:
                    out.append(handler(payload))
        return b"".join(out)

    @property
    def _chunks(self) -> ChunkWriter:
        if self._writer is None:
            self._writer = self._make_writer("", "")
        return self._writer

    def _start(self, event: _Event) -> bytes:
        message = _object(event.get("message"))
        self._note_usage(message.get("usage"))
        if self._writer is not None:
            return b""
        self._writer = self._make_writer(str(message.get("id") or ""), str(message.get("model") or ""))
        return self._writer.role()

    def _block_start(self, event: _Event) -> bytes:
        if self._ended is not None:
            return b""
        block = self._block = dict(_object(event.get("content_block")))
        self._fragments = False
        kind = block.get("type")
        if kind == "text":
            return self._text(block.get("text"))
        if kind in ("thinking", "redacted_thinking"):
            self._thinking.append(block)
            self._thought = [str(block.get("thinking") or "")]
            return self._reason(block.get("thinking"))
        if kind != "tool_use" or self._is_answer():
            return b""
        self._meaning = self._called = True
        id = str(block.get("id") or "")
        self._calls.append(id)
        begin = {"id": id, "type": "function", "function": {"name": str(block.get("name") or ""), "arguments": ""}}
        return self._chunks.call(len(self._calls) - 1, begin)

    def _is_answer(self) -> bool:
        return self._json_tool and self._block.get("name") == JSON_TOOL

    def _delta(self, event: _Event) -> bytes:
        if self._ended is not None:
            return b""
        delta = _object(event.get("delta"))
        kind = delta.get("type")
        if kind == "text_delta":
            return self._text(delta.get("text"))
        if kind == "input_json_delta":
            return self._arguments(delta.get("partial_json"))
        if kind == "thinking_delta":
            text = delta.get("thinking")
            self._thought.append(str(text or ""))
            return self._reason(text)
        if kind == "signature_delta":
            self._block["signature"] = str(self._block.get("signature") or "") + str(delta.get("signature") or "")
        return b""

    def _text(self, text: Any) -> bytes:
        if not isinstance(text, str) or not text:
            return b""
        self._meaning = True
        return self._chunks.content(text)

    def _reason(self, text: Any) -> bytes:
        if not isinstance(text, str) or not text:
            return b""
        self._meaning = True
        return self._chunks.reasoning(text)

    def _arguments(self, fragment: Any) -> bytes:
        if not isinstance(fragment, str) or not fragment or self._block.get("type") != "tool_use":
            return b""
        self._fragments = True
        if self._is_answer():
            return self._text(fragment)
        return self._chunks.arguments(len(self._calls) - 1, fragment)

    def _block_stop(self, event: _Event) -> bytes:
        out = b""
        if self._block.get("type") == "thinking":
            self._block["thinking"] = "".join(self._thought)
        if self._block.get("type") == "tool_use" and not self._fragments:
            # Nothing was streamed: no arguments, or all of them in the first event.
            out = self._arguments(arguments_text(self._block.get("input")))
        self._block = {}
        return out

    def _message_delta(self, event: _Event) -> bytes:
        self._note_usage(event.get("usage"))
        delta = _object(event.get("delta"))
        stop_reason, details = delta.get("stop_reason"), delta.get("stop_details")
        if stop_reason is None or self._ended is not None:
            return b""
        self._ended = "finish"
        self._meaning = True
        out = b""
        signed = pack_thinking(self._thinking, self._calls[0]) if self._calls else []
        if signed:
            out += self._chunks.details(signed)
        refusal = refusal_text(details)
        if refusal is not None:
            out += self._chunks.refusal(refusal)
        return out + self._chunks.finish(finish_reason(stop_reason, called=self._called), choice_extra(details))

    def _stop(self) -> bytes:
        if self._ended != "finish":
            # An end without a stop reason is a cut; the missing finish tells so.
            self._ended = "done"
            return b""
        return self._usage_chunk() + DONE_EVENT

    def _usage_chunk(self) -> bytes:
        self._ended = "done"
        return self._chunks.usage(self.usage) if self._wants_usage and self.usage is not None else b""

    def _error(self, event: _Event) -> bytes:
        self._ended = "done"
        seen = error_in(event, b"error")
        assert seen is not None  # an event of that name is one, whatever it holds
        kind = seen.error.get("type")
        kind = kind if isinstance(kind, str) and kind else "api_error"
        return error_event(seen.message, kind, kind)

    def _note_usage(self, usage: Any) -> None:
        """Figures are cumulative: the later one that is given counts, nothing is added up."""
        if isinstance(usage, dict):
            self._reported |= {name: value for name, value in usage.items() if value is not None}
            self.usage = from_anthropic(self._reported)


def _object(value: Any) -> _Event:
    return value if isinstance(value, dict) else {}
