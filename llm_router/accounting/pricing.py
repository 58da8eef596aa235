"""The price table: what a model costs and what it can do, by full id `provider/model`. USD per million tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens; None means unknown, which is never the same as 0."""

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One row of the price table. Capabilities that the table does not know are None and count as able.

    `above` replaces `prices` for the whole request once its prompt passes `above_threshold` tokens. `encoding` is
    the tiktoken encoding for counts; `native_encoding` says whether it is the model's own.
    """

    prices: Prices = Prices()
    above_threshold: int | None = None
    above: Prices | None = None
    context: int | None = None
    max_output: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    json_schema: bool | None = None
    reasoning: bool | None = None
    sampling: bool = True
    thinking_always_on: bool = False
    forced_tool_choice: bool = True
    prefill: bool = True
    adaptive_thinking: bool | None = None
    effort_none: bool | None = None
    encoding: str = "o200k_base"
    native_encoding: bool = False


Overrides = Mapping[str, Mapping[str, object]]
