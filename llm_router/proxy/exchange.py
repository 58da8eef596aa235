"""The life of one chat request in the router: what was decided, what was tried, how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llm_router.accounting.booking import Attempt, Booking, Outcome, SideCost
from llm_router.errors import ApiError, Failure, FailureKind
from llm_router.proxy.attempt import WonStream, WonWhole
from llm_router.proxy.failover import Tried, skipped_booked
from llm_router.proxy.relay import ClientStream
from llm_router.proxy.tap import Tap
from llm_router.routing.decision import Decision
from llm_router.routing.plan import Candidate, Skipped
from llm_router.routing.sticky import Stay
from llm_router.wire.chat import ChatRequest
from llm_router.wire.usage import Usage

NONE = "none"
# What every answer tells; the values are a `Told`.
ROUTER_HEADERS = ("x-router-category", "x-router-mode", "x-router-model", "x-router-provider", "x-router-attempts")

Told = tuple[str, str, str, str, str]


class Downstream(Protocol):
    """The client's side of an exchange, as the server room offers it."""

    def start_stream(self, told: Told, allowed: Mapping[str, str]) -> ClientStream:
        """Prepares status 200 and the head of a stream, with `allowed` headers of the upstream."""
        ...

    def send_whole(self, body: bytes, told: Told, allowed: Mapping[str, str], *, as_stream: bool) -> None:
        """Sends a whole answer at once: JSON, or the events of a stream."""
        ...


@dataclass(slots=True, eq=False)
class Caller:
    """What dispatch needs to know of the one who asks: ids, and limits set by header.

    Nobody changes it; not frozen, since one is made a request.
    """

    request_id: str
    client: str = ""
    session: str = ""
    max_price: float | None = None


@dataclass(slots=True, eq=False)
class Exchange:
    """Filled in as the request proceeds; becomes a `Booking` at the end. Times named `at` are the loop's clock.

    What is known only later is no argument: each would cost as much as a call.
    """

    chat: ChatRequest
    caller: Caller
    started: float  # Unix time
    started_at: float
    ticket: int = field(init=False, default=-1)
    decision: Decision | None = field(init=False, default=None)
    conversation: bytes | None = field(init=False, default=None)
    stay: Stay | None = field(init=False, default=None)  # where the conversation was served, if this goes on with one
    tried: tuple[Tried, ...] = field(init=False, default=())
    skipped: tuple[Skipped, ...] = field(init=False, default=())  # where nobody answered
    candidate: Candidate | None = field(init=False, default=None)
    won: WonStream | WonWhole | None = field(init=False, default=None)
    tap: Tap | None = field(init=False, default=None)
    answer: tuple[bytes, ...] = field(init=False, default=())
    answer_bytes: int = field(init=False, default=0)  # of `answer`
    answer_is_stream: bool = field(init=False, default=False)
    usage: Usage | None = field(init=False, default=None)
    outcome: Outcome = field(init=False, default="failed")
    status: int = field(init=False, default=200)
    failure: Failure | None = field(init=False, default=None)
    failure_code: str = field(init=False, default="")
    first_byte_ms: float | None = field(init=False, default=None)
    committed_ms: float | None = field(init=False, default=None)
    side_costs: tuple[SideCost, ...] = field(init=False, default=())

    def note(self, tried: Tried) -> None:
        """One more candidate was tried, in vain."""
        self.tried += (tried,)

    def charge(self, cost: SideCost) -> None:
        """Something has to be paid beside the answer."""
        self.side_costs += (cost,)

    def discharge(self, cost: SideCost) -> None:
        """What was charged turns out to be the answer itself."""
        self.side_costs = tuple([other for other in self.side_costs if other is not cost])

    def told(self) -> Told:
        """What happened, in the order of `ROUTER_HEADERS`."""
        decision, candidate, tried = self.decision, self.candidate, self.tried
        if candidate is None and tried:
            candidate = _last_heard(tried)
        return (
            decision.category if decision is not None else NONE,
            decision.mode if decision is not None else NONE,
            candidate.model if candidate is not None else NONE,
            candidate.provider.name if candidate is not None else NONE,
            str(len(tried) + (self.committed_ms is not None)),
        )

    def headers(self) -> dict[str, str]:
        """The same as headers, for an error."""
        return {"x-request-id": self.caller.request_id, **dict(zip(ROUTER_HEADERS, self.told(), strict=True))}

    def won_by(self, won: WonStream | WonWhole) -> None:
        """The commit point."""
        self.won = won
        self.candidate = won.candidate
        self.first_byte_ms = (won.committed_at - self.started_at) * 1000
        if won.empty is None:
            self.committed_ms = won.committed_ms
        else:
            self.failure = won.empty

    def cut(self, failure: Failure | None) -> None:
        """The answer broke off."""
        self.outcome = "cut"
        self.failure = failure

    def cancel(self) -> None:
        """The client left, unless that comes after the end: who does not read hears late of a cut."""
        if self.outcome == "cut":
            return
        self.outcome = "cancelled"
        self.status = 499 if self.first_byte_ms is None else 200

    def fail(self, error: ApiError) -> None:
        """The client is told `error`, and what happened before."""
        error.headers = {**self.headers(), **error.headers}
        self.outcome = "failed"
        self.status = error.status
        self.failure_code = error.code or error.type

    def stumble(self) -> None:
        """A fault of ours ended it: the client is told so, unless its answer has begun."""
        self.outcome = "failed"
        self.status = 500 if self.first_byte_ms is None else 200
        self.failure_code = "internal"

    def booking(self, now_at: float) -> Booking:
        """What the bookkeeper settles; `now_at` is the loop's clock."""
        candidate, decision, tap, caller = self.candidate, self.decision, self.tap, self.caller
        failure, outcome = self.failure, self.outcome
        attempts = tuple([entry.booked() for entry in self.tried]) if self.tried else ()
        if candidate is not None and self.committed_ms is not None:
            kind = failure.kind.value if failure is not None and outcome == "cut" else "ok"
            attempts += (tuple.__new__(Attempt, (candidate.model, kind, 200, round(self.committed_ms))),)
        elif self.skipped:
            attempts += tuple(map(skipped_booked, self.skipped))
        # By position, in the order of the fields: names would cost more than all the rest.
        return Booking(
            caller.request_id,
            self.started,
            decision.category if decision is not None else "",
            decision.mode if decision is not None else "",
            candidate.model if candidate is not None else "",
            candidate.provider.name if candidate is not None else "",
            self.chat.stream,
            caller.client,
            attempts,
            outcome,
            self.status,
            self.failure_code or (failure.kind.value if failure is not None else ""),
            self.first_byte_ms,
            (now_at - self.started_at) * 1000,
            self.chat.raw,
            tap.kept_blocks() if tap is not None else self.answer,
            tap.size if tap is not None else self.answer_bytes,
            self.answer_is_stream,
            self.usage,
            candidate.info if candidate is not None else None,
            self.side_costs,
            self.ticket,
        )


def _last_heard(tried: Sequence[Tried]) -> Candidate:
    """The last one that failed by itself; who was given up for it, beside it, said nothing."""
    heard = [entry for entry in tried if entry.failure.kind is not FailureKind.CANCELLED]
    return (heard or tried)[-1].candidate
