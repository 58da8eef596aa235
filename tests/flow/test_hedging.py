"""Hedged first tokens: a second candidate beside one that stays silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.faults.conftest import Stage
from tests.support.upstream import Exchange, healthy, reply

Own = Callable[..., Awaitable[Stage]]

CHAIN = {"conversation": ["a/m1", "b/m2"]}
PRICES = {"a/m1": {"input": 100, "output": 100}, "b/m2": {"input": 1, "output": 1}}


async def silent(exchange: Exchange) -> None:
    """Headers, then nothing."""
    await exchange.head()
    await exchange.hang()


async def test_the_first_meaning_wins_and_the_loser_is_stopped(own: Own) -> None:
    """A silent first candidate is overtaken after `after` seconds, closed at once, and booked as waste."""
    stage = await own(
        env={"ROUTER_FIRST_BYTE_TIMEOUT": "10"},
        models=CHAIN,
        prices=PRICES,
        categories={"conversation": {"hedge": {"after": 0.2, "budget": 1.0}}},
    )
    stage.a.script = silent
    began = time.monotonic()
    answer = await stage.chat("router/conversation")
    assert time.monotonic() - began < 8  # the first-byte clock is 10 s
    assert answer.header("x-router-model") == "b/m2"
    assert answer.done
    lost = await stage.a.wait_for(1)
    await stage.turns()
    assert lost.closed_at is not None
    record = await stage.record(answer)
    assert record["side_costs"][0]["kind"] == "hedge"
    assert record["side_cost_usd"] > 0
    circuits = (await stage.router.ask("GET", "/circuit-breaker")).json()
    assert circuits["circuits"]["a/m1"]["failures"] == 0


async def test_a_quick_first_candidate_is_not_hedged(own: Own) -> None:
    """Nobody else is asked when the first answers in time."""
    stage = await own(
        env={"ROUTER_FIRST_BYTE_TIMEOUT": "10"},
        models=CHAIN,
        categories={"conversation": {"hedge": {"after": 5, "budget": 1.0}}},
    )
    for _ in range(3):
        assert (await stage.chat("router/conversation")).header("x-router-model") == "a/m1"
    assert stage.b.count == 0


async def test_the_budget_caps_hedges(own: Own) -> None:
    """With a budget of a tenth, a chain whose head is always late is hedged once in the first ten requests."""
    stage = await own(
        env={"ROUTER_FIRST_BYTE_TIMEOUT": "10"},
        models=CHAIN,
        categories={"conversation": {"hedge": {"after": 0.05, "budget": 0.1}}},
    )

    async def late(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await healthy(exchange)

    stage.a.script = late
    for _ in range(9):
        await stage.chat("router/conversation")
    assert stage.b.count == 1


async def test_both_fail_and_the_third_answers(own: Own) -> None:
    """Hedging does not end the chain: when both fail the next candidate is asked."""
    stage = await own(
        models={"conversation": ["a/m1", "b/m2", "c/m3"]},
        categories={"conversation": {"hedge": {"after": 0.05, "budget": 1.0}}},
    )
    stage.a.script = reply(500, {"error": {"message": "x"}}, delay=0.3)
    stage.b.script = reply(500, {"error": {"message": "x"}}, delay=0.3)
    answer = await stage.chat("router/conversation")
    assert (answer.status, answer.header("x-router-model")) == (200, "c/m3")
    assert answer.header("x-router-attempts") == "3"


async def test_a_hedge_that_fails_is_followed_by_the_next(own: Own) -> None:
    """Who fails beside a silent candidate fails over: nobody waits for the silent one while another could answer."""
    stage = await own(
        env={"ROUTER_FIRST_BYTE_TIMEOUT": "30"},
        models={"conversation": ["a/m1", "b/m2", "b/m3", "c/m4"]},
        categories={"conversation": {"hedge": {"after": 0.05, "budget": 0.5}}},
    )
    stage.a.script = silent
    stage.b.script = reply(500, {"error": {"message": "x"}})
    began = time.monotonic()
    answer = await stage.chat("router/conversation")
    assert (answer.status, answer.header("x-router-model")) == (200, "c/m4")
    assert time.monotonic() - began < 20  # the first-byte clock is 30 s
    assert answer.header("x-router-attempts") == "4"
    assert (stage.a.count, stage.b.count) == (1, 2)
    await stage.a.wait_for(1)
    await stage.turns()
    assert [attempt["kind"] for attempt in (await stage.record(answer))["attempts"]].count("server_error") == 2


async def test_a_client_that_leaves_stops_both(own: Own) -> None:
    """Leaving while two candidates run cancels both."""
    stage = await own(
        env={"ROUTER_FIRST_BYTE_TIMEOUT": "10"},
        models=CHAIN,
        categories={"conversation": {"hedge": {"after": 0.05, "budget": 1.0}}},
    )
    stage.a.script = stage.b.script = silent
    connection = await stage.router.open_chat("router/conversation")
    first, second = await stage.a.wait_for(1), await stage.b.wait_for(1)
    connection.close()
    await asyncio.sleep(0.1)
    await stage.turns()
    assert first.closed_at is not None
    assert second.closed_at is not None
