"""Anthropic's answers: usage, finish reasons, whole messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_router.errors import AttemptFailed
from llm_router.wire.chat import dump
from llm_router.wire.error_objects import nothing_said
from llm_router.wire.providers.anthropic_request import JSON_TOOL
from llm_router.wire.providers.base import Completion
from llm_router.wire.providers.chunks import call_id_of, completion_body, function_call, message
from llm_router.wire.providers.reasoning import pack_thinking
from llm_router.wire.usage import Usage, token_count

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    # The model stopped in the middle of its own tools: there is more to come, so it is no plain stop.
    "pause_turn": "length",
}
_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


def from_anthropic(usage: Mapping[str, Any]) -> Usage:
    """Anthropic's `usage` object; its `input_tokens` exclude both cache figures."""
    split = usage.get("cache_creation")
    details = usage.get("output_tokens_details")
    fresh, read, write, output = (token_count(usage.get(name)) for name in _COUNTS)
    return Usage(
        fresh_input=fresh,
        cache_read=read,
        cache_write=write,
        output=output,
        reasoning=min(token_count(details.get("thinking_tokens")), output) if isinstance(details, Mapping) else 0,
        cache_write_1h=min(token_count(split.get("ephemeral_1h_input_tokens")), write)
        if isinstance(split, Mapping)
        else 0,
    )


def finish_reason(stop_reason: Any, *, called: bool) -> str:
    """OpenAI's finish reason; `called` says whether the answer holds a tool call that the client shall run."""
    finish = _FINISH.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"
    if finish in ("stop", "tool_calls"):
        return "tool_calls" if called else "stop"
    return finish


def refusal_text(details: Any) -> str | None:
    """The explanation in `stop_details`, if there is one."""
    text = details.get("explanation") if isinstance(details, dict) else None
    return text if isinstance(text, str) and text else None


def choice_extra(details: Any) -> dict[str, Any]:
    """Further keys of the choice: `stop_details` as Anthropic sent them."""
    return {"stop_details": details} if details else {}


def arguments_text(given: Any) -> str:
    """The arguments of a tool call that came as an object."""
    return dump(given).decode() if isinstance(given, dict) and given else "{}"


def completion(answer: Mapping[str, Any], *, created: int, json_tool: bool) -> Completion:
    """A whole Anthropic message as an OpenAI-shaped completion. `json_tool`: the answer's text is in its arguments.

    Raises AttemptFailed where it holds nothing and does not say that it has ended.
    """
    text, reasoning, thinking, calls = _said(answer, json_tool=json_tool)
    details, stop_reason = answer.get("stop_details"), answer.get("stop_reason")
    if stop_reason is None and not (calls or text or reasoning):
        raise AttemptFailed(nothing_said())
    reported = answer.get("usage")
    usage = from_anthropic(reported) if isinstance(reported, dict) else None
    body = completion_body(
        id=str(answer.get("id") or ""),
        created=created,
        model=str(answer.get("model") or ""),
        message=message(
            text,
            reasoning=reasoning,
            calls=calls,
            details=pack_thinking(thinking, calls[0]["id"]) if calls else (),
            refusal=refusal_text(details),
        ),
        finish=finish_reason(stop_reason, called=bool(calls)),
        usage=usage,
        extra=choice_extra(details),
    )
    return Completion(body, usage)


class _Said(NamedTuple):
    """What the blocks of a message say: `thinking` are its signed blocks, `calls` are in OpenAI's shape."""

    text: str
    reasoning: str
    thinking: list[Mapping[str, Any]]
    calls: list[dict[str, Any]]


def _said(answer: Mapping[str, Any], *, json_tool: bool) -> _Said:
    text: list[str] = []
    thinking: list[Mapping[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in answer.get("content") or ():
        if not isinstance(block, dict):
            continue
        kind = block.get("type")
        if kind == "text":
            text.append(str(block.get("text") or ""))
        elif kind in ("thinking", "redacted_thinking"):
            thinking.append(block)
        elif kind == "tool_use" and json_tool and block.get("name") == JSON_TOOL:
            text.append(arguments_text(block.get("input")))
        elif kind == "tool_use":
            id = call_id_of(block, str(answer.get("id")), len(calls))
            calls.append(function_call(id, str(block.get("name") or ""), arguments_text(block.get("input"))))
    reasoning = "".join(str(block.get("thinking") or "") for block in thinking)
    return _Said("".join(text), reasoning, thinking, calls)
