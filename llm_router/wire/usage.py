"""Reported usage in one normal form, whatever the vendor's way of counting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
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


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def from_openai(usage: Mapping[str, Any]) -> Usage:
    """OpenAI's and OpenRouter's `usage` object; cache figures are inside `prompt_tokens` there."""
    prompt_details = usage.get("prompt_tokens_details")
    output_details = usage.get("completion_tokens_details")
    prompt_details = prompt_details if isinstance(prompt_details, Mapping) else {}
    output_details = output_details if isinstance(output_details, Mapping) else {}
    prompt = _count(usage.get("prompt_tokens"))
    read = min(_count(prompt_details.get("cached_tokens")), prompt)
    write = min(_count(prompt_details.get("cache_write_tokens")), prompt - read)
    return Usage(
        fresh_input=prompt - read - write,
        cache_read=read,
        cache_write=write,
        output=_count(usage.get("completion_tokens")),
        reasoning=_count(output_details.get("reasoning_tokens")),
        provider_cost=_provider_cost(usage),
    )


def _provider_cost(usage: Mapping[str, Any]) -> float | None:
    cost = usage.get("cost")
    if isinstance(cost, bool) or not isinstance(cost, int | float) or cost < 0:
        return None
    if usage.get("is_byok"):
        # With a key of one's own OpenRouter's cost is its fee alone; the rest is billed by the upstream.
        details = usage.get("cost_details")
        upstream = details.get("upstream_inference_cost") if isinstance(details, Mapping) else None
        if isinstance(upstream, int | float) and not isinstance(upstream, bool):
            return float(cost) + float(upstream)
        return None
    return float(cost)


def to_openai(usage: Usage) -> dict[str, Any]:
    """The `usage` object that a translated answer carries."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
