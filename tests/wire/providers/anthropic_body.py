"""The bodies that Anthropic is sent, judged by the types of its own client; models that differ, and a tool loop."""

from __future__ import annotations

from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsBase, MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from llm_router.accounting.pricing import ModelInfo
from tests.wire.providers.dialects import make_chat, make_target, sent

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
JUDGE: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
OPUS_5 = ModelInfo(
    max_output=128_000, sampling=False, adaptive_thinking=True, prefill=False, reasoning=True, context=1_000_000
)
OPUS_5_5 = ModelInfo(
    max_output=128_000, sampling=False, adaptive_thinking=True, prefill=False, reasoning=True,
    thinking_always_on=True, forced_tool_choice=False,
)  # fmt: skip
OPUS_4_6 = ModelInfo(max_output=128_000, adaptive_thinking=True, prefill=False, reasoning=True)
SONNET_4_5 = ModelInfo(max_output=64_000, reasoning=True)
OPUS_3 = ModelInfo(max_output=4096, reasoning=False)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
WANTS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
MARK = {"type": "ephemeral"}


def body(
    *messages: Any,
    info: ModelInfo | None = SONNET_4_5,
    model: str = "claude-sonnet-4-5",
    option: Any = None,
    **fields: Any,
) -> dict[str, Any]:
    """The body sent for a chat, accepted by the types of Anthropic's own client."""
    options = {} if option is None else {"cache": option}
    made = sent("anthropic", make_chat(*messages, **fields), make_target("anthropic", model, info=info, **options))
    judge(made)
    return made


def judge(made: dict[str, Any]) -> None:
    """Anthropic's own client knows every field, and every value has a type that it allows."""
    mine = {name: value for name, value in made.items() if name not in (*SAMPLING, "stream")}
    assert mine.keys() <= MessageCreateParamsBase.__annotations__.keys()
    _consume(JUDGE.validate_python(mine))


def _consume(value: Any) -> None:
    """Iterables are checked by pydantic only while they are read."""
    if isinstance(value, dict):
        for one in value.values():
            _consume(one)
    elif hasattr(value, "__iter__") and not isinstance(value, str | bytes):
        for one in value:
            _consume(one)


# The client package speaks the newer version of the API, which has no sampling fields; ours does.
SAMPLING = ("temperature", "top_p", "top_k")


def tool_turns() -> list[dict[str, Any]]:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    return [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call.a", **call}, {"id": "call|b", **call}]},
        {"role": "tool", "tool_call_id": "call|b", "content": "rain"},
        {"role": "tool", "tool_call_id": "call.a", "content": [{"type": "text", "text": "sun"}]},
        {"role": "user", "content": "So?"},
    ]
