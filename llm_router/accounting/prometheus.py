"""The live figures as Prometheus metric families, made at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

if TYPE_CHECKING:
    from llm_router.accounting.metrics import Metrics

_STATES: Final = ("closed", "open", "half_open", "cooldown")


class FiguresCollector:
    """Reads `Metrics` while they are summed. Holds no state."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Any]:
        """Nothing to tell beforehand: names are known once they are collected."""
        return []

    def collect(self) -> Iterator[Any]:
        """All families."""
        with self._metrics.summed():
            families = [*self._requests(), *self._models(), *self._sizes()]
        yield from families
        yield from self._now()

    def _requests(self) -> Iterator[Any]:
        metrics = self._metrics
        requests = CounterMetricFamily(
            "llm_router_requests", "Chat requests by how they ended.", labels=["category", "model", "outcome"]
        )
        for labels, count in metrics.outcomes.items():
            requests.add_metric(labels, count)
        yield requests
        attempts = CounterMetricFamily(
            "llm_router_attempts", "Tries at candidates by how they ended.", labels=["model", "kind"]
        )
        for attempt, count in metrics.attempts.items():
            attempts.add_metric(attempt, count)
        yield attempts
        yield CounterMetricFamily(
            "llm_router_failovers", "Tries beyond a request's first candidate.", value=metrics.failovers
        )
        durations = HistogramMetricFamily(
            "llm_router_request_duration_seconds", "From a request's admission to its end.", labels=["category"]
        )
        for category, histogram in metrics.durations.items():
            durations.add_metric([category], histogram.cumulative(), histogram.sum)
        yield durations

    def _models(self) -> Iterator[Any]:
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
        for model, figures in self._metrics.by_model.items():
            first_byte.add_metric([model], figures.first_byte.cumulative(), figures.first_byte.sum)
            tokens.add_metric([model, "input"], figures.input_tokens)
            tokens.add_metric([model, "cache_read"], figures.cached_input)
            tokens.add_metric([model, "output"], figures.output_tokens)
            tokens.add_metric([model, "reasoning"], figures.reasoning)
            for source, usd in figures.cost.items():
                cost.add_metric([model, source], usd)
            unknown.add_metric([model], figures.unknown_cost)
        return iter((first_byte, tokens, cost, unknown))

    def _sizes(self) -> Iterator[Any]:
        metrics = self._metrics
        sizes = HistogramMetricFamily("llm_router_request_tokens", "Tokens of a request.", labels=["direction"])
        sizes.add_metric(["input"], metrics.input_sizes.cumulative(), metrics.input_sizes.sum)
        sizes.add_metric(["output"], metrics.output_sizes.cumulative(), metrics.output_sizes.sum)
        yield sizes
        yield CounterMetricFamily(
            "llm_router_estimated_counts", "Requests whose tokens were estimated, at least in part.", metrics.estimated
        )

    def _now(self) -> Iterator[Any]:
        metrics = self._metrics
        yield InfoMetricFamily("llm_router_build", "The running version.", value={"version": metrics.version})
        circuits = GaugeMetricFamily(
            "llm_router_circuit_state", "1 for the state that a model's circuit is in.", labels=["model", "state"]
        )
        for model, circuit in metrics.circuits().get("circuits", {}).items():
            state = str(circuit.get("state", "")).replace("-", "_")
            for known in dict.fromkeys((*_STATES, state)):
                circuits.add_metric([model, known], float(known == state))
        yield circuits
        watched = metrics.watched
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
