"""Price ceilings, several keys, and providers that take only so many requests at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.conftest import Stage
from tests.support.chunks import answer as events
from tests.support.upstream import Exchange, healthy, reply, stream
from tests.support.waiting import until

Own = Callable[..., Awaitable[Stage]]


async def test_a_price_ceiling_by_header(own: Own) -> None:
    """x-router-max-price leaves out what would cost more, names the reason, and refuses junk."""
    prices = {"a/m1": {"input": 1000, "output": 1000}, "b/m2": {"input": 0.001, "output": 0.001}}
    stage = await own(prices=prices)
    answer = await stage.chat("router/ab", headers={"x-router-max-price": "0.01"}, max_tokens=100)
    assert answer.header("x-router-model") == "b/m2"
    refused = await stage.chat("router/ab", headers={"x-router-max-price": "cheap"})
    assert (refused.status, refused.json()["error"]["param"]) == (400, "x-router-max-price")
    none = await stage.chat("router/ab", headers={"x-router-max-price": "0"}, max_tokens=100)
    assert none.status == 400
    assert "a/m1" in none.json()["error"]["message"]


async def test_several_keys_are_rotated(own: Own) -> None:
    """A key that is refused is passed over within the same request; the provider stays in use with the other."""
    upstreams = await own()

    async def by_key(exchange: Exchange) -> None:
        if "sk-one" in (exchange.request.header("authorization") or ""):
            await reply(401, {"error": {"message": "bad key"}})(exchange)
        else:
            await healthy(exchange)

    upstreams.a.script = by_key
    env = {"KEY_ONE": "sk-one-00000000", "KEY_TWO": "sk-two-00000000"}
    many = {"base_url": upstreams.a.url, "api_key_env": list(env)}
    stage = await own(env=env, models={"code": ["many/m"]}, providers={"many": many})
    for _ in range(3):
        answer = await stage.chat("router/code")
        assert answer.status == 200, answer.raw
    keys = [exchange.request.header("authorization") for exchange in upstreams.a.exchanges]
    assert keys.count("Bearer sk-one-00000000") == 1
    assert keys.count("Bearer sk-two-00000000") == 3


async def test_each_key_is_tried_once(own: Own) -> None:
    """Keys that may all be tried again at once are not, within one request: the provider would be asked for ever."""
    upstreams = await own()
    upstreams.a.script = reply(429, {"error": {"message": "slow down"}}, {"retry-after": "0"})
    env = {"KEY_ONE": "sk-one-00000000", "KEY_TWO": "sk-two-00000000"}
    many = {"base_url": upstreams.a.url, "api_key_env": ["KEY_ONE", "KEY_TWO"]}
    stage = await own(env=env, models={"code": ["many/m"]}, providers={"many": many})
    answer = await stage.chat("router/code")
    assert (answer.status, answer.header("retry-after")) == (429, "0")
    keys = [exchange.request.header("authorization") for exchange in upstreams.a.exchanges]
    assert keys == ["Bearer sk-one-00000000", "Bearer sk-two-00000000"]


async def test_max_concurrency_queues(own: Own) -> None:
    """A provider that takes one request at a time gets them one after the other; nobody is refused."""
    upstreams = await own()
    running = most = 0

    async def counted(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1  # before the answer: with its last byte the next request may be here
        await healthy(exchange)

    upstreams.a.script = counted
    document = {"base_url": upstreams.a.url, "api_key_env": "X_KEY", "max_concurrency": 1}
    one = await own(env={"X_KEY": "k-123456"}, models={"code": ["one/m"]}, providers={"one": document})
    answers = await asyncio.gather(*(one.chat("router/code") for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert most == 1


async def test_a_changed_limit_counts_the_requests_that_run(own: Own) -> None:
    """A reload with another `max_concurrency` does not let that many in beside those who are inside already."""
    upstreams = await own()
    release = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await release.wait()
        await healthy(exchange)

    upstreams.a.script = late
    document = {"base_url": upstreams.a.url, "max_concurrency": 2}
    one = await own(models={"code": ["one/m"]}, providers={"one": document})
    running = [asyncio.ensure_future(one.chat("one/m")) for _ in range(2)]
    await upstreams.a.wait_for(2)
    config = json.loads(one.router.config_file.read_text())
    config["providers"]["one"]["max_concurrency"] = 1
    one.router.config_file.write_text(json.dumps(config))
    assert (await one.router.ask("POST", "/config/reload")).status == 200
    running.append(asyncio.ensure_future(one.chat("one/m")))

    async def queued() -> bool:
        return bool((await one.metrics())["in_flight"] == 3)

    await until(queued)
    await one.turns()
    assert upstreams.a.count == 2
    release.set()
    assert [answer.status for answer in await asyncio.gather(*running)] == [200] * 3


NARROW_FIRST = {"code": ["one/m", "two/m"]}


async def _narrow(own: Own, upstreams: Stage, **env: str) -> Stage:
    """A router with a chain of a provider that takes one request at a time, and one that takes any number."""
    document = {"base_url": upstreams.a.url, "max_concurrency": 1}
    providers = {"one": document, "two": {"base_url": upstreams.b.url}}
    return await own(env={"ROUTER_CIRCUIT_THRESHOLD": "1", **env}, models=NARROW_FIRST, providers=providers)


@pytest.mark.parametrize("status", [500, 429, 404])
async def test_who_queues_for_a_model_that_fails_meanwhile_moves_on(own: Own, status: int) -> None:
    """A circuit that opens, or a cooldown that begins, holds for the requests in the provider's queue, too."""
    upstreams = await own()
    narrow = await _narrow(own, upstreams)
    release = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await release.wait()
        await reply(status, {"error": {"message": "no"}}, {"retry-after": "30"})(exchange)

    upstreams.a.script = late
    running = [asyncio.ensure_future(narrow.chat("router/code")) for _ in range(4)]

    async def queued() -> bool:
        return bool((await narrow.metrics())["in_flight"] == 4)

    await until(queued)
    release.set()
    answers = await asyncio.gather(*running)
    assert [(answer.status, answer.header("x-router-model")) for answer in answers] == [(200, "two/m")] * 4
    assert upstreams.a.count == 1


async def test_a_queue_that_takes_too_long_is_no_fault_of_the_model(own: Own) -> None:
    """Who waited for a place for its share of the time moves on, and nothing is held against the model."""
    upstreams = await own()
    narrow = await _narrow(own, upstreams, ROUTER_TOTAL_TIMEOUT="2", ROUTER_IDLE_TIMEOUT="60")
    upstreams.a.script = stream(events("Hello")[:2], end="hang")
    running = await narrow.router.open_chat("one/m")
    await upstreams.a.wait_for(1)
    got = await narrow.chat("router/code")
    running.close()
    assert (got.status, got.header("x-router-model")) == (200, "two/m")
    assert [attempt["kind"] for attempt in (await narrow.record(got))["attempts"]] == ["queue_timeout", "ok"]
    circuits = (await narrow.router.ask("GET", "/circuit-breaker")).json()
    assert circuits["open_circuits"] == []
    assert circuits["circuits"]["one/m"]["failures"] == 0
