"""The price table: what a model costs and what it can do, by full id `provider/model`. USD per million tokens."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson

from llm_router.wire.usage import Usage


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
    the tiktoken encoding for counts. `deprecated` is the day (YYYY-MM-DD) on which the vendor retires the model.
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
    encoding: str = "o200k_base"
    deprecated: str | None = None


Overrides = Mapping[str, Mapping[str, object]]

_FREE = Prices(input=0.0, output=0.0)
_PRICE_NAMES = tuple(item.name for item in fields(Prices))
_COUNT_NAMES = ("context", "max_output")
_FLAG_NAMES = (
    "tools",
    "vision",
    "json_schema",
    "reasoning",
    "sampling",
    "thinking_always_on",
    "forced_tool_choice",
    "prefill",
    "adaptive_thinking",
)
_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)\Z")
# Variants that OpenRouter sells at (about) the price of the model itself.
_SAME_PRICE = frozenset({"nitro", "floor", "online", "exacto"})
# OpenAI's models of the older tokenizer, by tiktoken's own table: snapshots and sizes of them have no row.
_OLDER_ENCODING = re.compile(r"(?:gpt-4|gpt-3\.?5-turbo)(?:-.*)?\Z", re.DOTALL)
_OLDER = "cl100k_base"
_OLLAMA_CLOUD = re.compile(r"[:-]cloud\Z")
_JSON_SCHEMA = re.compile(r"openai/(?:gpt-4o|gpt-4\.1|gpt-5|gpt-6|o1|o3|o4)|google/gemini-")
_NO_JSON_SCHEMA = re.compile(r"openai/(?:gpt-4o-2024-05-13|gpt-4|gpt-4-turbo|gpt-3\.5-turbo|o1-mini)\Z")
# Explicit ids come from clients: what is remembered about them, and how long they may be, has a bound.
_MAX_KNOWN = 4096
_MAX_ID_LENGTH = 256


class PriceTable:
    """The shipped prices under the configuration's own; rows are read when first asked for. Safe to share.

    An override replaces the fields that it names. One that names a price but no `above` holds at every length of
    prompt, since the shipped long-context tier would contradict what the user wrote.
    """

    __slots__ = ("_aliases", "_free", "_known", "_overrides", "_rows")

    def __init__(
        self,
        rows: Mapping[str, Mapping[str, Any]],
        aliases: Mapping[str, str],
        overrides: Overrides,
        free_providers: Collection[str],
    ) -> None:
        self._rows = rows
        self._aliases = aliases
        self._overrides = overrides
        self._free = frozenset(free_providers)
        self._known: dict[str, ModelInfo | None] = {}

    def __repr__(self) -> str:
        return f"<PriceTable rows={len(self._rows)} overrides={len(self._overrides)}>"

    @classmethod
    def parse(
        cls, shipped: bytes, overrides: Overrides, *, free_providers: Collection[str] = ("ollama",)
    ) -> PriceTable:
        """Reads the shipped table (JSON). `free_providers` run on the user's own machine and cost nothing."""
        table = orjson.loads(shipped)
        meta = table.pop("_meta", None) or {}
        return cls(table, meta.get("aliases") or {}, overrides, free_providers)

    def models(self) -> tuple[str, ...]:
        """The full ids that the table lists itself, the shipped ones first."""
        return tuple(dict.fromkeys((*self._rows, *self._overrides)))

    def info(self, model_id: str) -> ModelInfo | None:
        """What is known about `provider/model`; None where no rule leads to a row."""
        try:
            return self._known[model_id]
        except KeyError:
            pass
        if len(model_id) > _MAX_ID_LENGTH:
            return None
        info = self._find(model_id)
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[model_id] = info
        return info

    def _find(self, model_id: str) -> ModelInfo | None:
        if own := self._overrides.get(model_id):
            below = self._find_shipped(model_id) or self._capabilities_elsewhere(model_id)
            return _overridden(below or _unlisted(model_id) or ModelInfo(), own)
        info = self._find_shipped(model_id)
        if info is None and model_id.partition("/")[0] in self._free and not _OLLAMA_CLOUD.search(model_id):
            return ModelInfo(prices=_FREE)
        return info or self._capabilities_elsewhere(model_id) or _unlisted(model_id)

    def _find_shipped(self, model_id: str) -> ModelInfo | None:
        """The row of this id, or of the id that it is another name of. Overrides of that other id hold as well."""
        if (row := self._rows.get(model_id)) is not None:
            return _read_row(model_id, row)
        if alias := self._aliases.get(model_id):
            return self.info(alias)
        provider, _, name = model_id.partition("/")
        if provider == "google" and name.startswith("models/"):
            return self.info(f"google/{name.removeprefix('models/')}")
        if provider == "openrouter":
            base, colon, variant = model_id.partition(":")
            if colon:
                return self._variant(base, variant)
        plain = _SNAPSHOT.sub("", model_id)
        return self.info(plain) if plain != model_id else None

    def _variant(self, base: str, variant: str) -> ModelInfo | None:
        info = self.info(base)
        if variant == "free":
            return replace(info or ModelInfo(), prices=_FREE, above=None, above_threshold=None)
        if variant in _SAME_PRICE or info is None:
            return info
        return replace(info, prices=Prices(), above=None, above_threshold=None)

    def _capabilities_elsewhere(self, model_id: str) -> ModelInfo | None:
        """OpenRouter's id of a model that only its vendor's row describes: the same abilities, an unknown price."""
        provider, _, vendor_id = model_id.partition("/")
        if provider != "openrouter" or "/" not in vendor_id:
            return None
        info = self.info(vendor_id.partition(":")[0])
        return replace(info, prices=Prices(), above=None, above_threshold=None) if info else None


def cost(info: ModelInfo | None, usage: Usage) -> float | None:
    """USD for `usage`; None where a price that it needs is unknown.

    The long-context tier applies to the whole request. Cache reads and writes without a price of their own are
    billed as plain input.
    """
    if info is None:
        return None
    prices = info.prices
    fresh, read, write, output, _, write_1h, _ = usage
    if info.above is not None and info.above_threshold is not None and fresh + read + write > info.above_threshold:
        prices = info.above
    price_in, price_out = prices.input, prices.output
    if price_in is None or price_out is None:
        return None
    total = fresh * price_in + output * price_out
    if read:
        total += read * (price_in if prices.cached_input is None else prices.cached_input)
    if write:
        short = price_in if prices.cache_write is None else prices.cache_write
        long = short if prices.cache_write_1h is None else prices.cache_write_1h
        hours = min(write_1h, write)
        total += hours * long + (write - hours) * short
    return total / 1e6


def _unlisted(model_id: str) -> ModelInfo | None:
    """What the name alone tells of a model that no row describes: which tokenizer it has."""
    older = _OLDER_ENCODING.match(model_id.rpartition("/")[2])
    return ModelInfo(encoding=_OLDER) if older else None


def _read_row(model_id: str, row: Mapping[str, Any]) -> ModelInfo:
    prices = _read_prices(row, Prices())
    threshold, above = _read_tier(row, prices)
    return ModelInfo(
        prices=prices,
        above_threshold=threshold,
        above=above,
        **_read_abilities({"json_schema": _json_schema(model_id), **row}),
    )


def _overridden(info: ModelInfo, own: Mapping[str, Any]) -> ModelInfo:
    prices = _read_prices(own, info.prices)
    threshold, above = info.above_threshold, info.above
    if "above" in own or any(name in own for name in _PRICE_NAMES):
        threshold, above = _read_tier(own, prices)
    return replace(info, prices=prices, above_threshold=threshold, above=above, **_read_abilities(own))


def _read_prices(row: Mapping[str, Any], below: Prices) -> Prices:
    """The prices that `row` names over those of `below`; an explicit null means unknown."""
    return Prices(**{name: _price(row[name]) if name in row else getattr(below, name) for name in _PRICE_NAMES})


def _read_tier(row: Mapping[str, Any], prices: Prices) -> tuple[int | None, Prices | None]:
    tier = row.get("above")
    if not isinstance(tier, Mapping) or not isinstance(tier.get("threshold"), int):
        return None, None
    return tier["threshold"], _read_prices(tier, prices)


def _read_abilities(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelInfo, other than prices, that `row` says something usable about."""
    found: dict[str, Any] = {name: row[name] for name in _FLAG_NAMES if isinstance(row.get(name), bool)}
    found.update((name, row[name]) for name in _COUNT_NAMES if isinstance(row.get(name), int))
    if isinstance(row.get("tiktoken"), str):
        found["encoding"] = row["tiktoken"]
    if isinstance(row.get("deprecated"), str):
        found["deprecated"] = row["deprecated"]
    return found


def _price(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return float(value)


def _json_schema(model_id: str) -> bool | None:
    """Whether the model takes a `json_schema` response format, where that is certain."""
    if _NO_JSON_SCHEMA.match(model_id):
        return False
    return True if _JSON_SCHEMA.match(model_id) else None
