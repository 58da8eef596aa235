"""What a failed attempt means: go on to the next candidate, or answer now; and the answer when all have failed.

Pure decisions over values; the dispatcher carries them out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_router.accounting.booking import SKIPPED, Attempt
from llm_router.errors import ApiError, Failure, FailureKind
from llm_router.routing.breaker import COOLDOWN_MOST, COOLDOWN_WITHOUT_WORD, EARLY_PROBE_EVERY
from llm_router.routing.plan import Candidate, Obstacle, Skipped

_AT_ONCE = frozenset({FailureKind.INVALID_REQUEST, FailureKind.CONTENT_POLICY})
# Failures that a retry of the same request cannot heal.
_HOPELESS = frozenset(
    {
        FailureKind.AUTHENTICATION,
        FailureKind.QUOTA_EXCEEDED,
        FailureKind.MODEL_NOT_FOUND,
        FailureKind.UNSUPPORTED,
        FailureKind.CONTEXT_LENGTH,
    }
)
_HOPELESS_OBSTACLES = frozenset(
    {
        Obstacle.NO_KEY,
        Obstacle.ACCOUNT,
        Obstacle.TOOLS,
        Obstacle.VISION,
        Obstacle.JSON_SCHEMA,
        Obstacle.CONTEXT,
        Obstacle.PRICE,
        Obstacle.MISFIT,
    }
)
_REQUEST_OBSTACLES = frozenset(
    {Obstacle.TOOLS, Obstacle.VISION, Obstacle.JSON_SCHEMA, Obstacle.CONTEXT, Obstacle.PRICE, Obstacle.MISFIT}
)
# What says nothing against the model that was asked.
_NOT_THE_MODEL = frozenset(
    {
        *_AT_ONCE,
        FailureKind.CONTEXT_LENGTH,
        FailureKind.UNSUPPORTED,
        FailureKind.CANCELLED,
        FailureKind.NO_RESOURCES,
    }
)
_NO_CONNECTION = frozenset({FailureKind.CONNECT_ERROR, FailureKind.NO_RESOURCES})
_OUR_ACCOUNT = frozenset({FailureKind.AUTHENTICATION, FailureKind.QUOTA_EXCEEDED})
# SDKs do not retry at all when Retry-After is longer than this.
_RETRY_SOON = 60.0
_DEFAULT_RETRY = 1.0


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt that was made in vain, for the `attempts` list of errors and of the ledger."""

    candidate: Candidate
    failure: Failure
    ms: float

    def booked(self) -> Attempt:
        """The same for the ledger."""
        return Attempt(self.candidate.model, self.failure.kind.value, self.failure.status, round(self.ms))

    def public(self) -> dict[str, Any]:
        """Model, kind, status, ms; no keys, no addresses."""
        return {
            "model": self.candidate.model,
            "kind": self.failure.kind.value,
            "status": self.failure.status,
            "ms": round(self.ms, 1),
        }


def is_blameless(failure: Failure, explains_empty: bool) -> bool:
    """Whether the circuit must not hear of it: the request itself explains an empty `stop` (no other emptiness)."""
    return failure.kind is FailureKind.EMPTY_COMPLETION and explains_empty


def has_failed(model: str, tried: Sequence[Tried]) -> bool:
    """Whether `model` was asked and failed; a refusal of this one request is no failure of the model."""
    return any(entry.candidate.model == model and entry.failure.kind not in _NOT_THE_MODEL for entry in tried)


def ends_here(failure: Failure, *, explicit: bool) -> bool:
    """Whether the provider's answer goes to the client now, without failover."""
    return failure.kind in _AT_ONCE or (explicit and failure.kind is FailureKind.UNSUPPORTED)


def provider_answer(failure: Failure, attempts: Sequence[Tried]) -> ApiError:
    """A provider's word about the request, as the client's own mistake (400-class) and in the provider's words."""
    extra = {"attempts": [tried.public() for tried in attempts]}
    if failure.kind is FailureKind.CONTENT_POLICY:
        return ApiError(400, failure.message, code="content_policy_violation", param=failure.param, extra=extra)
    status = failure.status if failure.status in (400, 404, 409, 413, 422) else 400
    if failure.kind is FailureKind.CONTEXT_LENGTH:
        code = "context_length_exceeded"
        return ApiError(400, failure.message, code=code, param=failure.param or "messages", extra=extra)
    return ApiError(status, failure.message, code=failure.code, param=failure.param, extra=extra)


def chain_failed(
    tried: Sequence[Tried],
    skipped: Sequence[Skipped],
    *,
    explicit: bool,
    now: float,
    recovery: float,
    probed: bool = False,
) -> ApiError:
    """The answer when no candidate is left; `now` is Unix time, as in what was skipped.

    `recovery` are the seconds for which nobody is asked who refused our key; where the chain is `probed` all the same
    the next request may be answered before any circuit's time has come.
    """
    if answer := _about_the_request(tried, skipped):
        return answer
    attempts = [entry.public() for entry in tried] + [_skipped_public(entry) for entry in skipped]
    waits = [max(0.0, entry.until - now) for entry in skipped if entry.until]
    hopeful = [entry.failure for entry in tried if entry.failure.kind not in _HOPELESS]
    waits += [wait for failure in hopeful if (wait := _wait(failure)) is not None]
    if _all_rate_limited(tried, skipped):
        return _rate_limited(tried, attempts, min(waits, default=_DEFAULT_RETRY))
    if explicit and len(tried) == 1 and not skipped and tried[0].failure.kind is FailureKind.MODEL_NOT_FOUND:
        message = tried[0].failure.message
        return ApiError(404, message, code="model_not_found", param="model", extra={"attempts": attempts})
    hopeless = not hopeful and all(entry.obstacle in _HOPELESS_OBSTACLES for entry in skipped)
    # Who failed without a word about when to come back may answer the next time, whatever the others wait for.
    waits += [_DEFAULT_RETRY for failure in hopeful if _wait(failure) is None]
    if probed and not hopeless:
        waits.append(EARLY_PROBE_EVERY)
    wait = min(waits, default=recovery if hopeless else _DEFAULT_RETRY)
    return _unavailable(tried, skipped, attempts, wait, hopeless=hopeless)


def _rate_limited(tried: Sequence[Tried], attempts: list[dict[str, Any]], wait: float) -> ApiError:
    return ApiError(
        429,
        _words_of_the_soonest(tried) or "Every model that could answer is rate limited; try again later",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        # A provider's own zero stays zero; everything else is rounded up to whole seconds.
        headers={"Retry-After": str(math.ceil(wait))},
        extra={"attempts": attempts},
    )


def _words_of_the_soonest(tried: Sequence[Tried]) -> str:
    """What the provider said that may be asked again first; nothing if nobody was asked."""
    soonest = min((entry.failure for entry in tried), key=lambda failure: _wait(failure) or 0.0, default=None)
    return soonest.message if soonest is not None else ""


def _wait(failure: Failure) -> float | None:
    """Seconds until the provider wants to be asked again, where it said so or its cooldown has a default."""
    wait = failure.retry_after
    if wait is None and failure.kind is FailureKind.RATE_LIMITED:
        wait = COOLDOWN_WITHOUT_WORD
    return None if wait is None else min(wait, COOLDOWN_MOST)


def _unavailable(
    tried: Sequence[Tried], skipped: Sequence[Skipped], attempts: list[dict[str, Any]], wait: float, *, hopeless: bool
) -> ApiError:
    headers = {"Retry-After": str(max(1, math.ceil(wait)))}
    if hopeless or wait > _RETRY_SOON:
        headers["x-should-retry"] = "false"
    return ApiError(
        503,
        _summary(tried, skipped),
        type="server_error",
        code="all_candidates_failed",
        headers=headers,
        extra={"attempts": attempts},
    )


def _summary(tried: Sequence[Tried], skipped: Sequence[Skipped]) -> str:
    failures = [(entry.candidate, entry.failure) for entry in tried]
    parts = [
        f"{one.model}: {_said(failure)}{_keys_to_check(one, failure.kind in _OUR_ACCOUNT)}" for one, failure in failures
    ]
    parts += [f"{e.model}: {e.reason}{_keys_to_check(e.candidate, e.obstacle is Obstacle.ACCOUNT)}" for e in skipped]
    if not tried and skipped and all(entry.obstacle is Obstacle.NO_KEY for entry in skipped):
        names = dict.fromkeys(name for e in skipped if e.candidate for name in e.candidate.provider.key_variables)
        return f"No candidate has a key; set {', '.join(names)} ({'; '.join(parts)})"
    return f"No candidate could answer ({'; '.join(parts)})" if parts else "No candidate could answer"


def _said(failure: Failure) -> str:
    """The kind, and why there was no connection: these words are ours, all others may be the provider's."""
    kind = failure.kind
    return f"{kind.value}: {failure.message}" if kind in _NO_CONNECTION else kind.value


def _keys_to_check(candidate: Candidate | None, refused: bool) -> str:
    """The variables to look at where a provider refused our key, or what it stands for; the setting if it has none."""
    if candidate is None or not refused:
        return ""
    provider = candidate.provider
    if not provider.keys:
        return f", asked without a key: providers.{provider.name}.api_key_env names its variable"
    names = dict.fromkeys(key.variable for key in provider.keys if key.variable)
    return f", check {' and '.join(names)}" if names else ""


def skipped_booked(entry: Skipped) -> Attempt:
    """Who was not asked, for the ledger of a request that nobody answered."""
    return Attempt(entry.model, f"{SKIPPED}{entry.obstacle.value}", None, 0)


def _skipped_public(entry: Skipped) -> dict[str, Any]:
    return {
        "model": entry.model,
        "kind": f"{SKIPPED}{entry.obstacle.value}",
        "status": None,
        "ms": 0,
        "reason": entry.reason,
    }


def _about_the_request(tried: Sequence[Tried], skipped: Sequence[Skipped]) -> ApiError | None:
    """400 where every model refused the request for what it is, not for a trouble of its own.

    A model without a key, or one that its provider does not know, is none that could take the request later.
    """
    relevant = [entry for entry in skipped if entry.obstacle is not Obstacle.NO_KEY]
    if any(entry.obstacle not in _REQUEST_OBSTACLES and not entry.gone for entry in relevant):
        return None
    said = [entry.failure for entry in tried if entry.failure.kind is not FailureKind.MODEL_NOT_FOUND]
    overflow = [failure for failure in said if failure.kind is FailureKind.CONTEXT_LENGTH]
    refusals = [f for f in said if f.kind in (FailureKind.UNSUPPORTED, FailureKind.CONTEXT_LENGTH)]
    if len(refusals) != len(said):
        return None
    if refusals:
        return provider_answer((overflow or refusals)[-1], tried)
    if tried or not relevant or any(entry.gone for entry in relevant):
        return None
    return _filtered(relevant)


def _filtered(skipped: Sequence[Skipped]) -> ApiError:
    reasons = "; ".join(f"{entry.model}: {entry.reason}" for entry in skipped)
    contexts = all(entry.obstacle is Obstacle.CONTEXT for entry in skipped)
    return ApiError(
        400,
        f"No model of the chain can take this request ({reasons})",
        code="context_length_exceeded" if contexts else "no_able_candidate",
        param=next((entry.field for entry in skipped if entry.field), None),
        extra={"attempts": [_skipped_public(entry) for entry in skipped]},
    )


def _all_rate_limited(tried: Sequence[Tried], skipped: Sequence[Skipped]) -> bool:
    able = [
        entry for entry in skipped if entry.obstacle not in _REQUEST_OBSTACLES and entry.obstacle is not Obstacle.NO_KEY
    ]
    if not tried and not able:
        return False
    return all(entry.failure.kind is FailureKind.RATE_LIMITED for entry in tried) and all(
        entry.obstacle is Obstacle.COOLDOWN for entry in able
    )
