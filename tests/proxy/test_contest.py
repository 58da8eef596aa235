"""The contest without sockets: what can only be told where two answers come in the same moment."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson
import pytest

from llm_router.config.values import BreakerSettings, Category, Hedge, Provider, Timeouts
from llm_router.errors import ApiError, AttemptFailed, Failure, FailureKind
from llm_router.proxy import contest
from llm_router.proxy.attempt import WonWhole
from llm_router.proxy.contest import Contest
from llm_router.proxy.exchange import Caller, Exchange
from llm_router.proxy.parts import Parts
from llm_router.proxy.upstream import CancelledUnsent
from llm_router.routing.breaker import Circuits
from llm_router.routing.latency import P95_SAMPLES
from llm_router.routing.plan import Candidate, Plan
from llm_router.wire.chat import parse_chat

CHAT = orjson.dumps({"model": "router", "stream": True, "messages": [{"role": "user", "content": "hello"}]})
EVENTS = b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\ndata: [DONE]\n\n'


class Stub:
    """Has the attributes that it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def candidate(model: str) -> Candidate:
    """A candidate of a provider without limits."""
    return Candidate(model, Provider("p", "http://p"), model, None, ("key",))


def contest_in(category: Category | None, *models: str, total: float | None = None) -> tuple[Contest, Exchange]:
    """A contest whose candidates have a minute each, within the configuration's `total`."""
    parts = Parts(cast(Any, None), Circuits(BreakerSettings()), lambda: 0.0, lambda: None)
    live = Stub(
        snapshot=Stub(timeouts=Timeouts(total=total), breaker=BreakerSettings()),
        way=lambda candidate, *_: Stub(first_byte=60.0, model=candidate.model),
    )
    exchange = Exchange(parse_chat(CHAT), Caller("id"), 0.0, parts.deadlines.loop.time())
    exchange.decision = cast(Any, Stub(explicit=category is None, category="code", mode="local"))
    plan = Plan(tuple(map(candidate, models)), ())
    return Contest(parts, cast(Any, live), exchange, plan, category), exchange


def hedged(*models: str) -> tuple[Contest, Exchange]:
    """A contest whose second candidate starts at once."""
    return contest_in(Category("code", hedge=Hedge(after=0.0, budget=1.0)), *models)


@pytest.mark.parametrize(
    ("category", "total", "share"),
    [
        (Category("code", timeouts=Timeouts(total=6.0)), 900.0, 3.0),
        (Category("code"), 20.0, 10.0),
        (Category("code"), None, 60.0),
        (None, 8.0, 4.0),
    ],
    ids=["the category's", "the file's", "none", "without a category"],
)
async def test_the_total_is_shared_over_the_chain(
    category: Category | None, total: float | None, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each candidate has its part of the category's total, or of the configuration's where that has none."""
    given = []

    async def attempt(parts: Any, live: Any, chat: Any, way: Any, seconds: float, permit: Any) -> WonWhole:
        given.append(seconds)
        return WonWhole(EVENTS, True, None, {})

    monkeypatch.setattr(contest, "attempt", attempt)
    game, _ = contest_in(category, "p/one", "p/two", total=total)
    await game.win()
    assert given == [pytest.approx(share, abs=share / 4)]


async def test_a_request_that_fails_over_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many candidates of its chain are tried, a request counts once towards the hedges of all."""

    async def attempt(parts: Any, *_: Any) -> WonWhole:
        raise AttemptFailed(Failure(FailureKind.SERVER_ERROR, "broken", 500))

    monkeypatch.setattr(contest, "attempt", attempt)
    game, exchange = contest_in(Category("code", hedge=Hedge(after=9.0, budget=1.0)), "p/one", "p/two", "p/three")
    with pytest.raises(ApiError):
        await game.win()
    assert len(exchange.tried) == 3
    assert game._parts.hedges._requests == {"code": 1}


async def test_a_key_that_was_refused_a_moment_ago_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's next model is left out for its key, as in the requests that follow, and no retry can help."""

    async def attempt(*_: Any) -> WonWhole:
        raise AttemptFailed(Failure(FailureKind.AUTHENTICATION, "no such key", 401))

    monkeypatch.setattr(contest, "attempt", attempt)
    game, _ = contest_in(Category("code"), "p/one", "p/two")
    game._live.snapshot.breaker = game._parts.circuits.settings = BreakerSettings(recovery_timeout_sec=5.0)
    with pytest.raises(ApiError) as told:
        await game.win()
    assert [entry["kind"] for entry in told.value.extra["attempts"]] == ["authentication", "skipped_account"]
    assert told.value.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("stream", "asked"), [(True, ["p/one", "p/two"]), (False, ["p/one"])])
async def test_the_usual_time_to_begin_is_that_of_streams(
    stream: bool, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that begins later than nearly all of its model's is hedged; a whole answer takes its time unhedged."""
    seen = []

    async def attempt(parts: Any, live: Any, chat: Any, way: Any, *_: Any) -> WonWhole:
        seen.append(way.model)
        if len(seen) == len(asked):
            return WonWhole(EVENTS, True, None, {})
        return await asyncio.Event().wait()

    monkeypatch.setattr(contest, "attempt", attempt)
    game, exchange = contest_in(Category("code", hedge=Hedge(after="p95", budget=1.0)), "p/one", "p/two")
    exchange.chat.stream = stream
    for _ in range(P95_SAMPLES):
        game._parts.first_tokens.note("p/one", 0.0)
    async with asyncio.timeout(10):
        await game.win()
    assert seen == asked


@pytest.fixture
def both_answer(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Once it is set all attempts that run have an answer in the same turn of the loop."""
    now = asyncio.Event()

    async def attempt(*_: Any) -> WonWhole:
        await now.wait()
        return WonWhole(EVENTS, True, None, {})

    monkeypatch.setattr(contest, "attempt", attempt)
    return now


async def turns() -> None:
    """Whatever can happen by now has happened."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_second_winner_is_an_attempt_and_waste(both_answer: asyncio.Event) -> None:
    """Of two answers in one moment one is used; the other was asked as well, and what came of it is paid for."""
    game, exchange = hedged("p/one", "p/two")
    task = asyncio.ensure_future(game.win())
    await asyncio.sleep(0.01)
    await turns()
    both_answer.set()
    won = await task
    exchange.won_by(won)
    exchange.outcome = "completed"
    booking = exchange.booking(exchange.started_at)
    assert [(tried.model, tried.kind) for tried in booking.attempts] == [("p/two", "cancelled"), ("p/one", "ok")]
    assert exchange.told()[-1] == "2"
    (waste,) = booking.side_costs
    assert (waste.model, list(waste.answer), waste.answer_is_stream) == ("p/two", [EVENTS], True)


async def test_an_answer_whose_client_has_left_is_the_requests_own(both_answer: asyncio.Event) -> None:
    """Where the answer and the client's leaving come in one moment, the request is booked with its model and once."""
    game, exchange = hedged("p/one")
    game._queue += (candidate("p/two"),)
    game._hedge = Hedge(after=60.0, budget=1.0)
    task = asyncio.ensure_future(game.win())
    await turns()
    both_answer.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    exchange.cancel()
    booking = exchange.booking(exchange.started_at)
    assert [(tried.model, tried.kind) for tried in booking.attempts] == [("p/one", "cancelled")]
    assert (booking.model, booking.outcome, booking.side_costs) == ("p/one", "cancelled", ())


async def test_a_client_may_leave_while_the_slower_one_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants the winner then: its place is free again, its permit too, and it is booked as what was left."""
    stopping, stopped = asyncio.Event(), asyncio.Event()

    async def attempt(_: Any, __: Any, ___: Any, way: Any, *____: Any) -> WonWhole:
        if way.model == "p/one":
            await asyncio.sleep(0.02)
            return WonWhole(EVENTS, True, None, {})
        try:
            await asyncio.Event().wait()
        finally:
            stopping.set()
            await stopped.wait()
        raise AssertionError

    monkeypatch.setattr(contest, "attempt", attempt)
    game, exchange = hedged("p/one", "p/two")
    game._live = cast(Any, Stub(way=lambda candidate, *_: Stub(first_byte=60.0, model=candidate.model)))
    slot = asyncio.Semaphore(2)
    monkeypatch.setattr(Parts, "slot", lambda *_: slot)
    settled: list[str] = []
    monkeypatch.setattr(game._parts.circuits, "released", lambda permit: settled.append(permit.model))
    task = asyncio.ensure_future(game.win())
    await stopping.wait()
    task.cancel()
    await turns()
    stopped.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    exchange.cancel()
    booking = exchange.booking(exchange.started_at)
    assert sorted(settled) == ["p/one", "p/two"]
    assert slot._value == 2
    assert sorted((tried.model, tried.kind) for tried in booking.attempts) == [
        ("p/one", "cancelled"),
        ("p/two", "cancelled"),
    ]
    assert sorted([booking.model, *(side.model for side in booking.side_costs)]) == ["p/one", "p/two"]


@pytest.mark.parametrize("unsent", [False, True])
async def test_who_was_not_reached_is_not_paid(monkeypatch: pytest.MonkeyPatch, *, unsent: bool) -> None:
    """A client that leaves while the connection is being made leaves no bill; one that leaves later does."""

    async def attempt(*_: Any) -> WonWhole:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise (CancelledUnsent if unsent else asyncio.CancelledError) from None
        raise AssertionError

    monkeypatch.setattr(contest, "attempt", attempt)
    game, exchange = hedged("p/one", "p/two")
    task = asyncio.ensure_future(game.win())
    await asyncio.sleep(0.01)
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    exchange.cancel()
    booking = exchange.booking(exchange.started_at)
    assert [(tried.model, tried.kind) for tried in booking.attempts] == [("p/one", "cancelled"), ("p/two", "cancelled")]
    paid = [booking.model, *(side.model for side in booking.side_costs)]
    assert paid == ([""] if unsent else ["p/one", "p/two"])
