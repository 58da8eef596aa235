"""Circuits, cooldowns and refused keys are those of all workers, and outlive them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.chunks import answer as words
from tests.support.client import chat_body, request_bytes
from tests.support.crew import BROKEN, Crew, workers
from tests.support.upstream import Exchange, hang, healthy, reply, stream
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.slow

QUICK = {"ROUTER_CIRCUIT_RECOVERY": "1"}


async def test_failures_add_up_and_the_circuit_is_one(crew: Any) -> None:
    """Three failures in a row over all workers open the circuit in all; a reset through one closes it in all."""
    both = await crew(env={"ROUTER_CIRCUIT_RECOVERY": "600"})
    both.stage.a.script = BROKEN
    await both.chat(1)
    await both.chat(2)
    await until(lambda: _has_failed(both, 1, 2))
    await both.chat(1)
    for number in (1, 2):
        await until(lambda n=number: both.is_in(n, "open"))
    assert both.stage.a.count == 3
    both.stage.a.script = healthy
    assert (await both.chat(2)).header("x-router-model") == "b/m2"
    assert (await both.ask(2, "POST", "/circuit-breaker/reset/a/m1")).status == 200
    await until(lambda: both.is_in(1, "closed"))
    assert (await both.chat(1)).header("x-router-model") == "a/m1"


async def test_one_worker_speaks_for_all(crew: Any) -> None:
    """An outage that all workers know of, and a reload that all carry out, are one line of the log each."""
    both = await crew(env={"ROUTER_CIRCUIT_RECOVERY": "600"})
    both.stage.a.script = BROKEN
    for _ in range(3):
        await both.chat(2)
    log = both.router.log
    await until(lambda: "model a/m1 is left out (server_error)" in log())
    both.router.signal(signal.SIGHUP)
    await until(lambda: "the configuration was reloaded" in log())
    assert (await both.ask(2, "POST", "/circuit-breaker/reset-all")).status == 200
    await until(lambda: "model a/m1 is no longer left out" in log())
    for line in ("is left out", "the configuration was reloaded", "is no longer left out"):
        assert log().count(line) == 1


async def test_a_reload_is_told_of_once(crew: Any) -> None:
    """A changed file is seen by both workers, and a reload that one is asked for done by both: one line each."""
    both = await crew(env={"ROUTER_CIRCUIT_RECOVERY": "600"})
    both.stage.a.script = BROKEN
    for _ in range(3):
        await both.chat(2)
    await until(lambda: both.is_in(1, "open"))
    config = json.loads(both.router.config_file.read_text())
    for model in ("c/m3", "b/m2"):
        config["model_mappings"]["ab"] = [model]
        both.router.config_file.write_text(json.dumps(config))
        for number in (1, 2):
            await until(lambda n=number, m=model: both.served_by(n, m))
    assert (await both.ask(2, "POST", "/config/reload")).status == 200
    # The first has heard of that when it hears of this, and has read the file before it reads it again.
    assert (await both.ask(2, "POST", "/circuit-breaker/reset-all")).status == 200
    await until(lambda: both.is_in(1, "closed"))
    assert (await both.ask(1, "POST", "/config/reload")).status == 200
    assert both.router.log().count("the configuration was reloaded") == 4


async def _has_failed(both: Crew, number: int, times: int) -> bool:
    return bool((await both.circuit(number))["failures"] == times)


async def test_a_cooldown_and_a_refused_key_are_known_to_all(crew: Any) -> None:
    """A 429's wait and a refused key that one worker met with spare the others the asking."""
    env = {"ROUTER_CIRCUIT_RECOVERY": "600"}
    both = await crew(env=env, models={"ab": ["a/m1", "b/m2"], "cb": ["c/m3", "b/m2"]})
    both.stage.a.script = reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "600"})
    both.stage.c.script = reply(401, {"error": {"message": "who are you"}})
    await both.chat(1, "router/ab")
    await both.chat(1, "router/cb")
    await until(lambda: both.is_in(2, "cooldown"))
    await until(lambda: both.is_in(2, "open", "c/m3"))
    assert (await both.chat(2, "router/ab")).header("x-router-attempts") == "1"
    assert (await both.chat(2, "router/cb")).header("x-router-attempts") == "1"
    assert (both.stage.a.count, both.stage.c.count) == (1, 1)


async def test_one_probe_over_all_workers(crew: Any) -> None:
    """Of twenty requests at once to both workers exactly one probes a half-open circuit; its success frees all."""
    both = await crew(env=QUICK)
    await both.fail_until_half_open()
    connections = [await both.at(number) for number in (1, 2) * 10]
    end = asyncio.Event()

    async def probed(exchange: Exchange) -> None:
        await end.wait()
        await stream(words("probed"))(exchange)

    both.stage.a.script = probed
    for connection in connections:
        await connection.send(request_bytes(body=chat_body("router/ab")))
    running = [asyncio.ensure_future(connection.answer(patience=60)) for connection in connections]
    await until(lambda: sum(one.done() for one in running) == 19)
    end.set()
    got = [await one for one in running]
    assert sorted(one.text for one in got) == ["Hello from upstream"] * 19 + ["probed"]
    assert both.stage.a.count == 4
    for number in (1, 2):
        await until(lambda n=number: both.is_in(n, "closed"))


async def test_a_killed_prober_does_not_block_its_model(crew: Any) -> None:
    """The probe of a worker that is killed is free again as soon as it is replaced."""
    both = await crew(env=QUICK)
    await both.fail_until_half_open()
    both.stage.a.script = hang
    await both.begin(1, "probe")
    await both.stage.a.wait_for(4)
    assert (await both.chat(2)).header("x-router-model") == "b/m2"
    both.forget()
    former = workers(both.router)[1]
    os.kill(former, signal.SIGKILL)
    await until(lambda: workers(both.router)[1] != former)
    both.stage.a.script = healthy
    await until(lambda: both.served_by(2, "a/m1"))


async def test_circuits_survive_a_restart_with_and_without_workers(crew: Any) -> None:
    """What one worker knew in its last moment is there after a restart, also for a router that is one process."""
    both = await crew(env={"ROUTER_CIRCUIT_RECOVERY": "600"})
    both.stage.a.script = BROKEN
    for name in ("state.sqlite3", "workers.lock", "keeper.sock"):
        assert stat.S_IMODE((both.router.state / name).stat().st_mode) == 0o600
    for _ in range(3):
        await both.chat(2)
    both.forget()
    for command in (both.router.command, [part for part in both.router.command if part not in ("--workers", "2")]):
        both.router.signal(signal.SIGTERM)
        assert await asyncio.to_thread(both.router.wait, 60) == 0
        both.router.command = command
        await asyncio.to_thread(both.router.start)
        report = (await both.router.ask("GET", "/circuit-breaker")).json()
        assert report["open_circuits"] == ["a/m1"]


async def test_a_killed_router_s_circuits_were_written_down(crew: Any) -> None:
    """What any worker knows is on the disk soon after: a kill of all of them forgets no open circuit."""
    both = await crew(env={"ROUTER_CIRCUIT_RECOVERY": "600"})
    both.stage.a.script = BROKEN
    for _ in range(3):
        await both.chat(2)
    await until(lambda: _saved_as_open(both.router.state / "circuits.json"))
    # The supervisor first: it would replace the others.
    for pid in (both.router.pid, *workers(both.router).values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    both.forget()
    await asyncio.to_thread(both.router.wait, PATIENCE)
    await asyncio.to_thread(both.router.start)
    report = (await both.router.ask("GET", "/circuit-breaker")).json()
    assert report["open_circuits"] == ["a/m1"]


def _saved_as_open(path: Path) -> bool:
    if not path.exists():
        return False
    saved = json.loads(path.read_bytes())
    return any(circuit["open_until"] for circuit in saved["models"].values())
