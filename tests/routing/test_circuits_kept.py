"""What circuits tell of themselves, and what of them outlasts a restart or a clock that was set back."""

from __future__ import annotations

import pytest

from llm_router.config.values import BreakerSettings
from llm_router.errors import Failure, FailureKind
from llm_router.routing.breaker import Circuits
from tests.routing.circuits import KEYS, MODEL, OTHER, fail, opened


@pytest.mark.parametrize(
    ("kind", "times", "state"),
    [
        (FailureKind.RATE_LIMITED, 1, "cooldown"),
        (FailureKind.AUTHENTICATION, 1, "open"),
        (FailureKind.QUOTA_EXCEEDED, 1, "open"),
        (FailureKind.CONNECT_ERROR, 3, "open"),
        (FailureKind.SERVER_ERROR, 3, "open"),
    ],
)
def test_the_report_names_the_model_and_the_kind(circuits: Circuits, kind: FailureKind, times: int, state: str) -> None:
    """Whatever keeps a model out, the report has it, in a chain or not, and the word that attempts have for it."""
    fail(circuits, kind, 0, wait=20, times=times)
    about = circuits.report(dict.fromkeys(circuits.known_models(), KEYS), 1)["circuits"][MODEL]
    assert (about["state"], about["kind"]) == (state, kind.value)


@pytest.mark.parametrize(
    ("kind", "times", "now", "state", "wait"),
    [
        (FailureKind.SERVER_ERROR, 2, 0, "closed", 0),
        (FailureKind.SERVER_ERROR, 3, 100, "open", 200),
        (FailureKind.SERVER_ERROR, 3, 300, "half-open", 0),
        (FailureKind.CONNECT_ERROR, 3, 299.5, "open", 0.5),
        (FailureKind.RATE_LIMITED, 1, 5, "cooldown", 15),
        (FailureKind.RATE_LIMITED, 1, 20, "closed", 0),
        (FailureKind.AUTHENTICATION, 1, 100, "open", 200),
        (FailureKind.AUTHENTICATION, 1, 300, "closed", 0),
    ],
)
def test_the_report_tells_the_state_and_the_time_that_is_left(
    circuits: Circuits, kind: FailureKind, times: int, now: float, state: str, wait: float
) -> None:
    """Whoever watches sees whether a model may be asked, and when it will be; never a time that is over."""
    fail(circuits, kind, 0, wait=20, times=times)
    report = circuits.report({MODEL: KEYS, "q/m": KEYS[:0]}, now)
    about = report["circuits"][MODEL]
    assert (about["state"], about["retry_in_s"]) == (state, wait)
    assert about["words"] == ("x" if kind is FailureKind.CONNECT_ERROR else "")  # the others' may be the provider's
    assert report["open_circuits"] == ([MODEL] if state == "open" else [])
    assert (report["circuits"]["q/m"]["state"], report["circuits"]["q/m"]["retry_in_s"]) == ("closed", 0)


@pytest.mark.parametrize(
    ("kind", "state"), [(FailureKind.AUTHENTICATION, "open"), (FailureKind.RATE_LIMITED, "cooldown")]
)
def test_a_half_open_circuit_behind_a_refused_key_is_not_told_as_one(
    circuits: Circuits, kind: FailureKind, state: str
) -> None:
    """What keeps a model out is told, not a circuit that might be probed if that were not."""
    opened(circuits)
    fail(circuits, kind, 301, wait=20)
    about = circuits.report({MODEL: KEYS[:1]}, 302)["circuits"][MODEL]
    assert (about["state"], about["kind"]) == (state, kind.value)


def test_a_restart_neither_forgets_nor_prolongs(circuits: Circuits) -> None:
    """A dump taken over later holds the same wall-clock times."""
    opened(circuits)
    fail(circuits, FailureKind.RATE_LIMITED, 0, model=OTHER, wait=50)
    fail(circuits, FailureKind.AUTHENTICATION, 0, model="q/m")
    revived = Circuits(BreakerSettings())
    revived.load(circuits.dump(), 40)
    assert revived.dump() == circuits.dump()
    assert revived.admit(MODEL, KEYS, 299) is None


def test_a_clock_set_back_does_not_lock_a_model(circuits: Circuits) -> None:
    """Saved times beyond the recovery time are brought back to it."""
    opened(circuits)
    dump = circuits.dump()
    dump["models"][MODEL]["open_until"] = 10**9
    circuits.load(dump, 0)
    assert circuits.block(MODEL, KEYS, 300) is None


def test_a_clock_set_back_while_running_prolongs_no_wait(circuits: Circuits) -> None:
    """Circuits and accounts wait for their recovery time at most, cooldowns for an hour; early probes go on."""
    later = 10**6
    fail(circuits, FailureKind.SERVER_ERROR, later, times=3)
    circuits.bound_waits(0)
    assert circuits.admit(MODEL, KEYS, 2, early=True) is not None
    fail(circuits, FailureKind.RATE_LIMITED, later, model="q/m", wait=50)
    fail(circuits, FailureKind.AUTHENTICATION, later, model="r/m")
    circuits.bound_waits(0)
    assert circuits.block("r/m", KEYS, 300) is None
    assert circuits.block("q/m", KEYS, 3600) is None


@pytest.mark.parametrize("saved", [{}, {"models": 3}, {"models": {"a": {}}, "providers": {}}])
def test_a_foreign_dump_is_refused_and_changes_nothing(circuits: Circuits, saved: dict[str, object]) -> None:
    """A corrupt file raises before anything was taken over."""
    opened(circuits)
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        circuits.load(saved, 0)
    assert circuits.block(MODEL, KEYS, 0) is not None


def test_a_refused_key_whose_time_is_over_is_not_kept_over_a_restart(circuits: Circuits) -> None:
    """What a start would let pass anyway is forgotten with it."""
    fail(circuits, FailureKind.AUTHENTICATION, 0)
    saved = circuits.dump()
    for now, kept in ((100, 1), (300, 0)):
        later = Circuits(BreakerSettings())
        later.load(saved, now)
        assert len(later.dump()["accounts"]) == kept


def test_a_shorter_recovery_time_shortens_no_wait_that_runs(circuits: Circuits) -> None:
    """A failure that comes late, after a reload, does not bring the probe forward."""
    late = circuits.admit(MODEL, KEYS, 0)
    assert late is not None
    fail(circuits, FailureKind.SERVER_ERROR, 0, times=3)
    circuits.settings = BreakerSettings(recovery_timeout_sec=10)
    circuits.failed(late, Failure(FailureKind.SERVER_ERROR, "x"), 1)
    block = circuits.block(MODEL, KEYS, 2)
    assert block is not None
    assert block.until == 300
