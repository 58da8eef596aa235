"""The file's own prices and capabilities of models, checked; the price table applies them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llm_router.config import fields
from llm_router.config.categories import ModelIds
from llm_router.config.fields import KeyProblem, join

_PRICES = ("input", "output", "cached_input", "cache_write", "cache_write_1h")
_SIZES = ("context", "max_output")
_FLAGS = (
    "tools", "vision", "json_schema", "reasoning", "sampling", "thinking_always_on", "forced_tool_choice", "prefill",
    "adaptive_thinking", "effort_none", "tiktoken_native",
)  # fmt: skip
_KNOWN = (*_PRICES, *_SIZES, *_FLAGS, "above", "tiktoken", "deprecated")
_ENCODINGS = ("o200k_base", "cl100k_base")
# Beyond every market; sums of larger ones could not be written down any more.
_MOST_USD = 1e9


def read_prices(content: Mapping[str, Any], ids: ModelIds) -> dict[str, dict[str, Any]]:
    """Overrides by full model id, with the price table's own field names; prices are USD per million tokens."""
    result = {}
    for model, value in fields.section(content, "prices").items():
        place = join("prices", model)
        row = fields.obj(value, place)
        fields.only(row, place, _KNOWN)
        result[ids.full(model, place)] = {key: _field(key, item, join(place, key)) for key, item in row.items()}
    return result


def _field(key: str, value: Any, path: str) -> Any:
    if key in _FLAGS:
        return None if value is None else fields.boolean(value, path)
    if key in _SIZES:
        return None if value is None else fields.integer(value, path, minimum=1)
    if key == "above":
        return None if value is None else _above(value, path)
    if key == "tiktoken":
        return fields.choice(value, path, _ENCODINGS)
    if key == "deprecated":
        return None if value is None else _day(value, path)
    return _price(value, path)


def _day(value: Any, path: str) -> str:
    word = fields.text(value, path)
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", word):
        raise KeyProblem(path, f"must be a day such as 2027-04-01, not {fields.shown(word)}")
    return word


def _price(value: Any, path: str) -> float | None:
    """USD per million tokens; null says unknown, which is not the same as 0."""
    return None if value is None else fields.number(value, path, maximum=_MOST_USD)


def _above(value: Any, path: str) -> dict[str, Any]:
    tier = fields.obj(value, path)
    fields.only(tier, path, ("threshold", *_PRICES))
    if "threshold" not in tier:
        raise KeyProblem(join(path, "threshold"), "is missing; write the prompt tokens above which these prices hold")
    result: dict[str, Any] = {"threshold": fields.integer(tier["threshold"], join(path, "threshold"), minimum=1)}
    for key in _PRICES:
        if key in tier:
            result[key] = _price(tier[key], join(path, key))
    return result
