"""Clients that leave, stall or speak unusual HTTP: the spending stops, memory stays, others are served."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.chunks import DONE, answer, finish, role, text
from tests.support.client import Answer, Connection, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, Script, hang, healthy, raw, reply, stream
from tests.support.waiting import PATIENCE, until, until_still

Own = Callable[..., Awaitable[Stage]]
PROMISE = 0.1  # seconds from a client's leaving to its provider's


async def _talks_forever(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.body(role())
    while True:
        await exchange.body(text("word "))
        await asyncio.sleep(0.02)


PHASES: dict[str, tuple[Script, bool, bool]] = {  # script, streamed, whether the client has got bytes
    "waiting_for_headers": (hang, True, False),
    "waiting_for_headers_plain": (hang, False, False),
    "waiting_for_the_first_token": (stream([b": hi\n\n", role()], end="hang"), True, False),
    "half_of_a_plain_answer": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\nContent-Type: application/json\r\n\r\n{", "hang"),
        False,
        False,
    ),
    "mid_stream": (_talks_forever, True, True),
    "mid_stream_while_silent": (stream([role(), text("word")], end="hang"), True, True),
}


async def _leave(connection: Connection, how: str) -> None:
    if how == "fin":
        connection.close()
    else:
        connection.reset()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("phase", PHASES)
async def test_leaving_stops_the_spending(stage: Stage, phase: str, how: str) -> None:
    """A client that leaves closes its upstream within 100 ms in every phase; no failover, no blame, one record."""
    script, streamed, committed = PHASES[phase]
    stage.a.script = script
    before = (await stage.metrics())["requests"]
    ids = []
    for number in range(4):
        name = f"leaver-{uuid.uuid4()}"
        ids.append(name)
        connection = await Connection.open(stage.router.port)
        await connection.send(request_bytes(body=chat_body("router/ab", streamed), headers={"x-request-id": name}))
        exchange = await stage.a.wait_for(number + 1)
        if committed:
            await connection.answer(5, until=lambda got: b"word" in got.body)
        else:
            await asyncio.sleep(0.1)
        await _leave(connection, how)
        await asyncio.sleep(PROMISE)
        await stage.turns()
        assert exchange.closed_at is not None
    assert stage.b.count == 0
    for name in ids:
        record = await stage.record(name)
        assert "cancel" in json.dumps(record).lower()
    after = (await stage.settled(before["total"] + 4))["requests"]
    assert after["cancelled"] - before["cancelled"] == 4
    stage.a.script = healthy
    assert (await stage.chat("router/ab")).header("x-router-model") == "a/m1"


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_leaving_during_a_failover(stage: Stage, how: str) -> None:
    """A client that leaves while the second candidate is asked stops the second, and no third is asked."""
    stage.a.script = reply(500, b"no")
    stage.b.script = hang
    connection = await stage.router.open_chat("router/abc")
    exchange = await stage.b.wait_for(1)
    await _leave(connection, how)
    await asyncio.sleep(PROMISE)
    await stage.turns()
    assert exchange.closed_at is not None
    await asyncio.sleep(0.2)
    assert stage.c.count == 0


async def test_what_was_generated_is_booked(stage: Stage) -> None:
    """A cancelled stream's record holds the tokens that were generated until then."""
    stage.a.script = _talks_forever
    connection = await Connection.open(stage.router.port)
    name = f"partial-{uuid.uuid4()}"
    await connection.send(request_bytes(body=chat_body("router/ab"), headers={"x-request-id": name}))
    await connection.answer(5, until=lambda got: got.body.count(b"word") >= 10)
    connection.close()
    record = await stage.record(name)
    numbers = [value for key, value in _flat(record) if "output" in key or "completion" in key]
    assert any(isinstance(value, int) and value >= 5 for value in numbers), record


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [pair for number, item in enumerate(value) for pair in _flat(item, f"{path}.{number}")]
    return [(path, value)]


async def test_a_hundred_leavers_leave_nothing(stage: Stage) -> None:
    """A hundred clients that leave at random moments leave no connection and no descriptor behind."""
    stage.a.script = _talks_forever
    await stage.chat("router/ab", until=lambda got: b"word" in got.body)
    await asyncio.sleep(0.3)
    before = stage.router.descriptors()

    async def leaver(number: int) -> None:
        connection = await stage.router.open_chat("router/ab", number % 3 != 0)
        await asyncio.sleep(number % 10 * 0.03)
        await _leave(connection, "fin" if number % 2 else "rst")

    await asyncio.gather(*(leaver(number) for number in range(100)))
    await until(lambda: all(exchange.closed_at is not None for exchange in stage.a.exchanges))
    await until(lambda: stage.router.descriptors() <= before + 5)


def _flood(megabytes: int) -> Script:
    event = text("x" * 16_000)
    count = megabytes * (1 << 20) // len(event)

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for _ in range(count):
            await exchange.body(event)
        await exchange.body(finish() + DONE)
        await exchange.finish()

    return script


@pytest.mark.slow
async def test_clients_that_never_read(own: Own) -> None:
    """Four times 64 MB to clients that never read: memory stays, their upstreams are blocked, others are served."""
    stage = await own()
    for _ in range(3):
        await stage.chat("router/ab")
    before = stage.router.rss()
    stage.a.script = _flood(64)
    stalled = [await stage.router.open_chat("router/ab", receive_buffer=4096) for _ in range(4)]
    await stage.a.wait_for(7)
    sent = await until_still(lambda: [exchange.sent for exchange in stage.a.exchanges[3:]], 2.5)  # idle clock: 1 s
    # What the kernel may keep in flight (32 MiB to us, 4 MiB from the upstream, 4 MiB to the client) is not ours.
    assert max(sent) < 48 << 20, sent
    assert stage.router.rss() - before < 64 << 20
    got = await stage.chat("b/m2")
    assert got.text == "Hello from upstream"
    assert [exchange.sent for exchange in stage.a.exchanges[3:]] == sent
    assert all(exchange.closed_at is None for exchange in stage.a.exchanges[3:])
    for connection in stalled:
        connection.reset()
    await until(lambda: all(exchange.closed_at is not None for exchange in stage.a.exchanges[3:]))
    figures = await stage.settled(8)
    assert figures["requests"]["cancelled"] == 4
    assert (await stage.chat("router/only", until=lambda got: bool(got.body))).header("x-router-model") == "a/m1"


async def test_the_idle_clock_stands_still_while_the_client_does_not_read(stage: Stage) -> None:
    """A client that pauses longer than the idle clock gets the whole answer when it reads on."""
    events = [role(), *(text(f"{number}:" + "y" * 4000) for number in range(1500)), finish(), DONE]
    stage.a.script = stream(events)
    connection = await stage.router.open_chat("router/ab", receive_buffer=4096)
    await asyncio.sleep(2.2)
    got = await connection.answer(20)
    connection.close()
    assert got.ended == "whole"
    assert hashlib.sha256(got.body).digest() == hashlib.sha256(b"".join(events)).digest()


async def test_a_slow_reader_gets_everything(stage: Stage) -> None:
    """A client that reads in sips gets every byte and no error."""
    events = [role(), *(text(f"{number}:" + "z" * 2000) for number in range(400)), finish(), DONE]
    stage.a.script = stream(events)
    connection = await stage.router.open_chat("router/ab", receive_buffer=4096)
    parts = b""
    while not parts.endswith(b"0\r\n\r\n"):
        piece = await connection.receive(5)
        assert piece, "the router broke off"
        parts += piece
        await asyncio.sleep(0.001)
    connection.close()
    assert parts.count(b"zzzz2000") == 0
    for number in (0, 199, 399):
        assert b"%d:" % number + b"z" * 50 in parts


async def test_http_10(stage: Stage) -> None:
    """An HTTP/1.0 client gets a body without chunks that ends with the connection."""
    for streamed in (True, False):
        connection = await Connection.open(stage.router.port)
        await connection.send(request_bytes(body=chat_body("router/ab", streamed), version="1.0"))
        got = await connection.answer()
        connection.close()
        assert (got.status, got.text) == (200, "Hello from upstream")
        assert got.header("transfer-encoding") is None
        if streamed:
            assert got.body == b"".join(answer())


async def test_http_10_sees_a_cut(stage: Stage) -> None:
    """Over HTTP/1.0 too a cut ends with an error event."""
    stage.a.script = stream([role(), text("a")], end="reset")
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes(body=chat_body("router/ab"), version="1.0"))
    got = await connection.answer()
    connection.close()
    assert (got.text, got.done, len(got.errors)) == ("a", False, 1)


async def test_pipelined_requests(stage: Stage) -> None:
    """Requests that are sent without waiting are answered one after the other, in order."""
    connection = await Connection.open(stage.router.port)
    bodies = [
        request_bytes(body=chat_body("router/ab", number % 2 == 0), headers={"x-request-id": f"pipe-{number}"})
        for number in range(5)
    ]
    await connection.send(b"".join(bodies))
    for number in range(5):
        got = await connection.answer()
        assert (got.status, got.header("x-request-id"), got.text) == (200, f"pipe-{number}", "Hello from upstream")
    connection.close()


def _chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def test_a_chunked_request(stage: Stage) -> None:
    """A request body in chunks is a body like any other."""
    connection = await Connection.open(stage.router.port)
    head = request_bytes(headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"})
    await connection.send(head + _chunked(json.dumps(chat_body("router/ab")).encode(), 7))
    got = await connection.answer()
    connection.close()
    assert (got.status, got.text) == (200, "Hello from upstream")


async def test_expect_continue(stage: Stage) -> None:
    """A client that waits for `100 Continue` before its body gets one."""
    body = json.dumps(chat_body("router/ab")).encode()
    head = request_bytes(
        headers={"Expect": "100-continue", "Content-Length": str(len(body)), "Content-Type": "application/json"}
    )
    connection = await Connection.open(stage.router.port)
    await connection.send(head)
    interim = await connection.receive(3)
    assert interim.startswith(b"HTTP/1.1 100")
    await connection.send(body)
    got = await connection.answer()
    connection.close()
    assert (got.status, got.text) == (200, "Hello from upstream")


async def test_a_slow_request_body(stage: Stage) -> None:
    """A body that drips in without long silences is waited for."""
    whole = request_bytes(body=chat_body("router/ab"))
    connection = await Connection.open(stage.router.port)
    for at in range(0, len(whole), 40):
        await connection.send(whole[at : at + 40])
        await asyncio.sleep(0.1)
    got = await connection.answer()
    connection.close()
    assert (got.status, got.text) == (200, "Hello from upstream")


@pytest.mark.parametrize("form", ["absolute", "lower_case", "close", "query", "odd_type", "no_type", "bom"])
async def test_unusual_but_right_requests(stage: Stage, form: str) -> None:
    """Absolute targets, lower-case headers, a query, any Content-Type: answered like every other request."""
    body: Any = chat_body("router/ab")
    path, headers = "/v1/chat/completions", {}
    if form == "absolute":
        path = f"http://127.0.0.1:{stage.router.port}/v1/chat/completions"
        headers = {"Host": f"127.0.0.1:{stage.router.port}"}
    elif form == "lower_case":
        headers = {"Content-Type": None, "content-type": "application/json; charset=utf-8"}
    elif form == "close":
        headers = {"Connection": "close"}
    elif form == "query":
        path += "?api-version=2026-01-01"
    elif form == "odd_type":
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
    elif form == "no_type":
        headers = {"Content-Type": None}
    elif form == "bom":
        body = b"  \n" + json.dumps(body).encode() + b"\n\n"
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes(path=path, body=body, headers=headers))
    got: Answer = await connection.answer()
    assert (got.status, got.text) == (200, "Hello from upstream")
    if form == "close":
        assert await connection.closed_within(PATIENCE)
    connection.close()


async def test_a_client_that_half_closes_after_its_request(stage: Stage) -> None:
    """A FIN right behind the request is a client that left: its upstream is closed, nothing hangs."""
    stage.a.script = hang
    connection = await stage.router.open_chat("router/ab")
    exchange = await stage.a.wait_for(1)
    connection.shutdown()
    await until(lambda: exchange.closed_at is not None)
    connection.close()


async def test_a_client_that_leaves_inside_its_request(stage: Stage) -> None:
    """A request that never comes whole reaches nobody and takes nothing with it."""
    whole = request_bytes(body=chat_body("router/ab"))
    for at in (1, 20, 60, len(whole) - 20, len(whole) - 1):
        for how in ("fin", "rst"):
            connection = await Connection.open(stage.router.port)
            await connection.send(whole[:at])
            await _leave(connection, how)
    await asyncio.sleep(0.1)
    assert stage.a.count == 0
    assert (await stage.chat("router/ab")).status == 200


@pytest.mark.parametrize("noise", [b"\r\n\r\n", b"garbage" * 100, request_bytes("GET", "/health"), b"x" * 200_000])
async def test_bytes_behind_a_running_request(stage: Stage, noise: bytes) -> None:
    """What a client sends while its answer streams does not harm that answer."""
    stage.a.script = stream(answer("one ", "two ", "three"), gap=0.1)
    connection = await stage.router.open_chat("router/ab")
    await stage.a.wait_for(1)
    await asyncio.sleep(0.15)
    await connection.send(noise)
    got = await connection.answer(5)
    connection.close()
    assert (got.status, got.ended, got.text, got.done) == (200, "whole", "one two three", True)


async def test_head_of_health(stage: Stage) -> None:
    """HEAD is answered without a body, and the connection can be used on."""
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes("HEAD", "/health"))
    got = await connection.answer(head_only=True)
    assert got.status in (200, 405)
    await connection.send(request_bytes("GET", "/health"))
    assert (await connection.answer()).status == 200
    connection.close()
