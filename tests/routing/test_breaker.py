"""Circuits, cooldowns and accounts as a state machine, with the clock as an argument."""

from __future__ import annotations

import pytest

from llm_router.errors import Failure, FailureKind
from llm_router.routing.breaker import CIRCUITS_MOST, Circuits, Permit
from tests.routing.circuits import KEYS, MODEL, OTHER, fail, opened

COUNTED = [
    FailureKind.FIRST_BYTE_TIMEOUT,
    FailureKind.IDLE_TIMEOUT,
    FailureKind.CONNECTION_LOST,
    FailureKind.PROTOCOL_ERROR,
    FailureKind.RESPONSE_TOO_LARGE,
    FailureKind.REDIRECT,
    FailureKind.SERVER_ERROR,
    FailureKind.OVERLOADED,
    FailureKind.INVALID_RESPONSE,
    FailureKind.UPSTREAM_ERROR,
    FailureKind.EMPTY_COMPLETION,
    FailureKind.TRUNCATED,
]
NOT_COUNTED = [
    FailureKind.INVALID_REQUEST,
    FailureKind.UNSUPPORTED,
    FailureKind.CONTEXT_LENGTH,
    FailureKind.CONTENT_POLICY,
    FailureKind.CANCELLED,
]


@pytest.mark.parametrize("kind", COUNTED)
def test_three_in_a_row_open_the_model_alone(circuits: Circuits, kind: FailureKind) -> None:
    """The third counted failure opens the circuit of the model, not of its neighbour."""
    fail(circuits, kind, 0, times=2)
    assert circuits.block(MODEL, KEYS, 0) is None
    fail(circuits, kind, 0)
    block = circuits.block(MODEL, KEYS, 0)
    assert block is not None
    assert (block.kind, block.until, block.by_failures) == ("open", 300, True)
    assert circuits.block(OTHER, KEYS, 0) is None


@pytest.mark.parametrize("kind", NOT_COUNTED)
def test_a_circuit_is_no_weapon(circuits: Circuits, kind: FailureKind) -> None:
    """What a client can provoke never closes a model to others."""
    fail(circuits, kind, 0, times=50)
    assert circuits.block(MODEL, KEYS, 0) is None


@pytest.mark.parametrize("kind", [FailureKind.CONNECT_ERROR, FailureKind.CONNECT_TIMEOUT])
def test_connection_failures_count_for_the_provider(circuits: Circuits, kind: FailureKind) -> None:
    """Three refused connections at any of its models close the provider."""
    fail(circuits, kind, 0, times=2)
    fail(circuits, kind, 0, model=OTHER)
    assert circuits.block(MODEL, KEYS, 0) is not None
    assert circuits.block("q/m", KEYS, 0) is None


def test_an_answer_from_the_provider_ends_its_row(circuits: Circuits) -> None:
    """Failures of the connection count in a row: a response head in between starts the count anew."""
    fail(circuits, FailureKind.CONNECT_ERROR, 0, times=2)
    permit = circuits.admit(MODEL, KEYS, 0)
    assert permit is not None
    circuits.connected(permit)
    circuits.failed(permit, Failure(FailureKind.SERVER_ERROR, "x"), 0)
    fail(circuits, FailureKind.CONNECT_ERROR, 0)
    assert circuits.block(OTHER, KEYS, 0) is None


@pytest.mark.parametrize("kind", [FailureKind.AUTHENTICATION, FailureKind.QUOTA_EXCEEDED])
def test_a_refused_account_closes_the_provider_at_once(circuits: Circuits, kind: FailureKind) -> None:
    """One 401 or 402 closes all models of that account for the recovery time, and only of that account."""
    fail(circuits, kind, 0)
    block = circuits.block(OTHER, KEYS, 299)
    assert block is not None
    assert (block.kind, block.by_failures) == ("account", False)
    assert circuits.block(OTHER, ("another",), 0) is None
    assert circuits.block(OTHER, KEYS, 300) is None


@pytest.mark.parametrize(("wait", "until"), [(7, 7), (None, 10), (0, 0), (10**9, 3600)])
def test_a_rate_limit_is_a_cooldown(circuits: Circuits, wait: float | None, until: float) -> None:
    """429 waits as long as it was told: 10 s without a word, one hour at most; it counts as no failure."""
    fail(circuits, FailureKind.RATE_LIMITED, 0, wait=wait)
    if until:
        block = circuits.block(MODEL, KEYS, until - 0.1)
        assert block is not None
        assert (block.kind, block.until) == ("cooldown", until)
        assert circuits.admit(MODEL, KEYS, until - 0.1, early=True) is None
    assert circuits.block(MODEL, KEYS, until) is None
    assert circuits.block(OTHER, KEYS, 0) is None


def test_cooldowns_are_bounded(circuits: Circuits) -> None:
    """A client that names ever new models fills no memory, and the newest are the ones that are kept."""
    for number in range(CIRCUITS_MOST + 100):
        fail(circuits, FailureKind.RATE_LIMITED, 0, model=f"p/{number}", wait=3600)
    assert len(circuits.dump()["cooldowns"]) == CIRCUITS_MOST
    assert circuits.block(f"p/{CIRCUITS_MOST + 99}", KEYS, 1) is not None


def test_a_longer_cooldown_is_kept(circuits: Circuits) -> None:
    """A later, shorter wait does not shorten the one that runs."""
    first, second = circuits.admit(MODEL, KEYS, 0), circuits.admit(MODEL, KEYS, 0)
    assert first is not None
    assert second is not None
    circuits.failed(first, Failure(FailureKind.RATE_LIMITED, "x", retry_after=60), 0)
    circuits.failed(second, Failure(FailureKind.RATE_LIMITED, "x", retry_after=1), 0)
    assert circuits.block(MODEL, KEYS, 59) is not None


def test_a_gone_model_opens_at_once_in_a_chain_only(circuits: Circuits) -> None:
    """404 of a chain model opens its circuit; of an explicit model, which any client can invent, nothing."""
    permit = circuits.admit(MODEL, KEYS, 0)
    assert permit is not None
    circuits.failed(permit, Failure(FailureKind.MODEL_NOT_FOUND, "x"), 0, in_chain=False)
    assert circuits.block(MODEL, KEYS, 0) is None
    fail(circuits, FailureKind.MODEL_NOT_FOUND, 0)
    assert circuits.block(MODEL, KEYS, 0) is not None


def probe(circuits: Circuits, now: float = 300) -> Permit:
    """The one permit of a half-open circuit."""
    permit = circuits.admit(MODEL, KEYS, now)
    assert permit is not None
    assert permit.probe
    assert circuits.admit(MODEL, KEYS, now) is None
    return permit


def test_half_open_hands_out_one_permit(circuits: Circuits) -> None:
    """After the recovery time one request may try; all others are refused until it knows."""
    opened(circuits)
    assert circuits.admit(MODEL, KEYS, 299) is None
    probe(circuits)
    assert circuits.report({MODEL: KEYS}, 300)["circuits"][MODEL]["state"] == "half-open"


def test_a_failed_probe_opens_again_for_the_whole_time(circuits: Circuits) -> None:
    """One failure is enough in the half-open state."""
    circuits.failed(probe(opened(circuits)), Failure(FailureKind.SERVER_ERROR, "x"), 300)
    assert circuits.admit(MODEL, KEYS, 599) is None
    probe(circuits, 600)


def test_a_commit_closes_and_a_later_cut_counts(circuits: Circuits) -> None:
    """A commit frees the way for everybody; the row stands until an answer ends whole, so a cut opens again."""
    permit = probe(opened(circuits))
    circuits.committed(permit)
    assert circuits.block(MODEL, KEYS, 300) is None
    circuits.failed(permit, Failure(FailureKind.TRUNCATED, "x"), 301)
    assert circuits.block(MODEL, KEYS, 301) is not None


def test_a_whole_answer_resets_the_row(circuits: Circuits) -> None:
    """After a whole answer three new failures are needed."""
    permit = probe(opened(circuits))
    circuits.committed(permit)
    circuits.completed(permit)
    fail(circuits, FailureKind.SERVER_ERROR, 302, times=2)
    assert circuits.block(MODEL, KEYS, 302) is None


def test_a_probe_whose_client_leaves_frees_its_permit(circuits: Circuits) -> None:
    """A cancelled probe neither closes nor locks the circuit."""
    circuits.released(probe(opened(circuits)))
    probe(circuits)


def test_a_permit_is_settled_once(circuits: Circuits) -> None:
    """Settling twice counts once."""
    permit = circuits.admit(MODEL, KEYS, 0)
    assert permit is not None
    for _ in range(5):
        circuits.failed(permit, Failure(FailureKind.SERVER_ERROR, "x"), 0)
    assert circuits.block(MODEL, KEYS, 0) is None


def test_an_early_probe_once_a_second(circuits: Circuits) -> None:
    """Where nobody else is left an open circuit may be probed early, but only once a second."""
    opened(circuits)
    assert circuits.admit(MODEL, KEYS, 0.5, early=True) is None
    permit = circuits.admit(MODEL, KEYS, 1.1, early=True)
    assert permit is not None
    assert circuits.admit(MODEL, KEYS, 5, early=True) is None
    circuits.failed(permit, Failure(FailureKind.SERVER_ERROR, "x"), 1.2)
    assert circuits.admit(MODEL, KEYS, 1.9, early=True) is None
    assert circuits.admit(MODEL, KEYS, 2.3, early=True) is not None


def test_only_open_circuits_say_when_a_chain_was_probed_last(circuits: Circuits) -> None:
    """A provider that is reached, and whose other models fail, holds no probe of a chain up."""
    fail(circuits, FailureKind.CONNECT_ERROR, 0)
    opened(circuits)
    fail(circuits, FailureKind.RATE_LIMITED, 50, model=OTHER, wait=1)
    assert circuits.last_attempt(MODEL) == 0
    permit = circuits.admit(MODEL, KEYS, 60, early=True)
    assert permit is not None
    assert circuits.last_attempt(MODEL) == 60


def test_several_keys_are_tried_in_turn(circuits: Circuits) -> None:
    """A refused or limited key is passed over while another is good."""
    keys = ("one", "two")
    first = circuits.admit(MODEL, keys, 0)
    assert first is not None
    assert first.account == "one"
    circuits.failed(first, Failure(FailureKind.AUTHENTICATION, "x"), 0)
    second = circuits.admit(MODEL, keys, 0)
    assert second is not None
    assert second.account == "two"
    circuits.failed(second, Failure(FailureKind.RATE_LIMITED, "x", retry_after=20), 0)
    block = circuits.block(MODEL, keys, 0)
    assert block is not None
    assert (block.kind, block.until) == ("cooldown", 20)


def test_reset_lets_go_of_model_and_provider(circuits: Circuits) -> None:
    """A reset clears circuit, cooldown and count of the model, and its provider's circuit."""
    opened(circuits)
    fail(circuits, FailureKind.CONNECT_ERROR, 0, model=OTHER, times=3)
    circuits.reset(MODEL)
    assert circuits.block(MODEL, KEYS, 0) is None
    assert circuits.block(OTHER, KEYS, 0) is None


def test_invented_models_do_not_fill_the_memory(circuits: Circuits) -> None:
    """The number of circuits has a bound."""
    for number in range(5000):
        fail(circuits, FailureKind.SERVER_ERROR, 0, model=f"p/{number}")
    assert len(circuits.known_models()) <= 4096


@pytest.mark.parametrize("end", ["accepted", "refused", "released", "other"])
def test_a_refused_key_is_tried_by_one_attempt(circuits: Circuits, end: str) -> None:
    """After the recovery time one attempt tries a refused key for all models; the others wait for what it finds."""
    fail(circuits, FailureKind.AUTHENTICATION, 0)
    trial = circuits.admit(MODEL, KEYS, 301)
    assert trial is not None
    assert circuits.admit(MODEL, KEYS, 301) is None
    assert circuits.admit(OTHER, KEYS, 301) is None
    block = circuits.block(OTHER, KEYS, 301)
    assert block is not None
    assert block.kind == "account"
    if end == "accepted":
        circuits.committed(trial)
        assert all(circuits.admit(model, KEYS, 302) is not None for model in (MODEL, OTHER, MODEL))
        return
    if end == "refused":
        circuits.failed(trial, Failure(FailureKind.AUTHENTICATION, "x"), 302)
        assert circuits.admit(OTHER, KEYS, 500) is None
        assert circuits.admit(OTHER, KEYS, 603) is not None
        return
    if end == "released":
        circuits.released(trial)
    else:
        circuits.failed(trial, Failure(FailureKind.SERVER_ERROR, "x"), 302)
    assert circuits.admit(OTHER, KEYS, 302) is not None
    assert circuits.admit(OTHER, KEYS, 302) is None


def test_a_refused_key_that_is_forgotten_while_it_is_tried_is_free(circuits: Circuits) -> None:
    """Nobody waits any more for an attempt with a key that nothing is known against, be it known of others or not."""
    fail(circuits, FailureKind.AUTHENTICATION, 0)
    trial = circuits.admit(MODEL, KEYS, 3890)
    assert trial is not None
    elsewhere = circuits.admit("q/m", ("key2",), 3910)
    assert elsewhere is not None
    circuits.failed(elsewhere, Failure(FailureKind.RATE_LIMITED, "x"), 3910)
    assert circuits.block(OTHER, KEYS, 3911) is None
    assert circuits.admit(OTHER, KEYS, 3911) is not None


def test_a_key_that_was_taken_is_not_tried_any_more(circuits: Circuits) -> None:
    """The attempt that proved a key holds nobody up when its stream breaks off later, whatever the key did since."""
    fail(circuits, FailureKind.AUTHENTICATION, 0)
    proof = circuits.admit(MODEL, KEYS, 301)
    assert proof is not None
    circuits.committed(proof)
    fail(circuits, FailureKind.AUTHENTICATION, 302)
    trial = circuits.admit(OTHER, KEYS, 700)
    assert trial is not None
    circuits.failed(proof, Failure(FailureKind.TRUNCATED, "x"), 701)
    assert circuits.admit(OTHER, KEYS, 702) is None


def test_a_failure_is_not_taken_back(circuits: Circuits) -> None:
    """What comes after an attempt was booked as failed is no end of its row."""
    permit = circuits.admit(MODEL, KEYS, 0)
    assert permit is not None
    circuits.failed(permit, Failure(FailureKind.SERVER_ERROR, "x"), 0)
    circuits.completed(permit)
    assert circuits.report({MODEL: KEYS}, 0)["circuits"][MODEL]["failures"] == 1


def test_an_answer_from_before_changes_nothing_about_an_open_circuit(circuits: Circuits) -> None:
    """What was under way when a circuit opened may end whole: it closes nothing, and why it is open is still told."""
    before = circuits.admit(MODEL, KEYS, 0)
    assert before is not None
    fail(circuits, FailureKind.SERVER_ERROR, 0, times=3)
    circuits.committed(before)
    circuits.completed(before)
    block = circuits.block(MODEL, KEYS, 1)
    assert block is not None
    assert "server_error" in block.reason
    assert circuits.report({MODEL: KEYS}, 1)["circuits"][MODEL]["failures"] == 3


def test_an_answer_from_before_does_not_clear_the_row_of_a_provider(circuits: Circuits) -> None:
    """A provider that could be reached before its circuit opened is not thereby one that can be reached now."""
    before = circuits.admit(OTHER, KEYS, 0)
    assert before is not None
    fail(circuits, FailureKind.CONNECT_ERROR, 0, times=3)
    circuits.connected(before)
    about = circuits.report({MODEL: KEYS}, 1)["circuits"][MODEL]
    assert (about["state"], about["provider_failures"]) == ("open", 3)


def test_a_circuit_that_has_just_opened_is_not_probed_at_once(circuits: Circuits) -> None:
    """The failure that opened it was an attempt, too: the early probe comes a second later."""
    fail(circuits, FailureKind.SERVER_ERROR, 100, times=3)
    assert circuits.last_attempt(MODEL) == 100
    assert circuits.last_attempt("q/m") == 0
    assert circuits.admit(MODEL, KEYS, 100.5, early=True) is None
    assert circuits.admit(MODEL, KEYS, 101, early=True) is not None


def test_invented_models_do_not_close_a_circuit(circuits: Circuits) -> None:
    """Past the bound those go first that keep nobody out."""
    fail(circuits, FailureKind.SERVER_ERROR, 0, times=3)
    for number in range(CIRCUITS_MOST + 1):
        fail(circuits, FailureKind.SERVER_ERROR, 0, model=f"p/{number}")
    assert circuits.block(MODEL, KEYS, 1) is not None


def test_a_circuit_that_is_probed_may_be_asked_for_now(circuits: Circuits) -> None:
    """Nobody is told to wait until a moment that has passed."""
    fail(circuits, FailureKind.SERVER_ERROR, 0, times=3)
    assert circuits.admit(MODEL, KEYS, 350) is not None
    block = circuits.block(MODEL, KEYS, 360)
    assert block is not None
    assert block.until == 360
