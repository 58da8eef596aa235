"""First-token times as observed: the middle, the slow end, and a bounded memory of both."""

from __future__ import annotations

import random

from llm_router.routing.latency import P95_SAMPLES, FirstTokens


def test_the_middle_and_the_slow_end() -> None:
    """Whatever the order in which they came; the slow end is not told before enough is known."""
    seen = FirstTokens()
    assert (seen.typical("p/m"), seen.p95("p/m")) == (None, None)
    times = [number / 100 for number in range(P95_SAMPLES)]
    random.Random(1).shuffle(times)
    for known, time in enumerate(times):
        assert (seen.p95("p/m") is None) == (known < P95_SAMPLES)
        seen.note("p/m", time)
    assert seen.typical("p/m") == 0.1
    assert seen.p95("p/m") == 0.19
    assert seen.typical("p/other") is None


def test_the_latest_count() -> None:
    """A model that became quicker is known as quick before long."""
    seen = FirstTokens()
    for time in [9.0] * 1000 + [0.5] * 200:
        seen.note("p/m", time)
    assert (seen.typical("p/m"), seen.p95("p/m")) == (0.5, 0.5)


def test_memory_is_bounded() -> None:
    """Clients may name any model: those that were met first are forgotten first."""
    seen = FirstTokens()
    for number in range(2000):
        seen.note(f"p/{number}", 1.0)
    assert seen.typical("p/0") is None
    assert seen.typical("p/1999") == 1.0
    assert repr(seen) == "<FirstTokens models=1024>"
