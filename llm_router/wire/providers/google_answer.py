"""Gemini's answers: parts, usage, finish reasons, whole answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from llm_router.errors import AttemptFailed, Failure, FailureKind
from llm_router.wire.chat import dump
from llm_router.wire.error_objects import nothing_said
from llm_router.wire.providers.base import Completion
from llm_router.wire.providers.chunks import call_id, call_id_of, completion_body, function_call, message
from llm_router.wire.providers.reasoning import google_details
from llm_router.wire.usage import Usage, token_count

_LENGTH = frozenset({"MAX_TOKENS", "CONTINUATION"})
# The model wrote something that is no answer; without anything else there is nothing to pass on.
BROKEN = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
     "MALFORMED_RESPONSE"}
)  # fmt: skip
_FILTERED = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION", "OTHER",
     "MODEL_ARMOR", "NO_IMAGE", "JAILBREAK"}
)  # fmt: skip
Piece = tuple[Literal["text", "reasoning", "call", "image"], Any]


def from_gemini(usage: Mapping[str, Any]) -> Usage:
    """`usageMetadata`: cached tokens are inside the prompt's, thoughts are outside the candidates'."""
    prompt = token_count(usage.get("promptTokenCount")) + token_count(usage.get("toolUsePromptTokenCount"))
    cached = min(token_count(usage.get("cachedContentTokenCount")), prompt)
    thoughts = token_count(usage.get("thoughtsTokenCount"))
    return Usage(
        fresh_input=prompt - cached,
        cache_read=cached,
        output=token_count(usage.get("candidatesTokenCount")) + thoughts,
        reasoning=thoughts,
    )


def finish_reason(reason: str, *, called: bool) -> str:
    """OpenAI's finish reason; Gemini ends tool calls with STOP."""
    if reason in _LENGTH:
        return "length"
    if reason in _FILTERED or reason.startswith("IMAGE_"):
        return "content_filter"
    return "tool_calls" if called else "stop"


def choice_extra(reason: str) -> dict[str, Any]:
    """Google's own word for the finish, where OpenAI's says less."""
    return {} if reason in ("STOP", "MAX_TOKENS") else {"native_finish_reason": reason}


def first_candidate(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one candidate of an answer or chunk; empty where there is none."""
    candidates = answer.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    return first if isinstance(first, dict) else {}


def pieces(candidate: Mapping[str, Any]) -> Iterator[Piece]:
    """What the parts of a candidate say, in order; unknown parts are skipped."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict):
            continue
        text, call, data = part.get("text"), part.get("functionCall"), part.get("inlineData")
        if isinstance(call, dict):
            yield "call", part
        elif isinstance(text, str) and text:
            yield ("reasoning" if part.get("thought") is True else "text"), text
        elif isinstance(data, dict) and isinstance(data.get("data"), str):
            yield "image", {"type": "image_url", "image_url": {"url": _data_uri(data)}}


def _data_uri(data: Mapping[str, Any]) -> str:
    return f"data:{data.get('mimeType') or 'image/png'};base64,{data['data']}"


def read_call(part: Mapping[str, Any], answer: str, index: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A `functionCall` part as a tool call, and the entry of `reasoning_details` that carries its signature."""
    call = part["functionCall"]
    id = call_id_of(call, answer, index)
    made = function_call(id, str(call.get("name") or ""), dump(call.get("args") or {}).decode())
    signature = part.get("thoughtSignature")
    if not isinstance(signature, str) or not signature:
        return made, None
    made["extra_content"] = {"google": {"thought_signature": signature}}
    return made, google_details(signature, id, index)


def block_reason(answer: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why the prompt was blocked, as Google's word and as a sentence; None if it was not."""
    feedback = answer.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    if not isinstance(feedback, dict) or not isinstance(reason, str) or not reason:
        return None
    said = feedback.get("blockReasonMessage")
    return reason, said if isinstance(said, str) and said else f"Google blocked the prompt: {reason}"


def broken_message(reason: str, candidate: Mapping[str, Any]) -> str:
    """The words for an answer that is broken."""
    said = candidate.get("finishMessage")
    return f"{reason}: {said}" if isinstance(said, str) and said else f"the model's answer was broken: {reason}"


def answer_id(answer: Mapping[str, Any], model: str, created: int) -> str:
    """The id of an answer or chunk; one is made where there is none."""
    return str(answer.get("responseId") or f"chatcmpl-{call_id(f'{model}{created}', 0)}")


def completion(answer: Mapping[str, Any], *, model: str, created: int) -> Completion:
    """A whole answer as a completion. Raises AttemptFailed where the answer is broken and holds nothing."""
    id = answer_id(answer, model, created)
    candidate, blocked = first_candidate(answer), block_reason(answer)
    whole = _message(candidate, id, blocked[1] if blocked is not None else None)
    called = "tool_calls" in whole
    given = blocked[0] if blocked is not None else candidate.get("finishReason")
    reason = str(given or "STOP")
    if not (called or whole["content"] or "reasoning_content" in whole or "images" in whole):
        _refuse_silence(reason if given else "", candidate)
    reported = answer.get("usageMetadata")
    usage = from_gemini(reported) if isinstance(reported, dict) else None
    body = completion_body(
        id=id,
        created=created,
        model=str(answer.get("modelVersion") or model),
        message=whole,
        finish="content_filter" if blocked is not None else finish_reason(reason, called=called),
        usage=usage,
        extra=choice_extra(reason),
    )
    return Completion(body, usage)


def _message(candidate: Mapping[str, Any], answer: str, refusal: str | None) -> dict[str, Any]:
    """The assistant message for what a candidate says; `answer` is the answer's id."""
    said: dict[str, list[Any]] = {"text": [], "reasoning": [], "image": []}
    calls: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for kind, value in pieces(candidate):
        if kind != "call":
            said[kind].append(value)
            continue
        call, signed = read_call(value, answer, len(calls))
        calls.append(call)
        details += [signed] if signed is not None else []
    text, reasoning = "".join(said["text"]), "".join(said["reasoning"])
    made = message(text, reasoning=reasoning, calls=calls, details=details, refusal=refusal)
    if said["image"]:
        made["images"] = said["image"]
    return made


def _refuse_silence(reason: str, candidate: Mapping[str, Any]) -> None:
    """Raises AttemptFailed unless `reason` makes an answer without words one."""
    if not reason:
        raise AttemptFailed(nothing_said())
    if reason in BROKEN:
        words = broken_message(reason, candidate)
        raise AttemptFailed(Failure(FailureKind.UPSTREAM_ERROR, words, 200, code=reason.lower()))
