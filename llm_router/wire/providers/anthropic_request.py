"""An OpenAI-shaped chat request as a body for Anthropic's `/v1/messages`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_router.wire.chat import ChatRequest
from llm_router.wire.providers.anthropic_cache import mark_stable_prefix
from llm_router.wire.providers.anthropic_content import blocks, messages, unfit
from llm_router.wire.providers.anthropic_models import Traits
from llm_router.wire.providers.base import Misfit
from llm_router.wire.providers.fields import (
    Effort,
    common_misfit,
    effort,
    number,
    response_schema,
    response_type,
    stops,
    whole,
)
from llm_router.wire.providers.history import Conversation, read_conversation
from llm_router.wire.providers.parts import content_misfit
from llm_router.wire.providers.schemas import object_schema, strict_schema
from llm_router.wire.providers.tools import Choice, offered_functions, tool_choice

# Offered to models without a schema of their own for the answer; its arguments are the answer.
JSON_TOOL = "json_answer"
_JSON_INSTRUCTION = "Answer with one valid JSON object and nothing else: no explanation, no code fence."
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
_SMALLEST_BUDGET = 1024
_EFFORTS = {"minimal": "low"}
_USER_ID_LENGTH = 256


def misfit(chat: ChatRequest) -> Misfit | None:
    """What of this request Claude cannot take at all."""
    return common_misfit(chat, "Claude") or content_misfit(chat, unfit)


def uses_json_tool(chat: ChatRequest, traits: Traits) -> bool:
    """Whether the answer's schema is asked for through a forced tool, whose arguments then are the answer."""
    return not traits.native_schema and response_schema(chat.body) is not None


def request_body(chat: ChatRequest, model: str, traits: Traits, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body. `options` are the provider's settings (`cache`)."""
    conversation = read_conversation(chat.messages)
    limit = traits.output_limit(chat.output_limit, chat.stream)
    body: dict[str, Any] = {"model": model, "max_tokens": limit}
    thinking = _thinking(chat, traits, conversation, limit)
    body |= thinking
    thinks = traits.always_thinks or body.get("thinking", {}).get("type") in ("adaptive", "enabled")
    system = blocks(conversation.system)
    if response_type(chat.body) == "json_object":
        system.append({"type": "text", "text": _JSON_INSTRUCTION})
    if system:
        body["system"] = system
    body["messages"] = messages(conversation, thinking=thinks, prefill=traits.prefill)
    body |= _tools(chat, traits, conversation, thinks=thinks)
    body |= _sampling(chat, traits, thinks=thinks)
    body |= _schema(chat, traits, body.get("output_config"))
    body |= _rest(chat)
    mark_stable_prefix(body, options.get("cache"))
    return body


def _thinking(chat: ChatRequest, traits: Traits, conversation: Conversation, limit: int) -> dict[str, Any]:
    wanted = effort(chat.body)
    if wanted is None or not traits.thinking:
        return {}
    if traits.adaptive:
        return _adaptive(wanted, traits)
    if wanted.level == "none" or uses_json_tool(chat, traits) or _unsigned_loop(conversation):
        # A forced tool and a tool loop whose signed thinking is lost are refused while thinking is on.
        return {}
    budget = wanted.tokens if wanted.tokens is not None else _BUDGETS.get(wanted.level, _BUDGETS["medium"])
    budget = min(max(budget, _SMALLEST_BUDGET), limit - 1)
    return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget >= _SMALLEST_BUDGET else {}


def _adaptive(wanted: Effort, traits: Traits) -> dict[str, Any]:
    if wanted.level == "none":
        return {"output_config": {"effort": "low"}} if traits.always_thinks else {"thinking": {"type": "disabled"}}
    made: dict[str, Any] = {"thinking": {"type": "adaptive"}}
    if not traits.sampling:
        # The models that refuse sampling are also the ones that leave their thinking out unless asked.
        made["thinking"]["display"] = "summarized"
    if wanted.tokens is None:
        level = _EFFORTS.get(wanted.level, wanted.level)
        if level == "xhigh" and traits.sampling:
            level = "high"
        made["output_config"] = {"effort": level}
    return made


def _unsigned_loop(conversation: Conversation) -> bool:
    """Whether a running tool loop has a call whose thinking did not come back."""
    loop = conversation.turns[conversation.loop_start :]
    return any(turn.calls and not turn.thinking for turn in loop)


def _tools(chat: ChatRequest, traits: Traits, conversation: Conversation, *, thinks: bool) -> dict[str, Any]:
    choice = tool_choice(chat.body)
    tools = [_tool(tool, traits) for tool in offered_functions(chat, choice)]
    tools += [dict(tool) for tool in chat.tools if isinstance(tool, dict) and _is_server_tool(tool)]
    if uses_json_tool(chat, traits):
        schema = object_schema(response_schema(chat.body))
        tools.append({"name": JSON_TOOL, "description": "Gives the final answer.", "input_schema": schema})
        forced = {"type": "any"} if len(tools) > 1 else {"type": "tool", "name": JSON_TOOL}
        return {"tools": tools, "tool_choice": forced if traits.forced_tool_choice else {"type": "auto"}}
    if not tools:
        # A history with tool calls is refused without the tools; nobody may call them now.
        known = [{"name": name, "input_schema": object_schema(None)} for name in conversation.call_names]
        return {"tools": known, "tool_choice": {"type": "none"}} if known else {}
    made: dict[str, Any] = {"tools": tools}
    converted = _choice(chat, choice, forced=traits.forced_tool_choice and not thinks)
    if converted is not None:
        made["tool_choice"] = converted
    return made


def _tool(tool: Mapping[str, Any], traits: Traits) -> dict[str, Any]:
    strict = tool.get("strict") is True and traits.native_schema
    schema = object_schema(tool.get("parameters"))
    made = {"name": tool["name"], "input_schema": strict_schema(schema) if strict else schema}
    if isinstance(tool.get("description"), str) and tool["description"]:
        made["description"] = tool["description"]
    if strict:
        made["strict"] = True
    if tool.get("cache_control"):
        made["cache_control"] = tool["cache_control"]
    return made


def _is_server_tool(tool: Mapping[str, Any]) -> bool:
    """Whether this is one of Anthropic's own tools (web search, ...), in its own form."""
    return "function" not in tool and isinstance(tool.get("name"), str) and tool.get("type") not in (None, "function")


def _choice(chat: ChatRequest, choice: Choice, *, forced: bool) -> dict[str, Any] | None:
    if choice.mode == "none":
        return {"type": "none"}
    made: dict[str, Any] | None = None
    if choice.mode == "required" and forced:
        made = {"type": "tool", "name": choice.name} if choice.name else {"type": "any"}
    elif choice.mode is not None:
        made = {"type": "auto"}
    if chat.body.get("parallel_tool_calls") is False:
        made = {**(made or {"type": "auto"}), "disable_parallel_tool_use": True}
    return made


def _sampling(chat: ChatRequest, traits: Traits, *, thinks: bool) -> dict[str, Any]:
    if not traits.sampling or thinks:
        return {}
    made: dict[str, Any] = {}
    temperature, top_p = number(chat.body.get("temperature")), number(chat.body.get("top_p"))
    if temperature is not None:
        made["temperature"] = min(max(temperature, 0.0), 1.0)
    elif top_p is not None:
        # Newer models refuse both together, so the temperature goes before.
        made["top_p"] = min(max(top_p, 0.0), 1.0)
    top_k = whole(chat.body.get("top_k"))
    if top_k is not None and top_k > 0:
        made["top_k"] = top_k
    return made


def _schema(chat: ChatRequest, traits: Traits, config: Mapping[str, Any] | None) -> dict[str, Any]:
    schema = response_schema(chat.body)
    if schema is None or not traits.native_schema:
        return {}
    return {"output_config": {**(config or {}), "format": {"type": "json_schema", "schema": strict_schema(schema)}}}


def _rest(chat: ChatRequest) -> dict[str, Any]:
    made: dict[str, Any] = {}
    sequences = stops(chat.body)
    if sequences:
        made["stop_sequences"] = sequences
    user = chat.body.get("user") or chat.body.get("safety_identifier")
    if isinstance(user, str) and user:
        made["metadata"] = {"user_id": user[:_USER_ID_LENGTH]}
    if chat.body.get("service_tier") in ("auto", "standard_only"):
        made["service_tier"] = chat.body["service_tier"]
    if isinstance(chat.body.get("cache_control"), dict):
        made["cache_control"] = chat.body["cache_control"]
    if chat.stream:
        made["stream"] = True
    return made
