"""One client that asks without pause is served in its turn, and gets no more answers than it reads."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from llm_router.errors import ApiError
from llm_router.server.chat import DirectChat
from llm_router.server.sending import Sender
from tests.server.conftest import StartRouter
from tests.support.client import Connection, request_bytes
from tests.support.waiting import until

BAD = request_bytes("POST", "/v1/chat/completions", b"{")
# A field that sends the same request the long way.
LONG = request_bytes("POST", "/v1/chat/completions", b"{", {"x-router-dry-run": "0"})
# Their answers are far more than the kernel takes for a client that does not read (at most some 40 MB here).
MANY = 200_000
MOST_WAITING_BYTES = 1024 * 1024


@pytest.mark.parametrize("request_of", [BAD, LONG], ids=["short way", "long way"])
async def test_who_does_not_read_gets_no_more(serve: StartRouter, request_of: bytes) -> None:
    """Answers that nobody reads do not pile up in the router: the client is no longer read from either."""
    served = await serve()
    connection = await Connection.open(served.port, receive_buffer=4096)
    try:
        sending = asyncio.ensure_future(connection.send(request_of * MANY, patience=60))
        waiting = 0
        await until(lambda: any(map(_unsent, served.runner.server.connections)), 50)  # the kernel takes no more
        for _ in range(50):
            await asyncio.sleep(0.03)
            waiting = max(waiting, *map(_unsent, served.runner.server.connections))
            assert waiting < MOST_WAITING_BYTES
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert waiting
    finally:
        connection.reset()


def _unsent(connection: Any) -> int:
    return 0 if connection.transport is None else int(connection.transport.get_write_buffer_size())


async def test_others_are_served_meanwhile(serve: StartRouter) -> None:
    """Between two pipelined requests everybody else gets a turn: an answer elsewhere does not wait for all of them."""
    served = await serve()
    connection = await Connection.open(served.port)
    try:
        number = 400
        await connection.send(BAD * number)
        answered = asyncio.Event()

        async def ask_once() -> None:
            assert (await served.ask("GET", "/health")).status == 200
            answered.set()

        other = asyncio.ensure_future(ask_once())
        got = 0
        while not answered.is_set():
            answer = await connection.answer(20)
            assert answer.status == 400
            got += 1
            assert got < number, "everything pipelined was answered first"
        await other
        for _ in range(number - got):
            assert (await connection.answer(20)).status == 400
    finally:
        connection.close()


async def test_answers_keep_their_order_between_the_two_ways(serve: StartRouter) -> None:
    """An answer that waits for the end of the turn is not overtaken by one that aiohttp sends at once."""
    served = await serve()
    served.router.upstream.outbox.awaited = 2
    connection = await Connection.open(served.port)
    await connection.send(BAD + request_bytes("GET", "/health"))
    assert [(await connection.answer()).status for _ in range(2)] == [400, 200]
    connection.close()


async def test_what_waits_leaves_before_its_connection_is_closed(serve: StartRouter) -> None:
    """The last answer of a connection arrives whole, though it waits for the end of the turn."""
    served = await serve()
    served.router.upstream.outbox.awaited = 2
    connection = await Connection.open(served.port)
    await connection.send(request_bytes("POST", "/v1/chat/completions", b"{", {"Connection": "close"}))
    answer = await connection.answer()
    assert (answer.status, answer.ended) == (400, "whole")
    connection.close()


async def test_what_follows_in_the_same_turn_follows_on_the_wire(
    serve: StartRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a waiting answer come the stream of the next request, and the refusal of what was no request."""
    served = await serve()

    async def answer_all(direct: Any, connection: Any, *_: Any) -> bool:
        direct.outbox.awaited = 2
        first, second = (Sender(connection, name, keep_alive=True, outbox=direct.outbox) for name in ("a", "b"))
        first.send_error(ApiError(404, "no"), {})
        second.start_stream(("code", "local", "a/m", "a", "1"), {}).end(b"data: [DONE]\n\n")
        first.send_error(ApiError(409, "no"), {})
        connection.refuse(431, "too large", "headers_too_large")
        return False

    monkeypatch.setattr(DirectChat, "serve", answer_all)
    connection = await Connection.open(served.port)
    await connection.send(BAD)
    assert [(await connection.answer()).status for _ in range(4)] == [404, 200, 409, 431]
    connection.close()
