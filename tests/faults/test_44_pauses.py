"""The whole router stands still for a while, as in a frozen container, on a laptop that sleeps, or behind Ctrl-Z."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from tests.support.chunks import DONE, completion, finish, role, text
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, reply
from tests.support.waiting import until

CLOCKS = {"ROUTER_FIRST_BYTE_TIMEOUT": "3", "ROUTER_IDLE_TIMEOUT": "3"}


async def test_what_came_in_a_pause_is_read_before_anybody_is_blamed(own: Callable[..., Awaitable[Stage]]) -> None:
    """A pause longer than the clocks cuts no answer that is there, opens no circuit, asks no second model."""
    stage = await own(env=CLOCKS)
    sent: list[Exchange] = []
    pausing = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        if exchange.request.json()["stream"]:
            await exchange.head()
            await exchange.body(role() + text("before "))
            await pausing.wait()
            await exchange.body(text("after") + finish() + DONE)
            await exchange.finish()
        else:
            await pausing.wait()
            await reply(body=completion("before after"))(exchange)
        sent.append(exchange)

    stage.a.script = script
    asking = [asyncio.ensure_future(stage.chat("router/ab", streamed)) for streamed in (True, True, False, False)]
    idle = await Connection.open(stage.router.port)
    await idle.send(request_bytes("GET", "/health"))
    assert (await idle.answer()).status == 200
    await until(lambda: stage.a.count == 4)
    await stage.turns()
    processes = stage.router.processes()
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        pausing.set()
        await until(lambda: len(sent) == 4)
        await idle.send(request_bytes("POST", "/v1/chat/completions", chat_body("router/only", False)))
        await asyncio.sleep(4.5)
    finally:
        for pid in reversed(processes):
            os.kill(pid, signal.SIGCONT)
    got = await asyncio.gather(*asking)
    assert {(one.status, one.ended, one.text) for one in got} == {(200, "whole", "before after")}
    assert (await idle.answer()).text == "before after"
    assert stage.b.count == 0
    told = (await stage.router.ask("GET", "/circuit-breaker")).json()["circuits"]
    assert all(circuit["failures"] == 0 for circuit in told.values())
    idle.close()
