"""A worker, the keeper or the supervisor that is killed is replaced, and nothing of what it had is lost."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import uuid
from typing import Any

import psutil
import pytest

from tests.support.crew import BROKEN, is_whole, lasting, refuses, workers
from tests.support.upstream import healthy
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.slow


async def test_a_killed_worker_is_replaced(crew: Any) -> None:
    """SIGKILL: the other worker's streams go on, its own requests are on record as interrupted, a new one serves."""
    both = await crew()
    end = asyncio.Event()
    both.stage.a.script = lasting(end)
    doomed, spared = await both.begin(1, "doomed"), await both.begin(2, "spared")
    await doomed.answer(until=lambda one: "0 1" in one.text)
    former = workers(both.router)[1]
    os.kill(former, signal.SIGKILL)
    await until(lambda: workers(both.router)[1] != former)
    end.set()
    assert is_whole(await spared.answer(patience=PATIENCE))
    record = await until(lambda: both.found(2, "doomed"))
    assert record["outcome"] == "interrupted"
    assert (await until(lambda: both.found(2, "spared")))["outcome"] == "completed"
    both.stage.a.script = healthy
    assert (await both.chat(1)).status == 200
    assert "SIGKILL" in both.router.log()


@pytest.mark.parametrize("victim", ["worker", "keeper"])
async def test_a_process_is_replaced_after_the_state_folder_was_taken_away(crew: Any, victim: str) -> None:
    """Whoever starts later makes anew what is missing: all workers serve, and their requests are on record."""
    both = await crew()
    both.router.state.rename(both.router.state.with_name("elsewhere"))
    if victim == "worker":
        former = workers(both.router)[1]
        os.kill(former, signal.SIGKILL)
        await until(lambda: workers(both.router)[1] != former)
    else:
        (keeper,) = re.findall(r"keeper is ready \(process (\d+)\)", both.router.log())
        os.kill(int(keeper), signal.SIGKILL)
    for number in (1, 2):
        name = f"later-{number}-{uuid.uuid4()}"
        assert (await both.chat(number, headers={"x-request-id": name})).status == 200
        assert (await until(lambda n=name: both.found(1, n)))["outcome"] == "completed"


async def test_a_killed_keeper_is_replaced_and_nothing_is_lost(crew: Any) -> None:
    """Requests that close while there is no keeper are booked by the next one, each once."""
    both = await crew()
    (former,) = re.findall(r"keeper is ready \(process (\d+)\)", both.router.log())
    names = [f"kept-{number}-{uuid.uuid4()}" for number in range(30)]
    for position, name in enumerate(names):
        if position == 10:
            os.kill(int(former), signal.SIGKILL)
        await both.chat(1 + position % 2, headers={"x-request-id": name})
    for name in names:
        assert (await until(lambda n=name: both.found(1, n)))["outcome"] == "completed"
    (row,) = (await both.ask(1, "GET", "/v1/usage")).json()["data"]
    assert row["requests"] == 30


async def test_figures_are_asked_for_again(crew: Any) -> None:
    """A keeper that dies while figures are asked for does not leave the question open: the next one answers it."""
    both = await crew()
    await both.chat(1)
    (former,) = re.findall(r"keeper is ready \(process (\d+)\)", both.router.log())
    os.kill(int(former), signal.SIGSTOP)
    asked = asyncio.ensure_future(both.ask(1, "GET", "/metrics"))
    other = asyncio.ensure_future(both.ask(2, "GET", "/metrics"))
    await asyncio.sleep(0.2)
    os.kill(int(former), signal.SIGKILL)
    assert [answer.status for answer in await asyncio.gather(asked, other)] == [200, 200]


@pytest.mark.parametrize("harm", [b"no database" * 1000, b""])
async def test_a_worker_is_replaced_when_the_common_state_is_ruined(crew: Any, harm: bytes) -> None:
    """It is made anew, and what one worker learns reaches the other again, the new one and the old one."""
    both = await crew()
    (both.router.state / "state.sqlite3").write_bytes(harm)
    former = workers(both.router)[1]
    os.kill(former, signal.SIGKILL)
    await until(lambda: workers(both.router)[1] != former)
    both.stage.a.script = BROKEN
    for _ in range(3):
        assert (await both.chat(1)).status == 200
    await until(lambda: both.is_in(2, "open"))
    assert (await both.ask(2, "POST", "/circuit-breaker/reset-all")).status == 200
    await until(lambda: both.is_in(1, "closed"))


async def test_the_next_keeper_knows_what_runs(crew: Any) -> None:
    """A stream that began under a keeper that was killed is counted as running by the one after it."""
    both = await crew()
    end = asyncio.Event()
    both.stage.a.script = lasting(end)
    running = await both.begin(1, "running")
    await both.stage.a.wait_for(1)
    (former,) = re.findall(r"keeper is ready \(process (\d+)\)", both.router.log())
    os.kill(int(former), signal.SIGKILL)
    await until(lambda: len(re.findall(r"keeper is ready \(process (\d+)\)", both.router.log())) == 2)

    async def is_counted() -> bool:
        figures = await both.ask(2, "GET", "/metrics")
        return figures.status == 200 and figures.json()["in_flight"] == 1

    await until(is_counted)
    end.set()
    assert is_whole(await running.answer(patience=PATIENCE))


async def test_workers_do_not_outlive_their_supervisor(crew: Any) -> None:
    """When the supervisor is killed the others see it, end by themselves, and let go of the port."""
    both = await crew()
    pids = list(workers(both.router).values())
    await both.kill_supervisor()
    await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    await until(lambda: refuses(both.router.port))


async def test_a_router_starts_while_orphans_end(crew: Any) -> None:
    """When the supervisor is killed, another router takes its place at once; streams of the old one end whole."""
    both = await crew()
    end, running = await both.begin_lasting("orphan")
    await both.kill_supervisor()
    await asyncio.to_thread(both.router.start)
    both.stage.a.script = healthy
    assert (await both.stage.chat("router/ab")).status == 200
    assert not any(stream.done() for stream in running)
    end.set()
    assert all(map(is_whole, await asyncio.gather(*running)))
    for number in (1, 2):
        assert (await both.stage.record(f"orphan-{number}"))["outcome"] == "completed"
