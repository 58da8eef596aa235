"""The drain at the end of a process: what runs ends, who waits is told, and nobody holds it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
import uuid
from collections.abc import Awaitable, Callable

import pytest

from tests.support.chunks import DONE, finish, role, text
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.crew import refuses
from tests.support.fixtures import Launch, Stage
from tests.support.upstream import Exchange, Script, hang, reply, stream
from tests.support.waiting import PATIENCE, until

Own = Callable[..., Awaitable[Stage]]


LARGE = json.dumps({"choices": [{"index": 0, "message": {"content": "x" * 6_000_000}, "finish_reason": "stop"}]})


def _lasting(seconds: float) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(role() + text("begun "))
        for _ in range(int(seconds / 0.1)):
            await asyncio.sleep(0.1)
            await exchange.body(text("on "))
        await exchange.body(text("ended") + finish() + DONE)
        await exchange.finish()

    return script


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
async def test_a_signal_drains(own: Own, number: int) -> None:
    """SIGTERM and SIGINT: running answers finish whole, new ones are refused, the process ends with success."""
    stage = await own(env={"ROUTER_FIRST_BYTE_TIMEOUT": "15", "ROUTER_DRAIN_TIMEOUT": "15"})
    stage.a.script = _lasting(1.2)
    stage.b.script = reply(200, json.dumps({"choices": [{"message": {"content": "late"}}]}), delay=0.7)
    idle = await Connection.open(stage.router.port)
    kept = await Connection.open(stage.router.port)
    await kept.send(request_bytes("GET", "/health"))
    assert (await kept.answer()).status == 200
    running = [asyncio.ensure_future(stage.chat("router/ab")) for _ in range(8)]
    plain = asyncio.ensure_future(stage.chat("b/m2", False))
    await stage.a.wait_for(8)
    await stage.b.wait_for(1)
    await asyncio.sleep(0.3)
    stage.router.signal(number)
    await asyncio.sleep(0.2)
    refused = None
    with contextlib.suppress(OSError):
        refused = await stage.chat("router/ab")
    assert refused is None or refused.status in (0, 503)
    for got in await asyncio.gather(*running):
        assert (got.ended, got.done, got.errors) == ("whole", True, [])
        assert got.text.endswith("ended")
    assert (await plain).text == "late"
    assert await stage.router.ended() == 0
    for connection in (idle, kept):
        connection.close()
    log = stage.router.log()
    running_yet = "what still runs has 15 s" if stage.router.has_workers else "9 still running, for 15 s"
    assert log.index(f"INFO stopping; {running_yet} at most") < log.index("INFO stopped")
    assert "are cut" not in log


async def test_idle_connections_do_not_hold_the_drain(own: Own) -> None:
    """A hundred idle and half-spoken connections do not keep the process from ending at once."""
    stage = await own(env={"ROUTER_HEADER_TIMEOUT": "60", "ROUTER_DRAIN_TIMEOUT": "60"})
    connections = [await Connection.open(stage.router.port) for _ in range(100)]
    for connection in connections[:30]:
        await connection.send(request_bytes("GET", "/health"))
        assert (await connection.answer()).status == 200
    for connection in connections[30:50]:
        await connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    stage.router.signal(signal.SIGTERM)
    assert await stage.router.ended() == 0
    assert stage.router.has_workers or "INFO stopping\n" in stage.router.log()
    for connection in connections:
        connection.close()


async def test_the_drain_is_bounded(own: Own) -> None:
    """A stream longer than the drain timeout ends with an error event, never as if it were whole, and is booked."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "1"})
    stage.a.script = _lasting(30)
    name = f"drained-{uuid.uuid4()}"
    running = asyncio.ensure_future(stage.chat("router/ab", headers={"x-request-id": name}, patience=60))
    await stage.a.wait_for(1)
    await asyncio.sleep(0.2)
    started = time.monotonic()
    stage.router.signal(signal.SIGTERM)
    await stage.router.ended()
    assert time.monotonic() - started > 0.8
    got = await running
    assert not got.done
    assert got.finishes == []
    assert [error["code"] for error in got.errors] == ["upstream_truncated"]
    assert got.ended == "whole", "the body itself ends cleanly"
    assert "WARNING requests that are cut, since the time to finish is over: 1" in stage.router.log()
    await asyncio.to_thread(stage.router.start)
    assert (await stage.router.ask("GET", f"/v1/requests/{name}")).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
async def test_a_second_signal_ends_the_drain(own: Own, number: int) -> None:
    """Told twice to stop, the router cuts what still runs with an error event, books it as cut, and ends well."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "30"})
    stage.a.script = _lasting(30)
    name = f"hurried-{uuid.uuid4()}"
    running = asyncio.ensure_future(stage.chat("router/ab", headers={"x-request-id": name}, patience=60))
    await stage.a.wait_for(1)
    await asyncio.sleep(0.2)
    stage.router.signal(number)
    await asyncio.sleep(0.5)
    assert stage.router.process is not None
    assert stage.router.process.poll() is None, "one signal waits"
    stage.router.signal(number)
    assert await stage.router.ended() == 0
    got = await running
    assert not got.done
    assert got.finishes == []
    assert [error["code"] for error in got.errors] == ["upstream_truncated"]
    await asyncio.to_thread(stage.router.start)
    record = (await stage.router.ask("GET", f"/v1/requests/{name}")).json()
    assert record["outcome"] == "cut"


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
async def test_who_waits_longer_than_the_drain_is_told(own: Own, streamed: bool) -> None:
    """After the drain timeout, not twice that, who waits for a first byte gets a 503; who was asked is booked."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "4", "ROUTER_FIRST_BYTE_TIMEOUT": "60"})
    stage.a.script = hang
    name = f"waiting-{uuid.uuid4()}"
    running = asyncio.ensure_future(stage.chat("router/ab", streamed, headers={"x-request-id": name}, patience=60))
    await stage.a.wait_for(1)
    started = time.monotonic()
    stage.router.signal(signal.SIGTERM)
    assert await stage.router.ended() == 0
    assert 3.9 < time.monotonic() - started < 7.5
    got = await running
    assert (got.status, got.error["code"], got.header("retry-after")) == (503, "shutting_down", "1")
    await asyncio.to_thread(stage.router.start)
    record = (await stage.router.ask("GET", f"/v1/requests/{name}")).json()
    assert (record["outcome"], record["status"]) == ("failed", 503)
    assert (record["model"], record["input_tokens"]) == ("a/m1", record["counted_input"])
    assert record["input_tokens"] > 0


async def test_nothing_begins_when_the_drain_is_over(own: Own) -> None:
    """Whom the end of another stream lets into a full provider then gets a 503, not a stream that nobody ends."""
    upstreams = await own()
    upstreams.a.script = stream([role() + text("begun ")], end="hang")
    narrow = {"base_url": upstreams.a.url, "max_concurrency": 1}
    env = {"ROUTER_DRAIN_TIMEOUT": "1", "ROUTER_IDLE_TIMEOUT": "60"}
    stage = await own(env=env, models={"code": ["narrow/m"]}, providers={"narrow": narrow})
    first = asyncio.ensure_future(stage.chat("narrow/m", patience=60))
    await upstreams.a.wait_for(1)
    name = f"queued-{uuid.uuid4()}"
    second = asyncio.ensure_future(stage.chat("narrow/m", headers={"x-request-id": name}, patience=60))

    async def queued() -> bool:
        return bool((await stage.metrics())["in_flight"] == 2)

    await until(queued)
    stage.router.signal(signal.SIGTERM)
    assert await stage.router.ended() == 0
    assert (await first).error["code"] == "upstream_truncated"
    got = await second
    assert (got.ended, got.status, got.error["code"]) == ("whole", 503, "shutting_down")
    await asyncio.to_thread(stage.router.start)
    record = (await stage.router.ask("GET", f"/v1/requests/{name}")).json()
    assert (record["outcome"], record["status"]) == ("failed", 503)


@pytest.mark.parametrize("what", ["stalled_client", "silent_upstream", "half_request"])
async def test_nobody_holds_the_drain(own: Own, what: str) -> None:
    """A client that does not read, a provider that is silent, a request that never ends: all bounded by the drain."""
    stage = await own(
        env={"ROUTER_DRAIN_TIMEOUT": "1", "ROUTER_FIRST_BYTE_TIMEOUT": "60", "ROUTER_HEADER_TIMEOUT": "60"}
    )
    stage.a.script = stream([text("x" * 16_000)] * 2000) if what == "stalled_client" else hang
    if what == "half_request":
        connection = await Connection.open(stage.router.port)
        await connection.send(request_bytes(body=chat_body("router/ab"))[:-10])
    else:
        connection = await stage.router.open_chat("router/ab", receive_buffer=4096)
        await stage.a.wait_for(1)
    await asyncio.sleep(0.3)
    stage.router.signal(signal.SIGTERM)
    await stage.router.ended()
    connection.close()


async def test_who_does_not_read_is_booked_as_cut(own: Own) -> None:
    """A stream that ends with the drain did not end by its client, also where that has not read for a while."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "1"})
    stage.a.script = stream([text("x" * 16_000)] * 2000)
    connection = await Connection.open(stage.router.port, receive_buffer=4096)
    name = f"unread-{uuid.uuid4()}"
    await connection.send(request_bytes(body=chat_body("router/ab"), headers={"x-request-id": name}))
    await stage.a.wait_for(1)
    await connection.receive(PATIENCE)
    stage.router.signal(signal.SIGTERM)
    assert await stage.router.ended() == 0
    connection.close()
    await asyncio.to_thread(stage.router.start)
    record = (await stage.router.ask("GET", f"/v1/requests/{name}")).json()
    assert (record["outcome"], record["failure"]) == ("cut", "shutting_down")


async def test_the_drain_ends_when_the_last_answer_was_read(own: Own) -> None:
    """A connection whose client had still to read when the drain began carries no other request, and holds nobody."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "60"})
    stage.a.script = reply(200, LARGE)
    connection = await stage.router.open_chat("a/m1", False, receive_buffer=4096)
    await stage.settled(1)
    stage.router.signal(signal.SIGTERM)
    await until(lambda: refuses(stage.router.port))
    got = await connection.answer(PATIENCE)
    assert (got.ended, len(got.body)) == ("whole", len(LARGE))
    assert await stage.router.ended(30) == 0
    connection.close()


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
async def test_the_drain_waits_for_who_reads_slowly(own: Own, streamed: bool) -> None:
    """What was handed to the system for a client is not lost with the process: the answer arrives whole."""
    stage = await own(env={"ROUTER_DRAIN_TIMEOUT": "60"})
    release = asyncio.Event()

    async def late(exchange: Exchange) -> None:
        await release.wait()
        await (stream([text("x" * 6_000_000) + finish() + DONE]) if streamed else reply(200, LARGE))(exchange)

    stage.a.script = late
    connection = await stage.router.open_chat("a/m1", streamed, receive_buffer=4096)
    await stage.a.wait_for(1)
    stage.router.signal(signal.SIGTERM)
    await until(lambda: refuses(stage.router.port))
    release.set()
    await asyncio.sleep(0.3)
    got = await connection.answer(PATIENCE)
    assert (got.ended, len(got.text)) == ("whole", 6_000_000)
    assert await stage.router.ended(30) == 0
    connection.close()


async def test_the_port_is_released_for_the_next(own: Own, launch: Launch) -> None:
    """While one process drains the next one can bind the port and serve."""
    stage = await own()
    stage.a.script = _lasting(2.5)
    running = asyncio.ensure_future(stage.chat("router/ab"))
    await stage.a.wait_for(1)
    await asyncio.sleep(0.2)
    stage.router.signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    config = json.loads(stage.router.config_file.read_text())
    successor = await launch(config, folder="next", port=stage.router.port, wait=False)
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if (await successor.ask("GET", "/health")).status == 200:
                break
        assert successor.process is not None
        assert successor.process.poll() is None, successor.log()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    got = await running
    assert (got.ended, got.done) == ("whole", True)


async def test_ready_says_when_it_drains(own: Own) -> None:
    """`/ready` is 503 while draining, where a connection that was open before still asks."""
    stage = await own()
    assert (await stage.router.ask("GET", "/ready")).status == 200
    stage.a.script = _lasting(1.5)
    running = asyncio.ensure_future(stage.chat("router/ab"))
    await stage.a.wait_for(1)
    connection = await Connection.open(stage.router.port)
    await asyncio.sleep(0.1)
    stage.router.signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    if await connection.send(request_bytes("GET", "/ready")):
        got = await connection.answer(2)
        assert got.status in (0, 503)
    connection.close()
    assert (await running).done
