"""What failures mean: go on, answer now, and the answer when all have failed."""

from __future__ import annotations

import dataclasses

import pytest

from llm_router.config.values import ApiKey, Provider
from llm_router.errors import ApiError, Failure, FailureKind
from llm_router.proxy.failover import Tried, chain_failed, ends_here, has_failed, provider_answer
from llm_router.routing.plan import Candidate, Obstacle, Skipped

K = FailureKind


def candidate(model: str) -> Candidate:
    """A candidate whose provider wants P_KEY."""
    provider = Provider("p", "http://p", keys=(ApiKey("secret", "P_KEY"),), key_variables=("P_KEY",))
    return Candidate(model, provider, model, None, ("k",))


def tried(kind: K, *, wait: float | None = None, status: int | None = None, model: str = "p/m") -> Tried:
    """A failed attempt."""
    return Tried(candidate(model), Failure(kind, f"words of {kind}", status, retry_after=wait), 12.34)


def skipped(obstacle: Obstacle, until: float = 0.0, field: str | None = None) -> Skipped:
    """A model that was not tried."""
    return Skipped("p/s", obstacle, "because", until, obstacle is Obstacle.CIRCUIT, candidate("p/s"), field)


def failed(*what: Tried | Skipped, explicit: bool = False, probed: bool = False) -> ApiError:
    """The answer when nobody is left, at time 100."""
    return chain_failed(
        [w for w in what if isinstance(w, Tried)],
        [w for w in what if isinstance(w, Skipped)],
        explicit=explicit,
        now=100.0,
        recovery=300.0,
        probed=probed,
    )


@pytest.mark.parametrize(
    ("kind", "explicit", "ends"),
    [
        (K.INVALID_REQUEST, False, True),
        (K.CONTENT_POLICY, False, True),
        (K.UNSUPPORTED, False, False),
        (K.UNSUPPORTED, True, True),
        (K.CONTEXT_LENGTH, False, False),
        (K.AUTHENTICATION, True, False),
        (K.SERVER_ERROR, False, False),
    ],
)
def test_what_ends_the_chain(kind: K, explicit: bool, ends: bool) -> None:
    """The request's own faults end it; what one model cannot take does so only where the client named the model."""
    assert ends_here(Failure(kind, "x"), explicit=explicit) is ends


@pytest.mark.parametrize(
    ("kind", "model", "failed_there"),
    [
        (K.SERVER_ERROR, "p/m", True),
        (K.RATE_LIMITED, "p/m", True),
        (K.SERVER_ERROR, "p/other", False),
        (K.UNSUPPORTED, "p/m", False),
        (K.CONTEXT_LENGTH, "p/m", False),
        (K.CONTENT_POLICY, "p/m", False),
        (K.CANCELLED, "p/m", False),
    ],
)
def test_whether_a_model_has_failed(kind: K, model: str, failed_there: bool) -> None:
    """A refusal of the one request is no failure, nor is being given up."""
    assert has_failed("p/m", [tried(K.CONNECT_ERROR, model="p/n"), tried(kind, model=model)]) is failed_there


def test_all_failed_is_503_with_attempts() -> None:
    """The list names model, kind, status and time; a retry is invited."""
    error = failed(tried(K.SERVER_ERROR, status=500), tried(K.CONNECT_ERROR, model="p/n"))
    assert (error.status, error.code) == (503, "all_candidates_failed")
    assert error.extra["attempts"][0] == {"model": "p/m", "kind": "server_error", "status": 500, "ms": 12.3}
    assert error.headers == {"Retry-After": "1"}


@pytest.mark.parametrize(
    "what",
    [
        [tried(K.AUTHENTICATION, status=401)],
        [tried(K.QUOTA_EXCEEDED, status=402), tried(K.MODEL_NOT_FOUND, status=404)],
        [skipped(Obstacle.NO_KEY)],
        [skipped(Obstacle.CIRCUIT, until=400.0)],
    ],
)
def test_a_retry_that_cannot_help_is_discouraged(what: list[Tried | Skipped]) -> None:
    """Keys, credit, missing models and long-open circuits do not heal within a client's patience."""
    assert failed(*what).headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ([tried(K.SERVER_ERROR, status=500), skipped(Obstacle.CIRCUIT, until=400)], "1"),
        ([tried(K.FIRST_BYTE_TIMEOUT), tried(K.RATE_LIMITED, wait=3000)], "1"),
        ([tried(K.OVERLOADED, wait=7, status=503), skipped(Obstacle.COOLDOWN, until=400)], "7"),
        ([tried(K.OVERLOADED, wait=0, status=503)], "1"),
        ([tried(K.AUTHENTICATION, status=401), skipped(Obstacle.CIRCUIT, until=160)], "60"),
    ],
)
def test_a_retry_is_invited_for_whoever_may_answer_first(what: list[Tried | Skipped], seconds: str) -> None:
    """One model that just failed may answer at once, however long the others are left alone."""
    assert failed(*what).headers == {"Retry-After": seconds}


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ([tried(K.AUTHENTICATION, status=401)], "300"),
        ([tried(K.QUOTA_EXCEEDED, status=429, wait=1)], "300"),
        ([tried(K.AUTHENTICATION, status=401), skipped(Obstacle.ACCOUNT, until=120)], "20"),
        ([skipped(Obstacle.NO_KEY)], "300"),
    ],
)
def test_nobody_is_invited_before_a_refused_key_may_be_tried_again(what: list[Tried | Skipped], seconds: str) -> None:
    """The first answer says what the next one would: until the recovery time is over nobody is asked."""
    assert failed(*what).headers == {"Retry-After": seconds, "x-should-retry": "false"}


def test_a_retry_is_invited_where_the_chain_is_probed() -> None:
    """A chain that is probed once a second may answer in a second, however long its circuits are open."""
    assert failed(skipped(Obstacle.CIRCUIT, until=400), probed=True).headers == {"Retry-After": "1"}
    assert failed(tried(K.MODEL_NOT_FOUND, status=404), probed=True).headers["x-should-retry"] == "false"


def test_a_wait_beyond_a_clients_patience_is_said() -> None:
    """A minute is waited for; what takes longer is no matter of retries."""
    assert "x-should-retry" not in failed(skipped(Obstacle.CIRCUIT, until=160)).headers
    assert failed(skipped(Obstacle.CIRCUIT, until=161)).headers == {"Retry-After": "61", "x-should-retry": "false"}


def test_a_missing_key_names_the_variables() -> None:
    """The 503 says which variable to set."""
    error = failed(skipped(Obstacle.NO_KEY))
    assert error.status == 503
    assert "P_KEY" in error.message


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (tried(K.AUTHENTICATION, status=401), True),
        (tried(K.QUOTA_EXCEEDED, status=402), True),
        (skipped(Obstacle.ACCOUNT, until=400), True),
        (tried(K.SERVER_ERROR, status=500), False),
        (skipped(Obstacle.CIRCUIT, until=400), False),
    ],
)
def test_a_refused_key_names_its_variable(what: Tried | Skipped, named: bool) -> None:
    """Who reads the 503 learns which setting to look at, and no key."""
    message = failed(what).message
    assert ("check P_KEY" in message) is named
    assert "secret" not in message


def test_a_provider_that_wants_a_key_after_all() -> None:
    """Where none was configured the 503 says which setting names one."""
    keyless = Candidate("p/m", Provider("p", "http://p"), "m", None, ("k",))
    message = failed(Tried(keyless, Failure(K.AUTHENTICATION, "no", 401), 1.0)).message
    assert "p/m: authentication, asked without a key: providers.p.api_key_env names its variable" in message
    assert "without a key" not in failed(Tried(keyless, Failure(K.SERVER_ERROR, "no", 500), 1.0)).message


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ([tried(K.RATE_LIMITED, wait=7.2), tried(K.RATE_LIMITED, wait=3.1)], "4"),
        ([tried(K.RATE_LIMITED, wait=0.0)], "0"),
        ([tried(K.RATE_LIMITED)], "10"),
        ([tried(K.RATE_LIMITED, wait=1e9)], "3600"),
        ([skipped(Obstacle.COOLDOWN, until=130.5)], "31"),
        ([tried(K.RATE_LIMITED, wait=50), skipped(Obstacle.COOLDOWN, until=105)], "5"),
    ],
)
def test_all_rate_limited_is_429(what: list[Tried | Skipped], seconds: str) -> None:
    """The smallest wait, in whole seconds; no word against a retry."""
    error = failed(*what)
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert error.headers == {"Retry-After": seconds}


def test_the_words_of_a_rate_limit_are_of_whom_can_be_asked_first() -> None:
    """The wait and the words belong together."""
    sooner = Tried(candidate("p/n"), Failure(K.RATE_LIMITED, "come back soon", 429, retry_after=2), 1.0)
    assert failed(tried(K.RATE_LIMITED, wait=50), sooner, tried(K.RATE_LIMITED)).message == "come back soon"


def test_models_that_cannot_take_a_request_make_it_no_less_rate_limited() -> None:
    """Nor do those without a key: only who could answer counts."""
    unable = [skipped(Obstacle.TOOLS), skipped(Obstacle.NO_KEY)]
    assert failed(tried(K.RATE_LIMITED, wait=3), *unable).status == 429
    assert failed(tried(K.RATE_LIMITED, wait=3), skipped(Obstacle.CIRCUIT, until=105)).status == 503


def test_out_of_quota_is_not_rate_limited() -> None:
    """A 429 about billing does not heal by waiting."""
    assert failed(tried(K.QUOTA_EXCEEDED, status=429), tried(K.RATE_LIMITED, wait=1)).status == 503


def test_an_explicit_model_that_is_gone_is_404() -> None:
    """Only for a model that the client named, and with the provider's words."""
    error = failed(tried(K.MODEL_NOT_FOUND, status=404), explicit=True)
    assert (error.status, error.code) == (404, "model_not_found")
    assert "words of" in error.message
    assert failed(tried(K.MODEL_NOT_FOUND, status=404)).status == 503


def test_an_overflow_that_nobody_can_hold_is_400() -> None:
    """context_length_exceeded with the provider's words, once no larger window is left."""
    error = failed(tried(K.CONTEXT_LENGTH, status=400), skipped(Obstacle.CONTEXT))
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert "words of" in error.message


def test_an_overflow_beside_trouble_is_503() -> None:
    """A larger model that failed for its own reasons may hold the prompt later."""
    assert failed(tried(K.CONTEXT_LENGTH), tried(K.SERVER_ERROR)).status == 503
    assert failed(tried(K.CONTEXT_LENGTH), skipped(Obstacle.CIRCUIT, until=110)).status == 503


def test_a_request_that_no_model_takes_is_400() -> None:
    """If all refuse for what the request is, the last provider's words are the answer."""
    error = failed(tried(K.UNSUPPORTED, status=422), tried(K.UNSUPPORTED, status=400))
    assert (error.status, error.message) == (400, "words of unsupported")


GONE = dataclasses.replace(skipped(Obstacle.CIRCUIT, until=110), gone=True)


@pytest.mark.parametrize("beside", [tried(K.MODEL_NOT_FOUND, status=404), GONE, skipped(Obstacle.NO_KEY)])
def test_a_model_that_is_not_there_hides_no_refusal(beside: Tried | Skipped) -> None:
    """A model that is gone, asked or left out, or has no key could not have taken it either: no retry heals that."""
    error = failed(tried(K.UNSUPPORTED, status=422), beside)
    assert (error.status, error.message) == (422, "words of unsupported")
    for refused in ((), (tried(K.UNSUPPORTED),)):
        error = failed(*refused, tried(K.CONTEXT_LENGTH, status=400), beside)
        assert (error.status, error.code) == (400, "context_length_exceeded")


def test_models_that_are_gone_alone_are_503() -> None:
    """Nobody refused the request then, and what keeps the others out says nothing about it."""
    assert failed(tried(K.MODEL_NOT_FOUND, status=404), GONE).status == 503
    assert failed(GONE, skipped(Obstacle.TOOLS)).status == 503


def test_an_explicit_model_with_another_trouble_is_not_gone() -> None:
    """Of two keys one may have failed for a reason of its own."""
    both = (tried(K.AUTHENTICATION, status=401), tried(K.MODEL_NOT_FOUND, status=404))
    assert failed(*both, explicit=True).status == 503


@pytest.mark.parametrize(
    ("obstacle", "code"), [(Obstacle.TOOLS, "no_able_candidate"), (Obstacle.CONTEXT, "context_length_exceeded")]
)
def test_a_chain_filtered_empty_names_the_field(obstacle: Obstacle, code: str) -> None:
    """When the planner left nobody for the request's own sake, the 400 names what stands in the way."""
    error = failed(skipped(obstacle, field="tools"))
    assert (error.status, error.code, error.param) == (400, code, "tools")


def test_provider_answers_keep_status_and_words() -> None:
    """400, 413 and 422 stay what they are; anything odd becomes 400."""
    for status, sent in ((400, 400), (413, 413), (422, 422), (418, 400)):
        assert provider_answer(Failure(K.INVALID_REQUEST, "w", status), []).status == sent
    policy = provider_answer(Failure(K.CONTENT_POLICY, "w", 403), [])
    assert (policy.status, policy.code) == (400, "content_policy_violation")


def test_why_there_was_no_connection_is_told() -> None:
    """These words are ours; those of a provider stay out of the answer of a chain."""
    message = failed(tried(K.CONNECT_ERROR), tried(K.SERVER_ERROR, status=500)).message
    assert message == "No candidate could answer (p/m: connect_error: words of connect_error; p/m: server_error)"
