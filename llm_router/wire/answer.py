"""Reading a whole answer after it was sent: its text for counting, its finish, the usage it reported.

Input are OpenAI-shaped bytes, as they went to the client; anything that is not as expected is skipped.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from llm_router.wire.loose import load_json
from llm_router.wire.runs import Run, find_run
from llm_router.wire.sse import DONE, iter_events
from llm_router.wire.usage import Usage, from_openai

# One call of the JSON parser holds the interpreter lock; so much at a time takes about a millisecond.
_PARSE_BYTES = 256 * 1024
_HUGE_BYTES = 2 * 1024 * 1024
_USAGE_BYTES = 8_192
_TAIL_BLOCKS = 8
_MAX_CHOICES = 128
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{512,}")
# One object, with objects of its own at most, as a report of usage is.
_OBJECT = re.compile(rb"\s*\{(?:[^{}]|\{[^{}]*\})*\}")
_COMMENTS = re.compile(rb"(?:\A|(?<=\n\n))(?::[^\r\n]*\n+)+")


@dataclass(slots=True)
class Answer:
    """What an answer said. Texts of several choices follow one another; `finish_reasons` is by choice index.

    `usage` is the last one that was reported, `model` the provider's own name for itself. `images` and `audio` say
    that there was output which no tokenizer can count; `broken_events` is how many events could not be read.
    """

    text: str = ""
    reasoning: str = ""
    tool_text: str = ""
    finish_reasons: dict[int, str] = field(default_factory=dict)
    usage: Usage | None = None
    model: str | None = None
    images: bool = False
    audio: bool = False
    broken_events: int = 0


class _Reader:
    """Collects an answer from its events."""

    __slots__ = ("answer", "reasoning", "texts", "tools", "usage")

    def __init__(self) -> None:
        self.answer = Answer()
        self.texts: dict[int, list[str]] = {}
        self.reasoning: list[str] = []
        self.tools: list[str] = []
        self.usage: dict[str, Any] | None = None

    def event(self, event: Any) -> None:
        """Takes one chunk of a stream or one whole completion."""
        if type(event) is not dict:
            self.answer.broken_events += 1
            return
        self._note_model(event)
        if usage := event.get("usage"):
            self._note_usage(usage)
        elif type(groq := event.get("x_groq")) is dict:
            # Where Groq's streams have it.
            self._note_usage(groq.get("usage"))
        choices = event.get("choices")
        if type(choices) is list:
            for choice in choices:
                if type(choice) is dict:
                    self._choice(choice)

    def run(self, run: Run) -> None:
        """Takes many events at once."""
        self._note_model(run.event)
        self._content(0, run.text)

    def _note_model(self, event: dict[str, Any]) -> None:
        if self.answer.model is None and type(model := event.get("model")) is str:
            self.answer.model = model

    def json(self, data: bytes) -> None:
        """Takes the JSON of one event."""
        if len(data) > _HUGE_BYTES:
            self._huge(data)
            return
        self.event(load_json(data))

    def _huge(self, data: bytes) -> None:
        """An event too large to parse in one go (an image, or malice): its last usage, and its bytes for a text."""
        self.look_for_usage(data)
        self.answer.images = True
        self._content(0, _BASE64.sub(b"", data).decode("utf-8", "replace"))

    def look_for_usage(self, data: bytes) -> None:
        """Takes the last report of usage out of JSON that is not parsed as a whole."""
        start = data.rfind(b'"usage":')
        if start >= 0 and (found := _OBJECT.match(data[start + 8 : start + _USAGE_BYTES])):
            with contextlib.suppress(orjson.JSONDecodeError):
                self._note_usage(orjson.loads(found[0]))

    def _choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index", 0)
        if type(index) is not int or not 0 <= index < _MAX_CHOICES:
            index = 0
        delta = choice.get("delta") or choice.get("message")
        if type(delta) is dict:
            self._delta(index, delta)
        finish = choice.get("finish_reason")
        if finish and type(finish) is str:
            self.answer.finish_reasons[index] = finish
        if usage := choice.get("usage"):
            self._note_usage(usage)

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if not value or name == "role":
                continue
            if name == "content" or name == "refusal":
                self._content(index, value)
            elif name == "tool_calls":
                self._tool_calls(value)
            elif name == "reasoning_content" or name == "reasoning" or name == "reasoning_text":
                self._reasoning(delta, name, value)
            elif name == "function_call":
                self._function(value)
            elif name == "images":
                self.answer.images = True
            elif name == "audio":
                self.answer.audio = True

    def _content(self, index: int, value: Any) -> None:
        texts = self.texts.get(index)
        if texts is None:
            texts = self.texts[index] = []
        if type(value) is str:
            texts.append(value)
        elif type(value) is list:
            for part in value:
                if type(part) is not dict:
                    continue
                if type(text := part.get("text")) is str:
                    texts.append(text)
                elif type(thoughts := part.get("thinking")) is list:
                    # Where Mistral's models think.
                    self.reasoning += [one["text"] for one in thoughts if _is_text(one)]
                elif part.get("type") in ("image", "image_url", "output_image"):
                    self.answer.images = True

    def _reasoning(self, delta: dict[str, Any], name: str, value: Any) -> None:
        # Some hosts send the same thought under two names.
        if type(value) is str and (name == "reasoning_content" or delta.get("reasoning_content") != value):
            self.reasoning.append(value)

    def _tool_calls(self, calls: Any) -> None:
        if type(calls) is list:
            for call in calls:
                if type(call) is dict:
                    self._function(call.get("function") or call.get("custom"))

    def _function(self, function: Any) -> None:
        if type(function) is dict:
            for name in ("name", "arguments", "input"):
                value = function.get(name)
                if value and type(value) is str:
                    self.tools.append(value)

    def _note_usage(self, usage: Any) -> None:
        if type(usage) is dict:
            self.usage = usage

    def finish(self) -> Answer:
        """The answer as far as it was read."""
        answer = self.answer
        texts = self.texts
        if texts:
            answer.text = "".join(texts[0] if len(texts) == 1 and 0 in texts else _in_order(texts))
        if self.reasoning:
            answer.reasoning = "".join(self.reasoning)
        if self.tools:
            answer.tool_text = "".join(self.tools)
        if self.usage is not None:
            answer.usage = from_openai(self.usage)
        return answer


def _is_text(part: Any) -> bool:
    return type(part) is dict and type(part.get("text")) is str


def _in_order(texts: dict[int, list[str]]) -> Iterator[str]:
    for index in sorted(texts):
        yield from texts[index]


def read_completion(body: bytes) -> Answer:
    """Reads a non-streamed answer."""
    try:
        completion = orjson.loads(body) if len(body) <= _HUGE_BYTES else None
    except orjson.JSONDecodeError:
        completion = None
    if type(completion) is dict and (plain := _plain_answer(completion)) is not None:
        return plain
    reader = _Reader()
    if type(completion) is dict:
        reader.event(completion)
    else:
        reader.json(body)
        if reader.answer.broken_events:
            # Of a long answer perhaps only the ends were kept.
            reader.look_for_usage(body)
    return reader.finish()


def _plain_answer(completion: dict[str, Any]) -> Answer | None:
    """What nearly all completions are: one choice with a text and nothing beside it. None for any other."""
    try:
        (choice,) = completion["choices"]
        message = choice["message"]
        text, finish, model, usage = (
            message["content"],
            choice["finish_reason"],
            completion["model"],
            completion["usage"],
        )
        for name, value in message.items():
            if value and name != "content" and name != "role":
                return None
        odd = choice.get("index") or choice.get("usage") or choice.get("delta")
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    if odd or type(text) is not str or type(finish) is not str or type(model) is not str or type(usage) is not dict:
        return None
    if not (finish and usage):
        return None
    return Answer(text, "", "", {0: finish}, from_openai(usage), model)


def read_stream(blocks: Sequence[bytes]) -> Answer:
    """Reads a streamed answer from its blocks, each of which holds whole events."""
    reader = _Reader()
    for piece in _pieces(blocks):
        # A pattern holds the interpreter while it runs, so one event of megabytes is not searched.
        run = find_run(piece) if len(piece) <= _HUGE_BYTES else None
        if run is None:
            _read_piece(piece, reader)
        else:
            _read_piece(piece[: run.start], reader)
            reader.run(run)
            _read_piece(piece[run.end :], reader)
    return reader.finish()


def read_tail(blocks: Sequence[bytes]) -> Answer:
    """Reads only the last few blocks of a stream: enough for the usage and the finish, without the text."""
    return read_stream(blocks[-_TAIL_BLOCKS:])


def _pieces(blocks: Sequence[bytes]) -> Iterator[bytes]:
    """The blocks, joined into few pieces of bounded size."""
    if sum(map(len, blocks)) < _PARSE_BYTES:
        yield b"".join(blocks)
        return
    start = size = 0
    for index, block in enumerate(blocks):
        size += len(block)
        if size >= _PARSE_BYTES:
            yield b"".join(blocks[start : index + 1])
            start, size = index + 1, 0
    if size:
        yield b"".join(blocks[start:])


def _read_piece(piece: bytes, reader: _Reader) -> None:
    if not piece:
        return
    events = _load_plain(piece)
    if events is None:
        _read_slowly(piece, reader)
        return
    for event in events:
        reader.event(event)


def _load_plain(piece: bytes) -> list[Any] | None:
    """All events of a piece by one parse, if it is nothing but single `data: ` lines of JSON; else None.

    A blank line cannot stand inside a JSON string, so an event's end is a comma between two elements.
    """
    if len(piece) > _HUGE_BYTES:
        return None
    # `in` would take twice as long.
    if piece.find(b"\n:") >= 0 or piece.startswith(b":"):
        piece = _COMMENTS.sub(b"", piece)
    if not piece.startswith(b"data: {"):
        return None
    end = len(piece) - 2 if piece.endswith(b"\n\n") else len(piece)
    if piece.endswith(b"\n\ndata: [DONE]", 0, end):
        end -= 14
    try:
        events: list[Any] = orjson.loads(b"[" + piece[6:end].replace(b"\n\ndata: ", b",") + b"]")
    except orjson.JSONDecodeError:
        return None
    return events


def _read_slowly(piece: bytes, reader: _Reader) -> None:
    for event in iter_events(piece):
        data = event.data
        if data and not data.startswith(DONE):
            reader.json(data)
