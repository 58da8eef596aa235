"""What dispatch hands to the bookkeeper when a request closes, and the ledger record that it becomes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import orjson

from llm_router.accounting.pricing import ModelInfo
from llm_router.wire.usage import Usage

# What is kept of the answer where too much waits.
_SHED_BLOCKS, _SHED_BLOCK_BYTES = 4, 16_384

SKIPPED: Final = "skipped_"

Outcome = Literal["completed", "cut", "cancelled", "failed", "interrupted"]


class Attempt(NamedTuple):
    """One try at a candidate: `kind` is a FailureKind or "ok", `status` the provider's, `ms` how long it took.

    Where nobody answered those that were not asked stand behind them: their `kind` is `SKIPPED` and what kept them out.
    """

    model: str
    kind: str
    status: int | None
    ms: int

    @property
    def was_made(self) -> bool:
        """Whether the model was asked."""
        return not self.kind.startswith(SKIPPED)


@dataclass(slots=True)
class SideCost:
    """An answer that was paid for but not passed on: the loser of a hedge, an empty one, a model's about the category.

    `request` is what was sent, `answer` the bytes that came (OpenAI-shaped), `reported` usage that arrived
    beside them.
    """

    kind: Literal["hedge", "classifier", "empty"]
    model: str
    request: bytes = field(default=b"", repr=False)
    answer: Sequence[bytes] = field(default=(), repr=False)
    answer_is_stream: bool = False
    reported: Usage | None = None
    price_info: ModelInfo | None = None
    request_bytes: int = 0

    def __post_init__(self) -> None:
        self.request_bytes = self.request_bytes or len(self.request)


@dataclass(slots=True)
class Booking:
    """One chat request at its end. The event loop fills it; whoever settles it reads, counts and prices.

    `model` is the full id that answered or was being asked when the request ended, "" where none was; `client` is a
    short hash of the client's key, "" without one; `started` is Unix time. `answer` are the kept blocks of an
    OpenAI-shaped answer (`answer_bytes` is its whole size, kept or not), `reported` the usage that a translator saw,
    `status` the HTTP status that the client was sent. `ticket` is what `Bookkeeper.enter` gave.
    """

    request_id: str
    started: float
    category: str = ""
    mode: str = ""
    model: str = ""
    provider: str = ""
    stream: bool = False
    client: str = ""
    attempts: tuple[Attempt, ...] = ()
    outcome: Outcome = "completed"
    status: int = 200
    failure: str = ""
    first_byte_ms: float | None = None
    total_ms: float = 0.0
    request: bytes = field(default=b"", repr=False)
    answer: Sequence[bytes] = field(default=(), repr=False)
    answer_bytes: int = 0
    answer_is_stream: bool = False
    reported: Usage | None = None
    price_info: ModelInfo | None = None
    side_costs: tuple[SideCost, ...] = ()
    ticket: int = -1
    request_bytes: int = 0

    def __post_init__(self) -> None:
        self.request_bytes = self.request_bytes or len(self.request)


def lighten(booking: Booking) -> int:
    """Too much waits already: keeps of this one what a report of usage fits into, and sizes to estimate from.

    Gives the bytes that are left of it.
    """
    booking.request = b""
    if booking.answer_is_stream or booking.answer_bytes > _SHED_BLOCK_BYTES:
        booking.answer = _ends(booking.answer)
    size = sum(map(len, booking.answer))
    for side in booking.side_costs:
        side.request = b""
        side.answer = _ends(side.answer)
        size += sum(map(len, side.answer))
    return size


def _ends(blocks: Sequence[bytes]) -> list[bytes]:
    return [block[-_SHED_BLOCK_BYTES:] for block in blocks[-_SHED_BLOCKS:]]


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What a settled request shares with many others: one object for all of them, so that it is quickly looked up.

    `cost_source` names the evidence that the bill rests on, None where nothing had to be paid or the price is
    unknown; `counted_by` is "tiktoken" or "estimate".
    """

    category: str
    mode: str
    model: str
    provider: str
    stream: int
    client: str
    outcome: Outcome
    status: int
    failure: str | None
    attempt_count: int
    finish_reason: str | None
    reported_model: str | None
    counted_by: str | None
    cost_source: str | None


class LedgerRecord(NamedTuple):
    """One settled request: what nearly all have, what the provider reported, what few have, attempts and kind.

    Tokens: `input_tokens` and `output_tokens` are what the bill rests on; `counted_*` is our own count (None where
    nothing was counted); `reported_*` is what the provider said, in the order of `Usage`. `cost_usd` is None where
    unknown and includes `side_cost_usd` (hedges, classifier calls: `side_costs` as JSON).
    """

    request_id: str
    started: float
    first_byte_ms: float | None
    total_ms: float | None
    request_bytes: int
    answer_bytes: int
    input_tokens: int | None
    output_tokens: int | None
    counted_input: int | None
    counted_output: int | None
    cost_usd: float | None
    reported_fresh_input: int | None
    reported_cache_read: int | None
    reported_cache_write: int | None
    reported_output: int | None
    reported_reasoning: int | None
    reported_cache_write_1h: int | None
    side_cost_usd: float | None
    side_costs: str | None
    attempts: tuple[Attempt, ...]
    kind: Kind

    def flat(self) -> dict[str, Any]:
        """All fields by name, those of the kind among them."""
        found = self._asdict()
        kind = found.pop("kind")
        return found | {name: getattr(kind, name) for name in Kind.__slots__}


def as_json(value: object) -> str:
    """JSON for a column of the ledger."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate in a model's name
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
