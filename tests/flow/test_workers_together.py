"""Several workers are one router: figures, records, configuration and what is remembered are the same in all."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import Any

import psutil
import pytest

from tests.support.client import chat_body, request_bytes
from tests.support.crew import BROKEN, Crew, is_whole, lasting, serves, workers
from tests.support.upstream import Exchange, healthy
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.slow


async def test_all_workers_serve_and_the_figures_are_sums(crew: Any) -> None:
    """Many connections reach every worker, each request is on record once, and `/metrics` adds up over all of them."""
    both = await crew()
    names = [f"sum-{number}-{uuid.uuid4()}" for number in range(40)]
    connections = [await both.open() for _ in names]
    for name, connection in zip(names, connections, strict=True):
        await connection.send(request_bytes(body=chat_body("router/ab"), headers={"x-request-id": name}))
    got = [await connection.answer() for connection in connections]
    assert [one.text for one in got] == ["Hello from upstream"] * 40
    shares = [len(serves(pid, both.router.port)) for pid in workers(both.router).values()]
    assert sum(shares) == 40
    assert min(shares) >= 5
    for number in (1, 2):
        figures = await until(lambda n=number: _settled(both, n, 40))
        assert figures["requests"] == {"total": 40, "success": 40, "failed": 0, "cancelled": 0}
        assert figures["model_distribution"] == {"a/m1": 40}
        assert len(figures["recent_requests"]) == 40
    prometheus = (await both.ask(1, "GET", "/metrics", headers={"Accept": "text/plain"})).body.decode()
    assert 'llm_router_requests_total{category="ab",model="a/m1",outcome="completed"} 40.0' in prometheus
    (memory,) = re.findall(r"^process_resident_memory_bytes (\S+)$", prometheus, re.MULTILINE)
    assert float(memory) > sum(psutil.Process(pid).memory_info().rss for pid in workers(both.router).values())
    for name in names:
        assert (await both.ask(2, "GET", f"/v1/requests/{name}")).json()["request_id"] == name
    (row,) = (await both.ask(1, "GET", "/v1/usage")).json()["data"]
    assert (row["model"], row["requests"]) == ("a/m1", 40)


async def _settled(both: Crew, number: int, total: int) -> Any:
    figures = (await both.ask(number, "GET", "/metrics")).json()
    return figures if figures["requests"]["total"] >= total else None


async def test_a_request_that_runs_elsewhere_is_pending(crew: Any) -> None:
    """Any worker knows of a running request of another one; the figures count it while it runs, and no longer."""
    both = await crew()
    end = asyncio.Event()
    both.stage.a.script = lasting(end)
    running = await both.begin(1, "mine")
    await both.stage.a.wait_for(1)
    assert (await both.ask(2, "GET", "/v1/requests/mine")).status == 202
    await until(lambda: _run(both, 2, 1))
    end.set()
    assert is_whole(await running.answer(patience=PATIENCE))
    await until(lambda: both.found(2, "mine"))
    await until(lambda: _run(both, 2, 0))


async def _run(both: Crew, number: int, requests: int) -> bool:
    return bool((await both.ask(number, "GET", "/metrics")).json()["in_flight"] == requests)


async def test_a_conversation_stays_whichever_worker_it_meets(crew: Any) -> None:
    """The second turn goes to the model that served the first one in another worker."""
    chain = ["a/m1", "b/m2"]
    both = await crew(models=dict.fromkeys(("tools", "code", "reasoning", "conversation"), chain))
    first = [{"role": "user", "content": "Good morning, how are you?"}]
    second = [*first, {"role": "assistant", "content": "Fine."}, {"role": "user", "content": "And your family?"}]
    both.stage.a.script = BROKEN
    assert (await both.chat(1, "router", messages=first)).header("x-router-model") == "b/m2"
    both.stage.a.script = healthy
    # What a worker tells comes in order: whoever knows of a later failure knows of the conversation.
    both.stage.b.script = BROKEN
    await both.chat(1, "b/m2")
    both.stage.b.script = healthy
    await until(lambda: _has_failed(both, 2, "b/m2", 1))
    got = await both.chat(2, "router", messages=second)
    assert (got.header("x-router-model"), got.header("x-router-mode")) == ("b/m2", "sticky")


async def _has_failed(both: Crew, number: int, model: str, times: int) -> bool:
    return bool((await both.circuit(number, model))["failures"] == times)


async def test_concurrency_is_bounded_over_all_workers(crew: Any) -> None:
    """A provider's `max_concurrency` holds for both workers together; who waits is served in the end."""
    both = await crew()
    config = json.loads(both.router.config_file.read_text())
    config["providers"]["a"]["max_concurrency"] = 2
    config["model_mappings"]["ab"] = ["c/m3"]
    both.router.config_file.write_text(json.dumps(config))
    assert (await both.ask(1, "POST", "/config/reload")).status == 200
    await until(lambda: both.served_by(2, "c/m3"))
    running = most = 0
    two = asyncio.Event()

    async def counted(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            two.set()
        async with asyncio.timeout(PATIENCE):
            await two.wait()
        await asyncio.sleep(0.1)
        running -= 1
        await healthy(exchange)

    both.stage.a.script = counted
    connections = [await both.at(number) for number in (1, 2) * 5]
    for connection in connections:
        await connection.send(request_bytes(body=chat_body("a/m1")))
    assert [(await connection.answer(patience=60)).status for connection in connections] == [200] * 10
    assert most == 2


async def test_configuration_is_the_same_everywhere(crew: Any) -> None:
    """An edit through one worker, a reload through one, and an edit by hand reach all."""
    both = await crew()
    body = {"category": "ab", "models": ["b/m2"]}
    assert (await both.ask(1, "POST", "/config/model-mapping", body)).status == 200
    assert (await both.chat(1)).header("x-router-model") == "b/m2"
    await until(lambda: both.served_by(2, "b/m2"))
    config = json.loads(both.router.config_file.read_text())
    config["model_mappings"]["ab"] = ["c/m3"]
    both.router.config_file.write_text(json.dumps(config))
    assert (await both.ask(2, "POST", "/config/reload")).status == 200
    await until(lambda: both.served_by(1, "c/m3"))
    config["model_mappings"]["ab"] = ["a/m1"]
    both.router.config_file.write_text(json.dumps(config))
    for number in (1, 2):
        await until(lambda n=number: both.served_by(n, "a/m1"))


async def test_edits_through_different_workers_do_not_lose_one_another(crew: Any) -> None:
    """Two categories that are added at the same time are both there, in both workers."""
    both = await crew()
    edits = [
        both.ask(number, "POST", "/config/category", {"name": f"new{number}", "models": ["a/m1"]}) for number in (1, 2)
    ]
    assert [one.status for one in await asyncio.gather(*edits)] == [200, 200]
    for number in (1, 2):
        await until(lambda n=number: _has_both(both, n))


async def _has_both(both: Crew, number: int) -> bool:
    return {"new1", "new2"} <= set((await both.ask(number, "GET", "/config")).json()["model_mappings"])
