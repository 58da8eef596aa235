"""Reported usage in one normal form, whatever the vendor's way of counting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

# No answer has more; such numbers are errors, and must not be billed.
_MOST_TOKENS = 10**9
_MOST_DOLLARS = 10**6

_tuple: Final = tuple.__new__


class Usage(NamedTuple):
    """Tokens of one answer as a provider reported them; the five numbers do not overlap but for reasoning.

    `fresh_input` excludes both cache figures; `output` includes `reasoning`. `cache_write_1h` is the part of
    `cache_write` with a one-hour lifetime. `provider_cost` is in USD, where the provider says what it charged.
    """

    fresh_input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    provider_cost: float | None = None

    @property
    def input(self) -> int:
        """All prompt tokens, cached ones included."""
        return self.fresh_input + self.cache_read + self.cache_write


def token_count(value: Any) -> int:
    """A number of tokens; what cannot be one (negative, absurd, of another type) is 0. Some hosts send `12.0`."""
    kind = type(value)
    if kind is int:
        return value if 0 < value <= _MOST_TOKENS else 0
    return int(value) if kind is float and 0 < value <= _MOST_TOKENS else 0


def from_openai(usage: Mapping[str, Any]) -> Usage:
    """OpenAI's and OpenRouter's `usage` object; cache figures are inside `prompt_tokens` there."""
    prompt = token_count(usage.get("prompt_tokens"))
    output = token_count(usage.get("completion_tokens"))
    read = write = reasoning = 0
    if type(details := usage.get("prompt_tokens_details")) is dict:
        read = min(token_count(details.get("cached_tokens")), prompt)
        write = min(token_count(details.get("cache_write_tokens")), prompt - read)
    if not read and "prompt_cache_hit_tokens" in usage:
        # DeepSeek's name; hits and misses are the prompt.
        read = min(token_count(usage["prompt_cache_hit_tokens"]), prompt - write)
    if type(details := usage.get("completion_tokens_details")) is dict:
        reasoning = token_count(details.get("reasoning_tokens"))
    if (total := usage.get("total_tokens")) != prompt + output:
        hidden = token_count(total) - prompt - output
        if hidden > 0 and not prompt and reasoning != hidden:
            prompt = hidden  # which is not told
        elif hidden > 0 and (not reasoning or reasoning == hidden):
            # Gemini's and xAI's thoughts are in the total alone; they are billed as output all the same.
            output += hidden
            reasoning = hidden
    if reasoning > output:
        reasoning = output
    cost = _provider_cost(usage) if "cost" in usage else None
    # Half the price of calling the class.
    return _tuple(Usage, (prompt - read - write, read, write, output, reasoning, 0, cost))


def _provider_cost(usage: Mapping[str, Any]) -> float | None:
    cost = _dollars(usage.get("cost"))
    if cost is None or not usage.get("is_byok"):
        return cost
    # With a key of one's own OpenRouter's cost is its fee alone; the rest is billed by the upstream.
    details = usage.get("cost_details")
    upstream = _dollars(details.get("upstream_inference_cost")) if type(details) is dict else None
    return None if upstream is None else cost + upstream


def _dollars(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_DOLLARS:
        return None
    return float(value)


def to_openai(usage: Usage) -> dict[str, Any]:
    """The `usage` object that a translated answer carries."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
