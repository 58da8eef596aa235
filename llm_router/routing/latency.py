"""How long models took to their first token, as observed: for ordering chains by latency and for hedging."""

from __future__ import annotations

from collections import OrderedDict, deque

_SAMPLES = 200
_MODELS_MOST = 1024
# Fewer samples than this say nothing about a 95th percentile.
P95_SAMPLES = 20


class FirstTokens:
    """The latest first-token times of each model, in seconds; bounded in models and in samples."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<FirstTokens models={len(self._seen)}>"

    def note(self, model: str, seconds: float) -> None:
        """One answer's time to its first token."""
        samples = self._seen.get(model)
        if samples is None:
            if len(self._seen) >= _MODELS_MOST:
                self._seen.popitem(last=False)
            samples = self._seen[model] = deque(maxlen=_SAMPLES)
        samples.append(seconds)

    def typical(self, model: str) -> float | None:
        """The median, or None for a model that was never seen."""
        samples = self._seen.get(model)
        return sorted(samples)[len(samples) // 2] if samples else None

    def p95(self, model: str) -> float | None:
        """The 95th percentile, or None while too little is known."""
        samples = self._seen.get(model)
        if samples is None or len(samples) < P95_SAMPLES:
            return None
        return sorted(samples)[int(len(samples) * 0.95)]
