"""What there is to show: sums over settled requests, and what is read off the bookkeeper when somebody asks.

Plain numbers by category, model, provider and outcome; no lock, no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Final, Protocol

from llm_router.accounting.booking import SKIPPED, Attempt, Kind, LedgerRecord

SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKENS: Final = (16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576)
# Clients may name any model: past so many the rest is one.
_MAX_MODELS: Final = 100
_OTHER: Final = "other"

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


class ModelSums:
    """Sums over the requests that one model answered: tokens, known cost in USD by its evidence."""

    __slots__ = ("cached_input", "cost", "first_byte", "input_tokens", "output_tokens", "reasoning", "unknown_cost")

    def __init__(self) -> None:
        self.first_byte = Histogram(SECONDS)
        self.input_tokens = 0
        self.cached_input = 0
        self.output_tokens = 0
        self.reasoning = 0
        self.cost: dict[str, float] = {}
        self.unknown_cost = 0


class Sums:
    """Adds up settled requests."""

    __slots__ = (
        "_models",
        "attempts",
        "by_model",
        "cost",
        "durations",
        "estimated",
        "failovers",
        "input_sizes",
        "outcomes",
        "output_sizes",
        "providers",
    )

    def __init__(self) -> None:
        self._models: set[str] = set()
        self.outcomes: dict[tuple[str, str, str], int] = {}
        self.by_model: dict[str, ModelSums] = {}
        self.providers: dict[str, int] = {}
        self.durations: dict[str, Histogram] = {}
        self.input_sizes = Histogram(TOKENS)
        self.output_sizes = Histogram(TOKENS)
        self.attempts: dict[tuple[str, str], int] = {}
        self.failovers = 0
        self.estimated = 0
        self.cost = 0.0

    def __repr__(self) -> str:
        return f"<Sums requests={sum(self.outcomes.values())}>"

    def add(self, records: Sequence[LedgerRecord]) -> None:
        """Many requests of one kind cost little more than one: they are added up column by column."""
        kinds: defaultdict[Kind, list[LedgerRecord]] = defaultdict(list)
        for record in records:
            kinds[_kind(record)].append(record)
        alike: defaultdict[tuple[Any, ...], list[LedgerRecord]] = defaultdict(list)
        for kind, same in kinds.items():
            alike[_labels(kind)] += same
            self.failovers += max(0, kind.attempt_count - 1) * len(same)
        for labels, same in alike.items():
            self._add(labels, _columns(tuple(zip(*same, strict=True))))

    def requests_by(self, part: int) -> dict[str, int]:
        """Requests by one part of their outcome's labels (0 category, 1 model, 2 outcome).

        Those that have none are left out: they were refused before they had it.
        """
        sums: dict[str, int] = {}
        for labels, count in self.outcomes.items():
            if name := labels[part]:
                sums[name] = sums.get(name, 0) + count
        return sums

    def _add(self, labels: tuple[Any, ...], columns: tuple[Any, ...]) -> None:
        """Adds requests that are alike; those that no model answered have an outcome, a duration, a cost."""
        category, model, provider, outcome, counted_by, cost_source = labels
        first_byte, total, inputs, outputs, cached, reasoning, costs, tried = columns
        self._add_attempts(chain.from_iterable(tried))
        name = self._label(model) if model else ""
        outcome_labels = (category, name, outcome)
        self.outcomes[outcome_labels] = self.outcomes.get(outcome_labels, 0) + len(total)
        durations = self.durations.get(category)
        if durations is None:
            durations = self.durations[category] = Histogram(SECONDS)
        durations.observe(_seconds(total))
        spent = sum(filter(None, costs))
        self.cost += spent
        if counted_by == "estimate":
            self.estimated += len(total)
        if name:
            provider = _OTHER if name == _OTHER else provider
            self.providers[provider] = self.providers.get(provider, 0) + len(total)
        elif not spent and None not in costs:
            return
        model_sums = self.by_model.get(name)
        if model_sums is None:
            model_sums = self.by_model[name] = ModelSums()
        model_sums.first_byte.observe(_seconds(first_byte))
        model_sums.input_tokens += _observe_tokens(self.input_sizes, inputs)
        model_sums.output_tokens += _observe_tokens(self.output_sizes, outputs)
        model_sums.cached_input += sum(filter(None, cached))
        model_sums.reasoning += sum(filter(None, reasoning))
        model_sums.unknown_cost += costs.count(None)
        if cost_source is not None:
            model_sums.cost[cost_source] = model_sums.cost.get(cost_source, 0.0) + spent

    def _add_attempts(self, attempts: Iterable[Attempt]) -> None:
        for (model, end), number in Counter(map(_model_and_end, attempts)).items():
            if end.startswith(SKIPPED):
                continue
            labels = (self._label(model), end)
            self.attempts[labels] = self.attempts.get(labels, 0) + number

    def _label(self, name: str) -> str:
        """How a model is called here; categories are the configuration's own, and as many as it names."""
        known = self._models
        if name in known:
            return name
        if len(known) >= _MAX_MODELS:
            return _OTHER
        known.add(name)
        return name


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


def _seconds(milliseconds: Sequence[float | None]) -> list[float]:
    """Those that are known."""
    return [ms / 1000 for ms in milliseconds if ms is not None]


def _observe_tokens(sizes: Histogram, numbers: Sequence[int | None]) -> int:
    """The sum of those that are known."""
    known = [number for number in numbers if number is not None]
    sizes.observe(known)
    return sum(known)
