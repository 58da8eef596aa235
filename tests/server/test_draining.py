"""Requests that are not whole when the router is told to end: refused as new ones are, so that the client knows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from llm_router.server import connections
from llm_router.server.limits import ONE_WISH_S
from llm_router.server.serving import Ending
from tests.server.conftest import Served, StartRouter
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.waiting import PATIENCE

PATH = "/v1/chat/completions"
CHAT = chat_body("a/m1", False, "x" * 4000)
WAYS: dict[str, tuple[str, Mapping[str, str | None]]] = {
    "short": (PATH, {}),
    "long": (PATH, {"x-router-dry-run": "0"}),
    "admin": ("/config/model-mapping", {}),
}


async def begin(served: Served, path: str, headers: Mapping[str, str | None]) -> tuple[Connection, bytes]:
    """A client that has sent half of its request, of which the server knows; and the other half."""
    connection = await Connection.open(served.port)
    whole = request_bytes("POST", path, CHAT, headers)
    await connection.send(whole[:-2000])
    for _ in range(2):  # what came later was answered: the server has the half request
        assert (await served.ask("GET", "/health")).status == 200
    return connection, whole[-2000:]


@pytest.mark.parametrize("way", WAYS)
async def test_a_half_request_is_refused_at_once(serve: StartRouter, way: str) -> None:
    """What is not whole when the drain begins is 503 `shutting_down` by all ways, and is not waited for."""
    served = await serve()
    connection, rest = await begin(served, *WAYS[way])
    served.router.draining = True
    served.runner.refuse_unfinished()
    answer = await connection.answer(PATIENCE)
    assert (answer.status, answer.error["code"]) == (503, "shutting_down")
    assert (answer.header("connection"), answer.header("retry-after")) == ("close", "1")
    assert answer.header("x-request-id")
    assert answer.header("x-router-attempts") == (None if way == "admin" else "0")
    # who still sends is read, so that a reset does not take the answer away
    assert await connection.send(rest)
    assert (await connection.everything(PATIENCE), connection.at_end) == (b"", "eof")
    connection.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_shutdown_alone_refuses_too(serve: StartRouter, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that began after that is ended by the shutdown of its connection, which a silent client does not hold."""
    monkeypatch.setattr(connections, "FAREWELL_S", 0.2)
    served = await serve()
    connection, _ = await begin(served, *WAYS[way])
    ending = asyncio.ensure_future(served.runner.server.shutdown(600))
    assert (await connection.answer(PATIENCE)).error["code"] == "shutting_down"
    async with asyncio.timeout(PATIENCE):
        await ending
    assert await connection.closed_within(PATIENCE)
    connection.close()


async def test_what_lingers_goes_with_its_client(serve: StartRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end waits for the clients that were refused no longer than for the last of them."""
    monkeypatch.setattr(connections, "FAREWELL_S", 600.0)
    served = await serve()
    connection, _ = await begin(served, *WAYS["short"])
    ending = asyncio.ensure_future(served.runner.server.shutdown(600))
    assert (await connection.answer(PATIENCE)).status == 503
    connection.close()
    async with asyncio.timeout(PATIENCE):
        await ending


async def test_one_wish_may_come_as_two_signals() -> None:
    """`timeout` and other wrappers tell the process and its group: that cuts nothing, a later signal does."""
    ending, drained = Ending(), asyncio.Event()
    ending.insist()
    ending.insist()
    waiting = asyncio.ensure_future(ending.wait_for(drained.wait(), 600))
    await asyncio.sleep(1.2 * ONE_WISH_S)
    assert not waiting.done()
    ending.insist()
    await asyncio.wait_for(waiting, PATIENCE)
    assert not drained.is_set()
