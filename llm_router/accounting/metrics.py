"""Live figures of this process: what `/metrics` shows as JSON and to Prometheus.

Plain numbers under one lock, fed by the bookkeeper once per batch; all figures of a request appear together. Requests
are added up many at a time, at the latest when somebody asks. The Prometheus text is made when it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from llm_router.accounting.booking import Attempt, Kind, LedgerRecord

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKENS: Final = (16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576)
_RECENT: Final = 50
# Clients may name any model: past so many names the rest is one.
_MAX_LABELS: Final = 100
_OTHER: Final = "other"

# So many settled requests are added up at a time, or fewer when somebody asks.
_AT_ONCE: Final = 128

_kind: Final = itemgetter(LedgerRecord._fields.index("kind"))
# What requests have in common that are added up together, and what there is to add up.
_labels: Final = attrgetter("category", "model", "provider", "outcome", "counted_by", "cost_source")
_columns: Final = itemgetter(
    *map(
        LedgerRecord._fields.index,
        (
            "first_byte_ms",
            "total_ms",
            "input_tokens",
            "output_tokens",
            "reported_cache_read",
            "reported_reasoning",
            "cost_usd",
            "attempts",
        ),
    )
)
_model_and_end: Final = itemgetter(*map(Attempt._fields.index, ("model", "kind")))


class Histogram:
    """Observations sorted into buckets; `counts` has one more entry than `bounds`, for what is above them all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Adds observations. In order a whole bucket of them is found by one search."""
        bounds, counts = self.bounds, self.counts
        ordered = sorted(values)
        total, done = len(ordered), 0
        bucket = bisect_left(bounds, ordered[0]) if ordered else 0
        while done < total:
            end = bisect_right(ordered, bounds[bucket], done) if bucket < len(bounds) else total
            counts[bucket] += end - done
            done = end
            bucket += 1
        self.sum += sum(ordered)

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
        self._fresh: list[LedgerRecord] = []
        self._labels: set[str] = set()
        self._recent: deque[LedgerRecord] = deque(maxlen=_RECENT)
        self._cost = 0.0
        self._providers: dict[str, int] = {}
        self.version = version
        self.circuits: Callable[[], Mapping[str, Any]] = no_circuits
        self.watched: Watched | None = None
        self.pids: Callable[[], Sequence[int]] | None = None
        # Read by the Prometheus collector, while they are `summed`.
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
        return f"<Metrics requests={sum(self.outcomes.values()) + len(self._fresh)}>"

    @contextlib.contextmanager
    def summed(self) -> Iterator[None]:
        """While this is entered the figures hold every request that was observed, and none changes."""
        with self._lock:
            self._add_up()
            yield

    def observe(self, batch: Sequence[LedgerRecord]) -> None:
        """Takes over settled requests, each as a whole."""
        with self._lock:
            self._fresh.extend(batch)
            if len(self._fresh) >= _AT_ONCE:
                self._add_up()

    def _add_up(self) -> None:
        """Many requests of one kind cost little more than one: they are added up column by column."""
        fresh, self._fresh = self._fresh, []
        kinds: defaultdict[Kind, list[LedgerRecord]] = defaultdict(list)
        for record in fresh:
            kinds[_kind(record)].append(record)
        alike: defaultdict[tuple[Any, ...], list[LedgerRecord]] = defaultdict(list)
        for kind, records in kinds.items():
            alike[_labels(kind)] += records
            self.failovers += max(0, kind.attempt_count - 1) * len(records)
        for labels, records in alike.items():
            self._add(labels, _columns(tuple(zip(*records, strict=True))))
        self._recent.extend(fresh[-_RECENT:])

    def _add(self, labels: tuple[Any, ...], columns: tuple[Any, ...]) -> None:
        """Adds requests that are alike; those that no model answered have no more than an outcome and a duration."""
        category, model, provider, outcome, counted_by, cost_source = labels
        first_byte, total, inputs, outputs, cached, reasoning, costs, tried = columns
        self._add_attempts(chain.from_iterable(tried))
        category, name = self._label(category), self._label(model) if model else ""
        outcome_labels = (category, name, outcome)
        self.outcomes[outcome_labels] = self.outcomes.get(outcome_labels, 0) + len(total)
        durations = self.durations.get(category)
        if durations is None:
            durations = self.durations[category] = Histogram(SECONDS)
        durations.observe(_seconds(total))
        spent = sum(filter(None, costs))
        self._cost += spent
        if counted_by == "estimate":
            self.estimated += len(total)
        if not name:
            return
        if name == _OTHER:
            provider = _OTHER
        self._providers[provider] = self._providers.get(provider, 0) + len(total)
        figures = self.by_model.get(name)
        if figures is None:
            figures = self.by_model[name] = ModelFigures()
        figures.first_byte.observe(_seconds(first_byte))
        figures.input_tokens += _observe_tokens(self.input_sizes, inputs)
        figures.output_tokens += _observe_tokens(self.output_sizes, outputs)
        figures.cached_input += sum(filter(None, cached))
        figures.reasoning += sum(filter(None, reasoning))
        figures.unknown_cost += costs.count(None)
        if cost_source is not None:
            figures.cost[cost_source] = figures.cost.get(cost_source, 0.0) + spent

    def _add_attempts(self, attempts: Iterable[Attempt]) -> None:
        for (model, end), number in Counter(map(_model_and_end, attempts)).items():
            labels = (self._label(model), end)
            self.attempts[labels] = self.attempts.get(labels, 0) + number

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
        with self.summed():
            outcomes = self._by(2)
            total = sum(outcomes.values())
            timed = sum(sum(histogram.counts) for histogram in self.durations.values())
            seconds = sum(histogram.sum for histogram in self.durations.values())
            success, cancelled = outcomes.get("completed", 0), outcomes.get("cancelled", 0)
            figures = {
                "requests": {
                    "total": total,
                    "success": success,
                    "failed": total - success - cancelled,
                    "cancelled": cancelled,
                },
                "avg_latency_ms": round(seconds * 1000 / timed, 2) if timed else 0.0,
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


def _seconds(milliseconds: Sequence[float | None]) -> list[float]:
    """Those that are known."""
    return [ms / 1000 for ms in milliseconds if ms is not None]


def _observe_tokens(sizes: Histogram, numbers: Sequence[int | None]) -> int:
    """The sum of those that are known."""
    known = [number for number in numbers if number is not None]
    sizes.observe(known)
    return sum(known)


def _recent(record: LedgerRecord) -> dict[str, Any]:
    """A record without anything that the client or the model said."""
    kind = record.kind
    return {
        "request_id": record.request_id,
        "started": record.started,
        "category": kind.category,
        "model": kind.model or None,
        "stream": bool(kind.stream),
        "outcome": kind.outcome,
        "status": kind.status,
        "attempts": kind.attempt_count,
        "first_byte_ms": record.first_byte_ms,
        "total_ms": record.total_ms,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "cost_usd": record.cost_usd,
        "cost_source": kind.cost_source,
    }
