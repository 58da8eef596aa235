"""The live figures as Prometheus metric families, made at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

from llm_router.accounting.sums import Sums, Watched

_STATES: Final = ("closed", "open", "half_open", "cooldown")


class Source(Protocol):
    """Where the figures come from."""

    version: str
    circuits: Callable[[], Mapping[str, Any]]
    watched: Watched | None

    def summed(self) -> AbstractContextManager[Sums]:
        """The sums, which do not change while this is entered."""
        ...


class FiguresCollector:
    """Reads its source at each scrape. Holds no state."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def describe(self) -> list[Any]:
        """Nothing to tell beforehand: names are known once they are collected."""
        return []

    def collect(self) -> Iterator[Any]:
        """All families."""
        with self._source.summed() as sums:
            families = [*_requests(sums), *_models(sums), *_sizes(sums)]
        yield from families
        yield from self._now()

    def _now(self) -> Iterator[Any]:
        source = self._source
        yield InfoMetricFamily("llm_router_build", "The running version.", value={"version": source.version})
        circuits = GaugeMetricFamily(
            "llm_router_circuit_state", "1 for the state that a model's circuit is in.", labels=["model", "state"]
        )
        for model, circuit in source.circuits().get("circuits", {}).items():
            state = str(circuit.get("state", "")).replace("-", "_")
            for known in dict.fromkeys((*_STATES, state)):
                circuits.add_metric([model, known], float(known == state))
        yield circuits
        watched = source.watched
        if watched is None:
            return
        yield GaugeMetricFamily("llm_router_in_flight_requests", "Chat requests that are running.", watched.in_flight)
        yield GaugeMetricFamily(
            "llm_router_unsettled_requests", "Ended requests that the bookkeeper has not settled.", watched.queued
        )
        yield GaugeMetricFamily(
            "llm_router_ledger_waiting_records", "Records that the ledger could not take yet.", watched.unwritten
        )
        yield CounterMetricFamily("llm_router_ledger_lost_records", "Records that the ledger never got.", watched.lost)
        yield CounterMetricFamily(
            "llm_router_degraded_counts", "Answers estimated because counting had fallen behind.", watched.degraded
        )
        drift = GaugeMetricFamily(
            "llm_router_token_drift_ratio", "Reported over counted tokens.", labels=["model", "direction"]
        )
        for model, (for_input, for_output) in watched.drift_ratios().items():
            if for_input is not None:
                drift.add_metric([model, "input"], for_input)
            if for_output is not None:
                drift.add_metric([model, "output"], for_output)
        yield drift


def _requests(sums: Sums) -> Iterator[Any]:
    requests = CounterMetricFamily(
        "llm_router_requests", "Chat requests by how they ended.", labels=["category", "model", "outcome"]
    )
    for labels, count in sums.outcomes.items():
        requests.add_metric(labels, count)
    yield requests
    attempts = CounterMetricFamily(
        "llm_router_attempts", "Tries at candidates by how they ended.", labels=["model", "kind"]
    )
    for attempt, count in sums.attempts.items():
        attempts.add_metric(attempt, count)
    yield attempts
    yield CounterMetricFamily("llm_router_failovers", "Tries beyond a request's first candidate.", value=sums.failovers)
    durations = HistogramMetricFamily(
        "llm_router_request_duration_seconds", "From a request's admission to its end.", labels=["category"]
    )
    for category, histogram in sums.durations.items():
        durations.add_metric([category], histogram.cumulative(), histogram.sum)
    yield durations


def _models(sums: Sums) -> Iterator[Any]:
    first_byte = HistogramMetricFamily(
        "llm_router_first_byte_seconds", "From a request's admission to its first byte.", labels=["model"]
    )
    tokens = CounterMetricFamily(
        "llm_router_tokens",
        "Tokens that the bill rests on; cache_read is part of input, reasoning part of output.",
        labels=["model", "direction"],
    )
    cost = CounterMetricFamily(
        "llm_router_cost_usd", "Known cost in USD by the evidence for it.", labels=["model", "source"]
    )
    unknown = CounterMetricFamily(
        "llm_router_unknown_cost_requests", "Requests whose price is unknown.", labels=["model"]
    )
    for model, of_model in sums.by_model.items():
        first_byte.add_metric([model], of_model.first_byte.cumulative(), of_model.first_byte.sum)
        tokens.add_metric([model, "input"], of_model.input_tokens)
        tokens.add_metric([model, "cache_read"], of_model.cached_input)
        tokens.add_metric([model, "output"], of_model.output_tokens)
        tokens.add_metric([model, "reasoning"], of_model.reasoning)
        for source, usd in of_model.cost.items():
            cost.add_metric([model, source], usd)
        unknown.add_metric([model], of_model.unknown_cost)
    return iter((first_byte, tokens, cost, unknown))


def _sizes(sums: Sums) -> Iterator[Any]:
    sizes = HistogramMetricFamily("llm_router_request_tokens", "Tokens of a request.", labels=["direction"])
    sizes.add_metric(["input"], sums.input_sizes.cumulative(), sums.input_sizes.sum)
    sizes.add_metric(["output"], sums.output_sizes.cumulative(), sums.output_sizes.sum)
    yield sizes
    yield CounterMetricFamily(
        "llm_router_estimated_counts", "Requests whose tokens were estimated, at least in part.", sums.estimated
    )


class ProcessesCollector:
    """CPU, memory and descriptors of several processes in one; the start is that of the oldest."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids

    def describe(self) -> list[Any]:
        """Nothing to tell beforehand."""
        return []

    def collect(self) -> Iterator[Any]:
        """The families of one process, each with the sum over all."""
        families: dict[str, Any] = {}
        values: dict[str, list[float]] = {}
        for pid in self._pids():
            for family in ProcessCollector(registry=None, pid=partial(int, pid)).collect():
                families[family.name] = family
                values.setdefault(family.name, []).append(family.samples[0].value)
        for name, family in families.items():
            combine = min if name == "process_start_time_seconds" else sum
            family.samples = [family.samples[0]._replace(value=combine(values[name]))]
            yield family


def registry_of(collector: FiguresCollector, pids: Callable[[], Sequence[int]] | None = None) -> CollectorRegistry:
    """A registry of our own, with CPU, memory and descriptors (of this process or of `pids`) beside our figures."""
    registry = CollectorRegistry()
    registry.register(collector)
    if pids is None:
        ProcessCollector(registry=registry)
    else:
        registry.register(ProcessesCollector(pids))
    PlatformCollector(registry=registry)
    return registry
