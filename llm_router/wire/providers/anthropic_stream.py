"""Anthropic's event stream turned into OpenAI-shaped chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from llm_router.wire.error_objects import error_in, event_value
from llm_router.wire.providers.anthropic_answer import (
    arguments_text,
    choice_extra,
    finish_reason,
    from_anthropic,
    refusal_text,
)
from llm_router.wire.providers.anthropic_request import JSON_TOOL
from llm_router.wire.providers.chunks import PING, ChunkWriter, call_id_of, error_event
from llm_router.wire.providers.reasoning import pack_thinking
from llm_router.wire.sse import DONE_EVENT, EventSplitter, iter_events
from llm_router.wire.usage import Usage

_Event = dict[str, Any]


class _Block:
    """A content block that is being sent, as its start told of it."""

    __slots__ = ("call", "content", "fragments", "thought")

    def __init__(self, content: _Event) -> None:
        self.content = content
        self.call: int | None = None  # the number of its tool call
        self.fragments = False  # whether its arguments have begun
        self.thought = [str(content.get("thinking") or "")]  # the text of its thinking, while it comes


class AnthropicTranslator:
    """State of one streamed answer.

    `writer` makes the chunk writer from the answer's id and model. `json_tool` says that the arguments of the
    forced tool are the answer's text.
    """

    __slots__ = (
        "_blocks", "_called", "_calls", "_ended", "_json_tool", "_make_writer", "_meaning", "_newest",
        "_reported", "_splitter", "_thinking", "_wants_usage", "_writer", "usage",
    )  # fmt: skip

    def __init__(self, writer: Callable[[str, str], ChunkWriter], *, wants_usage: bool, json_tool: bool) -> None:
        self.usage: Usage | None = None
        self._make_writer = writer
        self._wants_usage = wants_usage
        self._json_tool = json_tool
        self._splitter = EventSplitter()
        self._writer: ChunkWriter | None = None
        self._reported: dict[str, Any] = {}
        self._newest = _Block({})
        self._blocks: dict[int, _Block] = {}  # by index: nobody promises that they come one after the other
        self._calls: list[str] = []
        self._called = False
        self._thinking: list[_Event] = []
        self._meaning = False
        self._ended: str | None = None  # "finish" after the finish chunk, "done" when nothing may follow

    def __repr__(self) -> str:
        return f"<AnthropicTranslator calls={len(self._calls)} ended={self._ended}>"

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they were read, gives the chunks that are complete."""
        return self._translate(self._splitter.feed(data))

    def close(self) -> bytes:
        """The upstream ended: what still waited for its blank line, and the end that was not told after a finish."""
        out = self._translate(self._splitter.rest())
        return out + self._stop() if self._ended == "finish" else out

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
                payload = event_value(event.name, event.data)
            if isinstance(payload, str) and event.name == b"error":
                payload = {"type": "error", "error": {"message": payload}}
            if isinstance(payload, dict):
                kind = payload.get("type")
                handler = _HANDLERS.get(kind if isinstance(kind, str) else event.name.decode("latin-1"))
                if handler is None and payload.get("error"):
                    # Of a gateway on the way, which does not know Anthropic's form.
                    handler = AnthropicTranslator._error
                if handler is not None:
                    out.append(handler(self, payload))
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
        content = dict(_object(event.get("content_block")))
        block = self._newest = _Block(content)
        index = event.get("index")
        if isinstance(index, int):
            self._blocks[index] = block
        kind = content.get("type")
        if kind == "text":
            return self._text(content.get("text"))
        if kind in ("thinking", "redacted_thinking"):
            self._thinking.append(content)
            return self._reason(content.get("thinking"))
        if kind != "tool_use" or self._is_answer(block):
            return b""
        self._meaning = self._called = True
        block.call = len(self._calls)
        id = call_id_of(content, self._chunks.id, block.call)
        self._calls.append(id)
        begin = {"id": id, "type": "function", "function": {"name": str(content.get("name") or ""), "arguments": ""}}
        return self._chunks.call(block.call, begin)

    def _is_answer(self, block: _Block) -> bool:
        return self._json_tool and block.content.get("name") == JSON_TOOL

    def _block_of(self, event: _Event) -> _Block:
        index = event.get("index")
        return self._blocks.get(index, self._newest) if isinstance(index, int) else self._newest

    def _delta(self, event: _Event) -> bytes:
        if self._ended is not None:
            return b""
        delta = _object(event.get("delta"))
        kind = delta.get("type")
        if kind == "text_delta":
            return self._text(delta.get("text"))
        block = self._block_of(event)
        if kind == "input_json_delta":
            return self._arguments(block, delta.get("partial_json"))
        if kind == "thinking_delta":
            text = delta.get("thinking")
            block.thought.append(str(text or ""))
            return self._reason(text)
        if kind == "signature_delta":
            signature = str(block.content.get("signature") or "") + str(delta.get("signature") or "")
            block.content["signature"] = signature
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

    def _arguments(self, block: _Block, fragment: Any) -> bytes:
        if not isinstance(fragment, str) or not fragment or block.content.get("type") != "tool_use":
            return b""
        block.fragments = True
        if block.call is None:
            return self._text(fragment)
        return self._chunks.arguments(block.call, fragment)

    def _block_stop(self, event: _Event) -> bytes:
        block = self._block_of(event)
        out = b""
        if block.content.get("type") == "thinking":
            block.content["thinking"] = "".join(block.thought)
        if block.content.get("type") == "tool_use" and not block.fragments:
            # Nothing was streamed: no arguments, or all of them in the first event.
            out = self._arguments(block, arguments_text(block.content.get("input")))
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
        finished, self._ended = self._ended == "finish", "done"
        if not finished:
            return b""  # an end without a stop reason is a cut; the missing finish tells so
        usage = self._chunks.usage(self.usage) if self._wants_usage and self.usage is not None else b""
        return usage + DONE_EVENT

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


# Of the class: a translator that held its own methods would wait for the collector.
_HANDLERS: Final[Mapping[str, Callable[[AnthropicTranslator, _Event], bytes]]] = {
    "content_block_delta": AnthropicTranslator._delta,
    "message_start": AnthropicTranslator._start,
    "content_block_start": AnthropicTranslator._block_start,
    "content_block_stop": AnthropicTranslator._block_stop,
    "message_delta": AnthropicTranslator._message_delta,
    "message_stop": lambda translator, _: translator._stop(),
    "ping": lambda translator, _: PING if translator._meaning else b"",
    "error": AnthropicTranslator._error,
}


def _object(value: Any) -> _Event:
    return value if isinstance(value, dict) else {}
