"""Live figures of this process: what `/metrics` shows as JSON and to Prometheus.

Plain numbers under one lock, fed by the bookkeeper once per batch; all figures of a request appear together. The
Prometheus text is made when it is asked for.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from llm_router.accounting.booking import LedgerRecord, Settled

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKENS: Final = (16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576)
_RECENT: Final = 50
# Clients may name any model: past so many names the rest is one.
_MAX_LABELS: Final = 100
_OTHER: Final = "other"
_MAX_PLACES: Final = 1_024

# What is read of a record, in one step.
_observed: Final = itemgetter(
    *map(
        LedgerRecord._fields.index,
        (
            "category",
            "model",
            "provider",
            "outcome",
            "first_byte_ms",
            "total_ms",
            "input_tokens",
            "output_tokens",
            "counted_by",
            "reported_cache_read",
            "reported_reasoning",
            "cost_usd",
            "cost_source",
        ),
    )
)


class Histogram:
    """Observations sorted into buckets; `counts` has one more entry than `bounds`, for what is above them all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Adds one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, observations up to it) pairs, as Prometheus counts them."""
        total = 0
        pairs = []
        for bound, count in zip((*map(str, map(float, self.bounds)), "+Inf"), self.counts, strict=True):
            total += count
            pairs.append((bound, float(total)))
        return pairs


class ModelFigures:
    """Sums over the requests that one model answered."""

    __slots__ = ("cached_input", "cost", "first_byte", "input_tokens", "output_tokens", "reasoning", "unknown_cost")

    def __init__(self) -> None:
        self.first_byte = Histogram(SECONDS)
        self.input_tokens = 0
        self.cached_input = 0
        self.output_tokens = 0
        self.reasoning = 0
        self.cost: dict[str, float] = {}
        self.unknown_cost = 0


class _Place(NamedTuple):
    """Where requests of one kind are counted: by labels (category, model, outcome) and by the provider's."""

    outcome: tuple[str, str, str]
    provider: str
    durations: Histogram
    figures: ModelFigures | None


class Watched(Protocol):
    """What is read off the bookkeeper at the moment somebody asks."""

    @property
    def in_flight(self) -> int:
        """Requests that are running."""
        ...

    @property
    def queued(self) -> int:
        """Requests that wait for being settled."""
        ...

    @property
    def unwritten(self) -> int:
        """Records that wait for the ledger."""
        ...

    @property
    def lost(self) -> int:
        """Records that the ledger never got."""
        ...

    @property
    def degraded(self) -> int:
        """Answers that were estimated because counting had fallen behind."""
        ...

    def drift_ratios(self) -> Mapping[str, tuple[float | None, float | None]]:
        """Reported over counted tokens by model, for input and output."""
        ...


def no_circuits() -> dict[str, Any]:
    """The circuit part of the figures before there are circuits."""
    return {"open_circuits": [], "circuits": {}}


class Metrics:
    """Counts settled requests. `observe` is the bookkeeper's sink; the rest may be called from any thread.

    `circuits` gives `{"open_circuits": [model], "circuits": {model: {"state": ..}}}` when asked, `watched` is the
    bookkeeper; both may be set after construction. `pids` names the processes whose CPU and memory are the router's,
    where it is more than this one.
    """

    def __init__(self, version: str = "") -> None:
        self._lock = threading.Lock()
        self._labels: set[str] = set()
        self._places: dict[tuple[str, str, str, str], _Place] = {}
        self._recent: deque[LedgerRecord] = deque(maxlen=_RECENT)
        self._timed = 0
        self._ms = 0.0
        self._cost = 0.0
        self._providers: dict[str, int] = {}
        self.version = version
        self.circuits: Callable[[], Mapping[str, Any]] = no_circuits
        self.watched: Watched | None = None
        self.pids: Callable[[], Sequence[int]] | None = None
        # Read by the Prometheus collector, under the lock.
        self.outcomes: dict[tuple[str, str, str], int] = {}
        self.by_model: dict[str, ModelFigures] = {}
        self.durations: dict[str, Histogram] = {}
        self.input_sizes = Histogram(TOKENS)
        self.output_sizes = Histogram(TOKENS)
        self.attempts: dict[tuple[str, str], int] = {}
        self.failovers = 0
        self.estimated = 0
        self._registry: CollectorRegistry | None = None

    def __repr__(self) -> str:
        return f"<Metrics requests={sum(self.outcomes.values())}>"

    @property
    def lock(self) -> threading.Lock:
        """Held while figures change and while they are read together."""
        return self._lock

    def observe(self, batch: Sequence[Settled]) -> None:
        """Takes over settled requests, each as a whole."""
        with self._lock:
            for settled in batch:
                self._observe(settled)

    def _observe(self, settled: Settled) -> None:
        record, attempts = settled
        (
            category,
            model,
            provider,
            outcome,
            first_byte_ms,
            total_ms,
            input_tokens,
            output_tokens,
            counted_by,
            cached_input,
            reasoning,
            cost,
            cost_source,
        ) = _observed(record)
        place = self._places.get((category, model, provider, outcome))
        if place is None:
            place = self._new_place(category, model, provider, outcome)
        self._recent.append(record)
        self.outcomes[place.outcome] += 1
        if total_ms is not None:
            self._timed += 1
            self._ms += total_ms
            place.durations.observe(total_ms / 1000)
        if cost:
            self._cost += cost
        if counted_by == "estimate":
            self.estimated += 1
        for attempt in attempts:
            key = (self._label(attempt.model), attempt.kind)
            self.attempts[key] = self.attempts.get(key, 0) + 1
        if len(attempts) > 1:
            self.failovers += len(attempts) - 1
        figures = place.figures
        if figures is None:
            return
        self._providers[place.provider] += 1
        if first_byte_ms is not None:
            figures.first_byte.observe(first_byte_ms / 1000)
        if input_tokens is not None:
            figures.input_tokens += input_tokens
            self.input_sizes.observe(input_tokens)
        if output_tokens is not None:
            figures.output_tokens += output_tokens
            self.output_sizes.observe(output_tokens)
        if cached_input:
            figures.cached_input += cached_input
        if reasoning:
            figures.reasoning += reasoning
        if cost is None:
            figures.unknown_cost += 1
        elif cost_source is not None:
            figures.cost[cost_source] = figures.cost.get(cost_source, 0.0) + cost

    def _new_place(self, category: str, model: str, provider: str, outcome: str) -> _Place:
        """Where requests like this one are counted; names past the bound are one."""
        key = (category, model, provider, outcome)
        category = self._label(category)
        label = self._label(model) if model else ""
        figures = None
        if label:
            figures = self.by_model.get(label)
            if figures is None:
                figures = self.by_model[label] = ModelFigures()
            if label == _OTHER:
                provider = _OTHER
            self._providers.setdefault(provider, 0)
        durations = self.durations.get(category)
        if durations is None:
            durations = self.durations[category] = Histogram(SECONDS)
        place = _Place((category, label, outcome), provider, durations, figures)
        self.outcomes.setdefault(place.outcome, 0)
        if len(self._places) >= _MAX_PLACES:
            self._places.clear()
        self._places[key] = place
        return place

    def _label(self, name: str) -> str:
        labels = self._labels
        if name in labels:
            return name
        if len(labels) >= _MAX_LABELS:
            return _OTHER
        labels.add(name)
        return name

    def to_json(self) -> dict[str, Any]:
        """The figures under the names that the contract fixes, and a few more."""
        with self._lock:
            outcomes = self._by(2)
            total = sum(outcomes.values())
            success, cancelled = outcomes.get("completed", 0), outcomes.get("cancelled", 0)
            figures = {
                "requests": {
                    "total": total,
                    "success": success,
                    "failed": total - success - cancelled,
                    "cancelled": cancelled,
                },
                "avg_latency_ms": round(self._ms / self._timed, 2) if self._timed else 0.0,
                "total_cost_usd": round(self._cost, 10),
                "unknown_cost_requests": sum(figures.unknown_cost for figures in self.by_model.values()),
                "estimated_counts": self.estimated,
                "failovers": self.failovers,
                "model_distribution": self._by(1),
                "category_distribution": self._by(0),
                "provider_distribution": dict(self._providers),
            }
            recent = list(self._recent)
        figures["circuit_breaker"] = self.circuits()
        figures["recent_requests"] = [_recent(record) for record in reversed(recent)]
        if self.watched is not None:
            figures["in_flight"] = self.watched.in_flight
            figures["unsettled"] = self.watched.queued
        return figures

    def _by(self, part: int) -> dict[str, int]:
        """Requests by one part of their outcome's labels, without those that have none (refused before they had it)."""
        sums: dict[str, int] = {}
        for labels, count in self.outcomes.items():
            if name := labels[part]:
                sums[name] = sums.get(name, 0) + count
        return sums

    async def figures(self, circuits: dict[str, Any], accept: str | None = None) -> tuple[bytes, str]:
        """JSON, or the text that `accept` asks for, with its content type; `circuits` is how these are just now."""
        self.circuits = lambda: circuits  # the circuits themselves belong to the event loop
        if accept is None:
            options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
            return orjson.dumps(self.to_json(), option=options), "application/json"
        return await asyncio.to_thread(self.prometheus, accept)

    def prometheus(self, accept: str) -> tuple[bytes, str]:
        """The text that `accept` asks for (Prometheus or OpenMetrics) and its content type.

        Takes milliseconds where there are many series: not for the event loop.
        """
        # Fifty milliseconds of imports that a start can do without.
        from prometheus_client.exposition import choose_encoder

        from llm_router.accounting.prometheus import FiguresCollector, registry_of

        if self._registry is None:
            self._registry = registry_of(FiguresCollector(self), self.pids)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def _recent(record: LedgerRecord) -> dict[str, Any]:
    """A record without anything that the client or the model said."""
    return {
        "request_id": record.request_id,
        "started": record.started,
        "category": record.category,
        "model": record.model or None,
        "stream": bool(record.stream),
        "outcome": record.outcome,
        "status": record.status,
        "attempts": record.attempt_count,
        "first_byte_ms": record.first_byte_ms,
        "total_ms": record.total_ms,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "cost_usd": record.cost_usd,
        "cost_source": record.cost_source,
    }
