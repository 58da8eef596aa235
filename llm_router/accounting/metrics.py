"""Live figures of this process: what `/metrics` shows as JSON and to Prometheus.

Sums under one lock, fed by the bookkeeper once per batch; all figures of a request appear together. Requests are added
up many at a time, at the latest when somebody asks. The Prometheus text is made when it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm_router.accounting.booking import LedgerRecord
from llm_router.accounting.sums import Sums, Watched

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_RECENT: Final = 50
_IN_VAIN: Final = 5
# So many settled requests are added up at a time, or fewer when somebody asks.
_AT_ONCE: Final = 128


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
        self._recent: deque[LedgerRecord] = deque(maxlen=_RECENT)
        self._sums = Sums()
        self._registry: CollectorRegistry | None = None
        self.version = version
        self.circuits: Callable[[], Mapping[str, Any]] = no_circuits
        self.watched: Watched | None = None
        self.pids: Callable[[], Sequence[int]] | None = None

    def __repr__(self) -> str:
        return f"<Metrics {self._sums!r} fresh={len(self._fresh)}>"

    @contextlib.contextmanager
    def summed(self) -> Iterator[Sums]:
        """While this is entered the sums hold every request that was observed, and none changes."""
        with self._lock:
            self._add_up()
            yield self._sums

    def observe(self, batch: Sequence[LedgerRecord]) -> None:
        """Takes over settled requests, each as a whole."""
        with self._lock:
            self._fresh.extend(batch)
            if len(self._fresh) >= _AT_ONCE:
                self._add_up()

    def _add_up(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._sums.add(fresh)
        self._recent.extend(fresh[-_RECENT:])

    def to_json(self) -> dict[str, Any]:
        """The figures under the names that the contract fixes, and a few more."""
        with self.summed() as sums:
            outcomes = sums.requests_by(2)
            total = sum(outcomes.values())
            timed = sum(sum(histogram.counts) for histogram in sums.durations.values())
            seconds = sum(histogram.sum for histogram in sums.durations.values())
            success, cancelled = outcomes.get("completed", 0), outcomes.get("cancelled", 0)
            figures = {
                "requests": {
                    "total": total,
                    "success": success,
                    "failed": total - success - cancelled,
                    "cancelled": cancelled,
                },
                "avg_latency_ms": round(seconds * 1000 / timed, 2) if timed else 0.0,
                "total_cost_usd": round(sums.cost, 10),
                "unknown_cost_requests": sum(model.unknown_cost for model in sums.by_model.values()),
                "estimated_counts": sums.estimated,
                "failovers": sums.failovers,
                "model_distribution": sums.requests_by(1),
                "category_distribution": sums.requests_by(0),
                "provider_distribution": dict(sums.providers),
            }
            recent = list(self._recent)
        figures["circuit_breaker"] = self.circuits()
        figures["recent_requests"] = [_recent(record) for record in reversed(recent)]
        if self.watched is not None:
            figures["in_flight"] = self.watched.in_flight
            figures["unsettled"] = self.watched.queued
        return figures

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
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("text/plain")
        return encode(self._registry), content_type


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
        "failure": kind.failure,
        "attempts": kind.attempt_count,
        # Where nobody answered: who failed or was not asked, and why.
        "in_vain": [] if kind.model else [f"{one.model}:{one.kind}" for one in record.attempts[:_IN_VAIN]],
        "first_byte_ms": record.first_byte_ms,
        "total_ms": record.total_ms,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "cost_usd": record.cost_usd,
        "cost_source": kind.cost_source,
    }
