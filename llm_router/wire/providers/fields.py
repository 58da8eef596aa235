"""Top-level fields of a chat request that all translated dialects read alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_router.wire.chat import ChatRequest
from llm_router.wire.providers.base import Misfit

_LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much thinking was asked for: a level, or a budget of tokens where the client named one."""

    level: str
    tokens: int | None = None


def effort(body: Mapping[str, Any]) -> Effort | None:
    """The wish in `reasoning_effort`, OpenRouter's `reasoning` or Anthropic's `thinking`; None if there is none."""
    level = body.get("reasoning_effort")
    if isinstance(level, str) and level in _LEVELS:
        return Effort(level)
    wish = body.get("reasoning")
    return _reasoning(wish) if isinstance(wish, dict) else _thinking(body.get("thinking"))


def asks_to_think(body: Mapping[str, Any]) -> bool:
    """Whether the request wants thinking before the answer, in any of those forms, also at a host's own level."""
    wanted = effort(body)
    if wanted is not None:
        return wanted.level != "none"
    wish = body.get("reasoning")
    level = body.get("reasoning_effort") or (wish.get("effort") if isinstance(wish, dict) else None)
    return isinstance(level, str) and level != ""


def _reasoning(wish: Mapping[str, Any]) -> Effort | None:
    if wish.get("enabled") is False:
        return Effort("none")
    tokens, level = _tokens(wish.get("max_tokens")), wish.get("effort")
    if tokens is not None:
        return Effort("medium", tokens)
    if isinstance(level, str) and level in _LEVELS:
        return Effort(level)
    return Effort("medium") if wish.get("enabled") is True else None


def _thinking(wish: Any) -> Effort | None:
    """In Anthropic's form, which its compatibility endpoint and some other vendors take beside OpenAI's fields."""
    kind = wish.get("type") if isinstance(wish, dict) else None
    if kind == "disabled":
        return Effort("none")
    if kind == "adaptive":
        return Effort("high")  # what these models do unless an effort is named
    if kind != "enabled":
        return None
    return Effort("medium", _tokens(wish.get("budget_tokens")))


def _tokens(value: Any) -> int | None:
    tokens = whole(value)
    return tokens if tokens is not None and tokens > 0 else None


def objects(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list; nothing of anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a body with lone surrogates may hold integers of any length
        return None
    return number if math.isfinite(number) else None


def whole(value: Any) -> int | None:
    """A whole number, else None; true and false are none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def stops(body: Mapping[str, Any]) -> list[str]:
    """The stop sequences, without those that are empty or white space alone (vendors refuse them)."""
    stop = body.get("stop")
    sequences = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    return [one for one in sequences if isinstance(one, str) and one.strip()]


def response_type(body: Mapping[str, Any]) -> Any:
    """What kind of answer was asked for: "json_object", "json_schema", or whatever else a client writes."""
    wanted = body.get("response_format")
    return wanted.get("type") if isinstance(wanted, dict) else None


def response_schema(body: Mapping[str, Any]) -> Any:
    """The JSON schema that the answer must fit, None if none was asked for."""
    if response_type(body) != "json_schema":
        return None
    described = body["response_format"].get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    return schema if isinstance(schema, dict) else None


def common_misfit(chat: ChatRequest, who: str, modalities: frozenset[str] = frozenset({"text"})) -> Misfit | None:
    """What no translated dialect can give: several choices, answers in other `modalities`, tools with free-form
    input, the retired `functions`. `who` is the subject of the reason."""
    # Who chose the model gets the one choice that it has; else another model may give as many as were asked for.
    if chat.is_routed and (whole(chat.body.get("n")) or 1) > 1:
        return Misfit("n", f"{who} gives one choice per request")
    asked = chat.body.get("modalities")
    if isinstance(asked, list) and any(not isinstance(one, str) or one not in modalities for one in asked):
        return Misfit("modalities", f"{who} answers in {' and '.join(sorted(modalities))} alone")
    if chat.body.get("functions"):
        return Misfit("functions", f"{who} takes `tools`, not the retired `functions`")
    for index, tool in enumerate(chat.tools):
        if isinstance(tool, dict) and tool.get("type") == "custom" and "custom" in tool:
            return Misfit(f"tools[{index}]", f"{who} takes no custom tools with free-form input")
    return None
