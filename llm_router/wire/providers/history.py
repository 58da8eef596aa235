"""Conversations that crossed vendors: OpenAI-shaped messages read into turns that every vendor accepts.

Whatever served the earlier turns, the result alternates between user and assistant, begins with the user, gives
each tool call an id of letters, digits, `_` and `-` that is used once, and answers each call in the very next turn.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from llm_router.wire.loose import load_exactly
from llm_router.wire.providers.parts import content_parts, plain_text, text_of
from llm_router.wire.providers.reasoning import (
    extra_signature,
    google_signatures,
    is_thinking,
    reasoning_text,
    thinking_blocks,
)

Part = Mapping[str, Any]
NO_RESULT = "No result: the call was not completed."
_FILLER: Part = {"type": "text", "text": "."}
_BAD_ID = re.compile(r"[^a-zA-Z0-9_-]")
_NOT_ALNUM = re.compile(r"[^a-zA-Z0-9]")
_ID_LENGTH = 64
_STEM_LENGTH = 56  # of an id that gets a number: it has room for any


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `signature` is Google's thought signature, where the client carried one."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool answered, in content parts. `failed` marks a result that nobody sent."""

    call: Call
    parts: tuple[Part, ...]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn. Results (user) come before its parts, calls (assistant) after them.

    `thinking` are Anthropic's signed blocks, `reasoning` is what the model thought as plain text.
    """

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...] = ()
    calls: tuple[Call, ...] = ()
    results: tuple[Result, ...] = ()
    thinking: tuple[Mapping[str, Any], ...] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """`system` are the text parts of all system and developer messages, in order."""

    system: tuple[Part, ...]
    turns: tuple[Turn, ...]

    @property
    def loop_start(self) -> int:
        """Index of the first turn after the person's last own words: where the current tool loop begins.

        Words right behind a result are none: agents put remarks there, and vendors count them to the loop.
        """
        turns = self.turns
        for index in range(len(turns) - 1, -1, -1):
            if turns[index].role == "user" and not turns[index].results:
                return index + 1
        return 0

    @property
    def call_names(self) -> list[str]:
        """Names of all tools that were called, each once, in order of appearance."""
        return list(dict.fromkeys(call.name for turn in self.turns for call in turn.calls))


def read_conversation(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Reads and repairs a conversation."""
    return _Reader().read(messages)


@dataclass(slots=True)
class _Draft:
    """A turn that may still grow."""

    role: Literal["user", "assistant"]
    parts: list[Part]
    calls: tuple[Call, ...] = ()
    results: tuple[Result, ...] = ()
    thinking: tuple[Mapping[str, Any], ...] = ()
    reasoning: str = ""

    def turn(self) -> Turn:
        return Turn(self.role, tuple(self.parts), self.calls, self.results, self.thinking, self.reasoning)


class _Alike:
    """Calls that a result may be meant for, in order."""

    __slots__ = ("_calls", "_next")

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._next = 0

    def add(self, call: Call) -> None:
        self._calls.append(call)

    def meant(self, answered: Container[str]) -> Call:
        """The first that is not `answered` (by id), or else the first of all."""
        while self._next < len(self._calls) and self._calls[self._next].id in answered:
            self._next += 1
        return self._calls[self._next if self._next < len(self._calls) else 0]


class _Reader:
    """Collects turns; the calls of the last assistant turn stay open until their results are in.

    Agents make thousands of calls, and programs may name them all alike: nothing here looks through what is there.
    """

    def __init__(self) -> None:
        self.system: list[Part] = []
        self.turns: list[_Draft] = []
        # By how a result may name them: the letters and digits of the client's id, the function's name, not at all.
        self.open: defaultdict[tuple[str, str], _Alike] = defaultdict(_Alike)
        self.results: dict[str, Result] = {}  # by our id
        self.words: list[Part] = []  # the person's, for the turn that is being collected
        self.collecting = False
        self.used: set[str] = set()
        self.numbers: dict[str, int] = {}  # the last one that was given, by the stem of the ids

    def read(self, messages: Sequence[Mapping[str, Any]]) -> Conversation:
        for message in messages:
            role = message.get("role")
            if role in ("system", "developer"):
                self.instruct(_message_parts(message))
            elif role == "assistant":
                self.assistant(message)
            elif role in ("tool", "function"):
                self.tool(message)
            else:
                self.collecting = True
                self.words += _message_parts(message)
        self.close_user()
        if not self.turns or self.turns[0].role == "assistant":
            self.turns.insert(0, _Draft("user", [_FILLER]))
        return Conversation(tuple(self.system), tuple(draft.turn() for draft in self.turns))

    def instruct(self, parts: list[Part]) -> None:
        self.system += [part for part in parts if text_of(part) is not None]
        shown = [part for part in parts if text_of(part) is None]
        if shown:
            # System prompts are text alone; what is to be looked at goes to the person's turn.
            self.collecting = True
            self.words += shown

    def assistant(self, message: Mapping[str, Any]) -> None:
        self.close_user()
        parts = [part for part in _message_parts(message) if not is_thinking(part)]
        calls = tuple(self.read_calls(message))
        if not parts and not calls:
            return
        turn = self.last("assistant")
        if turn is None:
            turn = _Draft("assistant", [])
            self.turns.append(turn)
        turn.parts += parts
        turn.calls = calls
        turn.thinking = tuple(thinking_blocks(message)) if calls else ()
        turn.reasoning = turn.reasoning or reasoning_text(message)

    def last(self, role: Literal["user", "assistant"]) -> _Draft | None:
        """The last turn, if it is of that role."""
        return self.turns[-1] if self.turns and self.turns[-1].role == role else None

    def read_calls(self, message: Mapping[str, Any]) -> list[Call]:
        signatures = google_signatures(message)
        calls: list[Call] = []
        for raw in _raw_calls(message):
            function = raw.get("function")
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(function, dict) or not isinstance(name, str) or not name:
                continue
            given = raw.get("id")
            given = given if isinstance(given, str) else ""
            signature = signatures.get(given) or extra_signature(raw)
            call = Call(self.fresh_id(given or name), name, read_arguments(function.get("arguments")), signature)
            calls.append(call)
            for key in (("id", _bare(given)), ("name", name), ("any", "")):
                self.open[key].add(call)
        if calls and signatures and not any(call.signature for call in calls):
            # The client rewrote the ids of its calls; the first call of a step is the one that has a signature.
            calls[0] = replace(calls[0], signature=next(iter(signatures.values())))
        return calls

    def fresh_id(self, given: str) -> str:
        fresh = _BAD_ID.sub("_", given)[:_ID_LENGTH] or "call"
        stem = fresh[:_STEM_LENGTH]
        while fresh in self.used:
            self.numbers[stem] = number = self.numbers.get(stem, 1) + 1
            fresh = f"{stem}_{number}"
        self.used.add(fresh)
        return fresh

    def tool(self, message: Mapping[str, Any]) -> None:
        self.collecting = True
        parts = tuple(_message_parts(message))
        call = self.called(message)
        if call is None:
            # Nothing asked for this result (its call was cut from the history): it is kept as words.
            self.words += [{"type": "text", "text": "Result of an earlier tool call:"}, *parts] if parts else []
            return
        self.results[call.id] = Result(call, parts)

    def called(self, message: Mapping[str, Any]) -> Call | None:
        wanted, name = message.get("tool_call_id"), message.get("name")
        if isinstance(wanted, str) and wanted:
            # Clients may rewrite an id on one side only, so what is no letter or digit does not count.
            key = ("id", _bare(wanted))
        else:
            key = ("any", "") if name is None else ("name", str(name))
        alike = self.open.get(key)
        return alike.meant(self.results) if alike is not None else None

    def close_user(self) -> None:
        """Ends the user turn that is being collected, with a result for every call of the turn before."""
        calls = self.turns[-1].calls if self.turns else ()
        results = tuple(self.results.get(call.id) or _no_result(call) for call in calls)
        last = self.last("user")
        if last is not None:
            last.parts += self.words
        elif self.collecting or results:
            words = self.words or ([] if results else [_FILLER])
            self.turns.append(_Draft("user", list(words), results=results))
        self.open.clear()
        self.results.clear()
        self.words.clear()
        self.collecting = False


def _bare(id: str) -> str:
    return _NOT_ALNUM.sub("", id)


def _no_result(call: Call) -> Result:
    return Result(call, ({"type": "text", "text": NO_RESULT},), failed=True)


def _message_parts(message: Mapping[str, Any]) -> list[Part]:
    parts = content_parts(message.get("content"))
    mark = message.get("cache_control")
    if mark and parts:
        parts[-1] = {**parts[-1], "cache_control": mark}
    if not parts and isinstance(refusal := message.get("refusal"), str):
        parts = content_parts(refusal)
    return parts


def _raw_calls(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        return [call for call in calls if isinstance(call, dict)]
    legacy = message.get("function_call")
    return [{"function": legacy}] if isinstance(legacy, dict) else []


def read_arguments(arguments: Any) -> Mapping[str, Any]:
    """Tool arguments as an object; what is no JSON object is kept as text under `_raw`."""
    if isinstance(arguments, dict):
        return arguments
    if not isinstance(arguments, str) or not arguments.strip():
        return {}
    try:
        value = load_exactly(arguments)
    except orjson.JSONDecodeError:
        return {"_raw": arguments}
    return value if isinstance(value, dict) else {"_raw": arguments}


def result_text(result: Result) -> str:
    """The words of a tool's answer; never empty."""
    return plain_text(result.parts) or "(no output)"
