"""SIGTERM while requests are not whole: told at once that the router ends, whoever else is served to the end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.support.chunks import DONE, finish, role, text
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.fixtures import Launch, Stage
from tests.support.router import chains
from tests.support.upstream import Exchange
from tests.support.waiting import PATIENCE

Own = Callable[..., Awaitable[Stage]]
PATH = "/v1/chat/completions"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("framing", [{}, {"Content-Length": None, "Transfer-Encoding": "chunked"}], ids=str)
async def test_a_signal_ends_half_requests(launch: Launch, framing: dict[str, str | None], times: int) -> None:
    """SIGTERM: the client of a half request hears 503 long before its silence would end it, and the process ends."""
    patient = {"ROUTER_HEADER_TIMEOUT": "600", "ROUTER_DRAIN_TIMEOUT": "600"}
    router = await launch(chains({"a": 9}, {"conversation": ["a/m1"]}), env=patient)
    connection = await Connection.open(router.port)
    whole = request_bytes("POST", PATH, b"fa0\r\n" + b"x" * 4000, {"Content-Length": "4005", **framing})
    await connection.send(whole[:-2000])
    for _ in range(2):  # what came later was answered: the router has the half request
        assert (await router.ask()).status == 200
    for _ in range(times):
        router.signal(signal.SIGTERM)
    answer = await connection.answer(PATIENCE)
    assert (answer.status, answer.error["code"]) == (503, "shutting_down")
    assert await asyncio.to_thread(router.wait, PATIENCE) == 0
    connection.close()


async def test_running_answers_go_on(own: Own) -> None:
    """The drain that refuses a half request brings a running answer to its end."""
    stage = await own(env={"ROUTER_HEADER_TIMEOUT": "600", "ROUTER_DRAIN_TIMEOUT": "600"})
    go_on = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(role() + text("begun "))
        await go_on.wait()
        await exchange.body(text("ended") + finish() + DONE)
        await exchange.finish()

    stage.a.script = script
    running = await stage.router.open_chat()
    await stage.a.wait_for(1)
    half = await Connection.open(stage.router.port)
    await half.send(request_bytes("POST", PATH, chat_body(content="x" * 4000))[:-2000])
    for _ in range(2):
        assert (await stage.router.ask()).status == 200
    stage.router.signal(signal.SIGTERM)
    assert (await half.answer(PATIENCE)).error["code"] == "shutting_down"
    go_on.set()
    answer = await running.answer(PATIENCE)
    assert (answer.text, answer.done, answer.errors) == ("begun ended", True, [])
    assert await asyncio.to_thread(stage.router.wait, PATIENCE) == 0
    for connection in (half, running):
        connection.close()
