"""What was paid for answers that nobody saw: each model that was asked is booked once, and nobody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.faults.conftest import Stage
from tests.support.chunks import event, finish, role
from tests.support.upstream import Exchange, hang, healthy, plain, reply, stream
from tests.support.waiting import until

Own = Callable[..., Awaitable[Stage]]

CHAIN = {"conversation": ["a/m1", "b/m2"]}
# A million USD per million tokens: each prompt token is a dollar.
PRICES = {model: {"input": 1e6, "output": 0} for model in ("a/m1", "b/m2", "c/judge")}
EMPTY_REPORTED = stream(
    [
        role(),
        finish(),
        event({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}}),
        b"data: [DONE]\n\n",
    ]
)


async def left(stage: Stage, model: str, asked: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    """The record of a request whose client left after `asked`."""
    connection = await stage.router.open_chat(model)
    await asked()
    connection.close()
    await stage.settled(1)
    (recent,) = (await stage.metrics())["recent_requests"]
    record = await stage.record(recent["request_id"])
    assert record["outcome"] == "cancelled"
    return record


async def hedging(own: Own, after: float) -> Stage:
    """A stage where the second model is asked beside the first, and both are silent."""
    stage = await own(
        env={"ROUTER_FIRST_BYTE_TIMEOUT": "60"}, models=CHAIN, prices=PRICES, hedge={"after": after, "budget": 1.0}
    )
    stage.a.script = stage.b.script = hang
    return stage


async def test_a_client_that_leaves_before_the_hedge_pays_once(own: Own) -> None:
    """With hedging on, a request that only one model was asked for costs one prompt."""
    stage = await hedging(own, after=60)
    record = await left(stage, "router/conversation", lambda: stage.a.wait_for(1))
    assert (record["model"], record["side_costs"]) == ("a/m1", [])
    assert record["cost_usd"] == record["counted_input"] > 0


async def test_a_client_that_leaves_two_candidates_pays_for_two(own: Own) -> None:
    """Left while a hedge runs beside the first candidate, the one is the request's own bill and the other is waste."""
    stage = await hedging(own, after=0.05)
    record = await left(stage, "router/conversation", lambda: stage.b.wait_for(1))
    assert record["model"] == "a/m1"
    assert [side["model"] for side in record["side_costs"]] == ["b/m2"]
    assert record["cost_usd"] == 2 * record["counted_input"]


@pytest.mark.parametrize("who", ["loser", "left"])
async def test_what_was_reported_before_the_meaning_is_billed(own: Own, who: str) -> None:
    """A provider that has told what it read, caches included, is believed also where nobody waited for its answer."""
    upstreams = await own()
    said = {"input_tokens": 1000, "cache_read_input_tokens": 500, "output_tokens": 1}
    start = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "content": [], "usage": said}}
    upstreams.a.script = stream([b"event: message_start\n" + event(start)], end="hang")
    upstreams.b.script = healthy if who == "loser" else hang
    claude = {"base_url": upstreams.a.url, "api": "anthropic-messages"}
    stage = await own(
        env={"ROUTER_FIRST_BYTE_TIMEOUT": "60"},
        models={"code": ["claude/m", "other/m"]},
        providers={"claude": claude, "other": {"base_url": upstreams.b.url}},
        prices={"claude/m": {"input": 10, "cached_input": 1, "output": 100}, "other/m": {"input": 0, "output": 0}},
        hedge={"after": 1, "budget": 1.0},
    )
    if who == "loser":
        record = await stage.record(await stage.chat("router/code"))
        (side,) = record["side_costs"]
        assert (side["model"], side["input_tokens"], side["cost_source"]) == ("claude/m", 1500, "provider_usage")
    else:
        record = await left(stage, "router/code", lambda: upstreams.b.wait_for(1))
        assert (record["model"], record["reported_cache_read"]) == ("claude/m", 500)
    assert record["cost_usd"] == pytest.approx((1000 * 10 + 500 * 1 + 1 * 100) / 1e6)


async def test_who_waited_for_a_place_pays_nothing(own: Own) -> None:
    """A client that leaves the queue of a full provider had nobody asked."""
    upstreams = await own()
    upstreams.a.script = hang
    narrow = {"base_url": upstreams.a.url, "api_key_env": "X_KEY", "max_concurrency": 1}
    stage = await own(
        env={"X_KEY": "sk-x"},
        models={"code": ["narrow/m"]},
        providers={"narrow": narrow},
        prices={"narrow/m": {"input": 1, "output": 1}},
    )
    running = await stage.router.open_chat("narrow/m")
    await upstreams.a.wait_for(1)

    async def queued() -> bool:
        return bool((await stage.metrics())["in_flight"] == 2)

    record = await left(stage, "narrow/m", lambda: until(queued))
    running.close()
    assert upstreams.a.count == 1
    assert record["cost_usd"] == 0
    assert [attempt["kind"] for attempt in record["attempts"]] == ["cancelled"]


async def test_an_empty_answer_that_was_passed_over_is_booked(own: Own) -> None:
    """A model that reported tokens for nothing is paid for beside the one that answered instead."""
    stage = await own(models=CHAIN, prices={**PRICES, "b/m2": {"input": 0, "output": 0}})
    stage.a.script = EMPTY_REPORTED
    record = await stage.record(await stage.chat("router/conversation"))
    assert (record["model"], record["cost_usd"]) == ("b/m2", 40)
    (side,) = record["side_costs"]
    assert (side["kind"], side["model"], side["output_tokens"]) == ("empty", "a/m1", 9)


async def test_an_empty_answer_that_is_passed_on_is_booked_once(own: Own) -> None:
    """Where nobody does better the empty answer is the answer, and its bill the request's own."""
    stage = await own(models=CHAIN, prices=PRICES)
    stage.a.script = reply(500, {"error": {"message": "x"}})
    stage.b.script = EMPTY_REPORTED
    record = await stage.record(await stage.chat("router/conversation"))
    assert (record["model"], record["cost_usd"], record["side_costs"]) == ("b/m2", 40, [])


async def test_a_model_that_names_no_category_is_booked(own: Own) -> None:
    """The classifier's answer is paid for also where it is of no use and the chain then fails; so says /metrics."""
    stage = await own(
        env={"ROUTING_MODE": "api", "ROUTER_API_MODEL": "c/judge"}, models=CHAIN | {"code": ["a/m1"]}, prices=PRICES
    )
    stage.a.script = stage.b.script = reply(500, {"error": {"message": "x"}})
    for number, script in enumerate((plain("who knows"), plain(""))):
        stage.c.script = script
        answer = await stage.chat("router", messages=[{"role": "user", "content": f"rivers {number}"}])
        assert answer.status == 503
        record = await stage.record(answer)
        (side,) = record["side_costs"]
        assert (side["kind"], side["model"]) == ("classifier", "c/judge")
        assert record["cost_usd"] == side["cost_usd"] > 0
        assert record["cost_source"] == side["cost_source"] == "provider_usage"
    total = (await stage.metrics())["total_cost_usd"]
    text = (await stage.router.ask("GET", "/metrics", headers={"Accept": "text/plain"})).body.decode()
    spent = [float(line.split()[-1]) for line in text.splitlines() if line.startswith("llm_router_cost_usd_total{")]
    assert sum(spent) == total > 0


async def test_a_refusal_beside_a_hedge_names_its_model(own: Own) -> None:
    """A candidate whose word ends the request is the one that the headers name, not the hedge that was given up."""
    stage = await hedging(own, after=0.05)

    async def refuse(exchange: Exchange) -> None:
        await stage.b.wait_for(1)
        await reply(400, {"error": {"message": "bad value", "code": "invalid_value"}})(exchange)

    stage.a.script = refuse
    answer = await stage.chat("router/conversation")
    assert (answer.status, answer.header("x-router-model")) == (400, "a/m1")
    record = await stage.record(answer)
    assert [side["model"] for side in record["side_costs"]] == ["b/m2"]
