"""What the tests of circuits share: a model and its key, attempts that fail, and a circuit that is open."""

from __future__ import annotations

from llm_router.errors import Failure, FailureKind
from llm_router.routing.breaker import Circuits

MODEL, OTHER = "p/m", "p/other"
KEYS = ("key1",)


def fail(
    circuits: Circuits, kind: FailureKind, now: float, *, model: str = MODEL, wait: float | None = None, times: int = 1
) -> None:
    """Lets `times` attempts fail."""
    for _ in range(times):
        permit = circuits.admit(model, KEYS, now)
        assert permit is not None
        circuits.failed(permit, Failure(kind, "x", retry_after=wait), now)


def opened(circuits: Circuits) -> Circuits:
    """The circuit of MODEL is open until 300."""
    fail(circuits, FailureKind.SERVER_ERROR, 0, times=3)
    return circuits
