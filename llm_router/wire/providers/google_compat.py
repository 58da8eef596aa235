"""Repairs for Google's OpenAI-compatible endpoint: what it refuses in requests, and how it numbers tool calls.

Everything else passes as it is. Its errors come as one-element arrays, which the reading of errors and the gate know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_router.accounting.pricing import ModelInfo
from llm_router.wire.chat import ChatRequest, dump
from llm_router.wire.error_objects import bare_error_event
from llm_router.wire.loose import load_json
from llm_router.wire.providers.chunks import call_id
from llm_router.wire.providers.fields import effort, objects
from llm_router.wire.providers.google_models import DUMMY_SIGNATURE, compat_effort, gemini_traits
from llm_router.wire.providers.reasoning import google_signatures, is_thinking
from llm_router.wire.providers.tools import functions
from llm_router.wire.sse import EventSplitter, data_event, iter_events, raw_events, unfinished_event
from llm_router.wire.usage import Usage

# Any other is answered with 400 "Unknown name ...: Cannot find field": OpenAI's newest, and those of other hosts.
_TAKEN_FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
     "presence_penalty", "frequency_penalty", "seed", "stop", "n", "logprobs", "top_logprobs", "logit_bias", "user",
     "service_tier", "modalities", "audio", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
     "response_format", "extra_body"}
)  # fmt: skip
_SAMPLING_FIELDS = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})
_MESSAGE_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id")
_CALL_FIELDS = ("id", "type", "function", "extra_content")
_PART_FIELDS = frozenset({"type", "text", "image_url", "input_audio", "file"})
_TOOL_FIELDS = ("name", "description", "parameters")


def compat_body(chat: ChatRequest, model: str, info: ModelInfo | None = None) -> dict[str, Any]:
    """The fields of the client's request that Google takes, with thought signatures where it wants them."""
    taken = _TAKEN_FIELDS if info is None or info.sampling else _TAKEN_FIELDS - _SAMPLING_FIELDS
    body = {name: value for name, value in chat.body.items() if name in taken}
    body["model"] = model
    body["messages"] = compat_messages(chat.messages, model)
    if chat.tools:
        _offer_functions(body, functions(chat))
    if "max_completion_tokens" in body:
        named = body.pop("max_completion_tokens")
        body["max_tokens"] = body.get("max_tokens") if named is None else named
    level = compat_effort(effort(chat.body), gemini_traits(model))
    if level is not None:
        body["reasoning_effort"] = level
    return body


def _offer_functions(body: dict[str, Any], offered: Sequence[Mapping[str, Any]]) -> None:
    """Functions alone: the endpoint has no other tools, and an empty list of them is refused as well."""
    if offered:
        body["tools"] = [
            {"type": "function", "function": {name: tool[name] for name in _TOOL_FIELDS if tool.get(name)}}
            for tool in offered
        ]
        return
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        body.pop(name, None)


def compat_messages(messages: Sequence[Mapping[str, Any]], model: str) -> list[dict[str, Any]]:
    """Messages with the known fields alone; the first call of each step has a signature where the model wants one."""
    signed = gemini_traits(model).signatures
    made = []
    for message in messages:
        clean = {name: message[name] for name in _MESSAGE_FIELDS if name in message}
        if clean.get("role") == "developer":
            clean["role"] = "system"
        if isinstance(clean.get("content"), list):
            said = [part for part in clean["content"] if not (isinstance(part, dict) and is_thinking(part))]
            clean["content"] = [_part(part) for part in said] or ""
        if isinstance(clean.get("tool_calls"), list):
            clean["tool_calls"] = _calls(message, signed=signed)
        made.append(clean)
    return made


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    return {name: value for name, value in part.items() if name in _PART_FIELDS}


def _calls(message: Mapping[str, Any], *, signed: bool) -> list[Any]:
    known = google_signatures(message)
    calls: list[Any] = []
    for call in message["tool_calls"]:
        if not isinstance(call, dict):
            continue
        clean = {name: call[name] for name in _CALL_FIELDS if name in call}
        signature = known.get(str(call.get("id")))
        if signature is None and not calls and signed:
            signature = next(iter(known.values()), DUMMY_SIGNATURE)
        if signature is not None:
            clean["extra_content"] = {"google": {"thought_signature": signature}}
        calls.append(clean)
    return calls


class GoogleCompatTranslator:
    """Numbers the tool calls of a stream; every event that is right already passes byte for byte.

    Google sends parallel calls all with index 0, or without any index, sometimes without an id, and may end them with
    `stop`.
    """

    __slots__ = ("_seen", "_splitter", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None  # always None: the bytes are OpenAI's own shape and tell it themselves
        self._splitter = EventSplitter()
        self._seen: dict[str, _Begun] = {}  # by choice

    def __repr__(self) -> str:
        return f"<GoogleCompatTranslator choices={len(self._seen)}>"

    def feed(self, data: bytes) -> bytes:
        """Takes bytes as they were read, gives whole events."""
        return self._repair(self._splitter.feed(data))

    def close(self) -> bytes:
        """The upstream ended: gives an event that lacks its blank line alone; half an event is dropped."""
        rest = self._splitter.rest()
        return self._repair(unfinished_event(rest)) or bare_error_event(rest)

    def _repair(self, whole: bytes) -> bytes:
        if not self._concerns(whole):
            return whole
        return b"".join(self._event(raw) for raw in raw_events(whole))

    def _concerns(self, events: bytes) -> bool:
        return b'"tool_calls"' in events or (bool(self._seen) and b'"stop"' in events)

    def _event(self, raw: bytes) -> bytes:
        if not self._concerns(raw):
            return raw
        for event in iter_events(raw):
            chunk = load_json(event.data or b"")
            if isinstance(chunk, dict) and self._mend(chunk):
                return data_event(dump(chunk))
        return raw

    def _mend(self, chunk: dict[str, Any]) -> bool:
        changed, answer = False, str(chunk.get("id"))
        for choice in objects(chunk.get("choices")):
            place, delta = str(choice.get("index")), choice.get("delta")
            for call in objects(delta.get("tool_calls")) if isinstance(delta, dict) else ():
                begun = self._seen.get(place) or self._seen.setdefault(place, _Begun())
                changed = _number(call, begun, answer) or changed
            if place in self._seen and self._seen[place].count and choice.get("finish_reason") == "stop":
                choice["finish_reason"], changed = "tool_calls", True
        return changed


def mended_completion(answer: Any) -> bytes | None:
    """A whole answer with the same repairs, made in place; None if it needed none."""
    if not isinstance(answer, dict):
        return None
    changed, id = False, str(answer.get("id"))
    for choice in objects(answer.get("choices")):
        message = choice.get("message")
        calls = objects(message.get("tool_calls")) if isinstance(message, dict) else []
        for index, call in enumerate(calls):
            if not call.get("id"):
                call["id"], changed = call_id(id, index), True
        if calls and choice.get("finish_reason") == "stop":
            choice["finish_reason"], changed = "tool_calls", True
    return dump(answer) if changed else None


@dataclass(slots=True)
class _Begun:
    """The tool calls of one choice that began: their number, and where they stand, by id and by Google's index."""

    count: int = 0
    by_id: dict[str, int] = field(default_factory=dict)
    newest: dict[Any, int] = field(default_factory=dict)

    def begin(self, id: str, asked: Any) -> None:
        """One more."""
        self.by_id.setdefault(id, self.count)
        self.newest[asked] = self.count
        self.count += 1


def _number(call: dict[str, Any], begun: _Begun, answer: str) -> bool:
    """Sets index (and id, where it is missing) of one call or fragment; True if that changed anything."""
    asked, function = call.get("index"), call.get("function")
    given = call.get("id")
    given = given if isinstance(given, str) else ""
    place = asked if isinstance(asked, int) else None
    changed = False
    known = begun.by_id.get(given)
    if known is not None:
        index = known
    elif given or (isinstance(function, dict) and function.get("name")):
        index = begun.count
        if not given:
            given, changed = call_id(answer, index), True
            call["id"] = given
        begun.begin(given, place)
    elif not begun.count:
        return False
    else:
        # A fragment belongs to the newest of the calls that came with its number, or else to the newest of all.
        index = begun.newest.get(place, begun.count - 1)
    if asked != index:
        call["index"], changed = index, True
    return changed
