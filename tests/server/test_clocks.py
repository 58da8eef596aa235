"""The server's clocks. The header timeout of these servers is short; the sweep runs at a quarter of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from llm_router.errors import Failure, FailureKind
from llm_router.server import connections, front, serving
from tests.server.conftest import CONFIG, StartRouter, StartSmall
from tests.server.raw import HEAD
from tests.support.client import Connection as ClientConnection
from tests.support.client import chat_body, request_bytes
from tests.support.upstream import Exchange, Upstream
from tests.support.vanishing import linux_alone, vanish
from tests.support.waiting import PATIENCE, until


async def test_silent_connections_are_closed(start: StartSmall) -> None:
    """A fresh connection that says nothing is closed after the header timeout, without a word."""
    small = await start(header_timeout=0.4)
    began = time.monotonic()
    data, end = await small.raw(b"", PATIENCE)
    assert (data, end) == (b"", "eof")
    assert time.monotonic() - began > 0.35


async def test_slowloris_is_closed(start: StartSmall) -> None:
    """A head that comes drop by drop is 408 after the header timeout, however lively it drips."""
    small = await start(header_timeout=0.5)
    connection = await small.open()
    began = time.monotonic()
    drops = 0
    data = b""
    try:
        await connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        while not data and time.monotonic() - began < PATIENCE and await connection.send(b"X: y\r\n"):
            drops += 1
            with contextlib.suppress(TimeoutError):
                data = await connection.receive(0.05)
        took = time.monotonic() - began
    finally:
        connection.close()
    assert data.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in data
    assert drops > 3
    assert took > 0.4


async def test_idle_keep_alive_connections_may_stay(start: StartSmall) -> None:
    """A connection that has been served may rest for longer than the header timeout, but a head begun on it may not."""
    small = await start(header_timeout=0.3)
    connection = await small.open()
    await connection.send(request_bytes("GET", "/"))
    assert (await connection.answer()).status == 200
    await asyncio.sleep(0.8)
    await connection.send(request_bytes("GET", "/"))
    assert (await connection.answer()).status == 200
    await connection.send(b"GET / HT")
    assert (await connection.answer()).status == 408
    connection.close()


async def test_idle_keep_alive_connections_end(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection is closed when its keep-alive time is over."""
    monkeypatch.setattr(connections, "KEEPALIVE_S", 0.5)
    monkeypatch.setattr(front, "MAX_SWEEP_S", 0.1)
    small = await start()
    connection = await small.open()
    await connection.send(request_bytes("GET", "/"))
    assert (await connection.answer()).status == 200
    assert await connection.closed_within(PATIENCE)
    connection.close()


async def test_a_request_that_came_in_a_pause_is_read(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the process stood still an idle connection's time was over: what its client had sent counts still."""
    monkeypatch.setattr(connections, "KEEPALIVE_S", 1.0)
    monkeypatch.setattr(front, "MAX_SWEEP_S", 0.05)
    small = await start()
    connection = await small.open()
    for _ in range(2):
        await connection.send(request_bytes("GET", "/"))
        assert (await connection.answer()).status == 200
        await asyncio.sleep(0.2)  # it is noted as idle
    connection.sock.send(request_bytes("GET", "/"))
    time.sleep(2.5)  # noqa: ASYNC251 - the pause
    assert (await connection.answer()).status == 200
    connection.close()


async def test_idle_keep_alive_connections_end_on_the_short_way_too(
    serve: StartRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that rests after a plain chat request is closed when its keep-alive time is over, not before."""
    monkeypatch.setattr(connections, "KEEPALIVE_S", 3.0)
    monkeypatch.setattr(front, "MAX_SWEEP_S", 0.1)
    served = await serve()
    connection = await ClientConnection.open(served.port)
    for _ in range(3):
        await connection.send(request_bytes("POST", "/v1/chat/completions", b"{}"))
        assert (await connection.answer()).status == 400
        await asyncio.sleep(1.2)
    assert await connection.closed_within(PATIENCE)
    connection.close()


async def test_silent_bodies_are_ended(start: StartSmall) -> None:
    """A body that stops coming is 408 after the header timeout, which the answer names."""
    small = await start(header_timeout=0.4)
    connection = await small.open()
    began = time.monotonic()
    await connection.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
    answer = await connection.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert "ROUTER_HEADER_TIMEOUT" in answer.error["message"]
    assert time.monotonic() - began > 0.35
    connection.close()


async def test_slow_bodies_may_take_their_time(start: StartSmall) -> None:
    """A body that keeps coming, however slowly, is read to its end: only silence is bounded."""
    small = await start(header_timeout=3.0)
    connection = await small.open()
    await connection.send(HEAD + b"Content-Length: 8\r\n\r\n")
    for _ in range(8):
        await asyncio.sleep(0.5)
        await connection.send(b"x")
    assert (await connection.answer()).json()["size"] == 8
    connection.close()


async def test_slow_answers_are_no_silence(start: StartSmall) -> None:
    """While the router works on a request its client may be silent for as long as it likes."""
    small = await start(header_timeout=0.2)
    answer = await small.ask("GET", "/slow?s=1")
    assert answer.body == b"done"


async def test_the_timeout_in_force_counts(start: StartSmall) -> None:
    """A reload that shortens the header timeout reaches connections that are open already."""
    small = await start(header_timeout=3600.0)
    connection = await small.open()
    await asyncio.sleep(0.1)
    small.snapshot = replace(small.snapshot, header_timeout=0.2)
    assert await connection.closed_within(PATIENCE)
    connection.close()


async def test_whoever_was_refused_is_not_waited_for_without_end(
    start: StartSmall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that gets its 400 and keeps the connection loses it a while later, be it silent or not."""
    monkeypatch.setattr(connections, "LINGER_S", 0.3)
    small = await start(header_timeout=0.4)
    connection = await small.open()
    await connection.send(b"no HTTP\r\n\r\n")
    data = await connection.receive(PATIENCE)
    assert data.startswith(b"HTTP/1.1 400 ")
    server = small.runner.server
    assert server is not None
    assert len(server.connections) == 1
    await until(lambda: not server.connections)
    connection.close()


@linux_alone
async def test_a_client_that_vanished_stops_the_spending(
    serve: StartRouter, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that is closed in mid-stream sends no FIN: its upstream is closed once nothing is acknowledged."""
    monkeypatch.setattr(connections, "GONE_SECONDS", 0.3)
    monkeypatch.setattr(front, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(front, "MAX_SWEEP_S", 0.1)

    async def drip(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.body(b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n')
            await asyncio.sleep(0.05)

    upstream.script = drip
    provider = {"base_url": f"http://127.0.0.1:{upstream.port}/v1", "api_key_env": "A_KEY"}
    served = await serve({**CONFIG, "providers": {"a": provider}})
    connection = await ClientConnection.open(served.port)
    await connection.send(request_bytes("POST", "/v1/chat/completions", chat_body("a/m1")))
    assert b"word" in await connection.receive(PATIENCE)
    await asyncio.sleep(0.8)
    assert upstream.exchanges[0].closed_at is None
    vanish(connection.sock)
    await until(lambda: upstream.exchanges[0].closed_at)
    await until(lambda: not served.router.in_flight)
    connection.close()


async def test_a_connection_that_cannot_be_looked_at_stops_no_clock(
    start: StartSmall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the sweep ends neither it nor the server: silent connections are still closed."""
    looks: list[str] = []

    def fail(self: connections.Connection, now: float, limit: float) -> None:
        looks.append("failed")
        raise OSError("not connected")

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    small = await start(header_timeout=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(connections.Connection, "check_clocks", fail)
        connection = await small.open()
        await until(lambda: looks)
    assert await connection.closed_within(PATIENCE)
    connection.close()
    assert told


async def test_a_look_that_fails_is_not_the_last(
    serve: StartRouter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong while the router is looked after is told, and a changed file is taken over afterwards."""
    monkeypatch.setattr(serving, "WATCH_CONFIG_EVERY", 0.01)
    router = (await serve()).router
    monkeypatch.setattr(router.config_file, "changed", lambda: 1 / 0)
    router.tasks.begin(serving._watch(router, aloud=False), "watch")
    await until(lambda: "looking after the router failed" in caplog.text)
    taken: list[bool] = []
    monkeypatch.setattr(router, "refresh", lambda: taken.append(True) or asyncio.sleep(0))
    monkeypatch.setattr(router.config_file, "changed", lambda: True)
    await until(lambda: taken)


async def test_a_clock_set_back_is_noticed(serve: StartRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the router runs: a circuit is not open for a day because the machine's clock was wrong by one."""
    monkeypatch.setattr(serving, "WATCH_CONFIG_EVERY", 0.01)
    router = (await serve()).router
    day, looks = 86400.0, 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return time.time() if looks > 1 else time.time() + day

    permit = router.circuits.admit("a/m1", ("key",), time.time() + day)
    assert permit is not None
    gone = Failure(FailureKind.MODEL_NOT_FOUND, "gone", 404)
    router.circuits.failed(permit, gone, time.time() + day)
    router.clock = clock
    router.tasks.begin(serving._watch(router, aloud=False), "watch")
    recovery = router.snapshot.breaker.recovery_timeout_sec
    await until(lambda: router.circuits.block("a/m1", ("key",), time.time() + recovery + 1) is None)


async def test_a_sleep_is_noticed(serve: StartRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's clock stands still while the machine sleeps, the wall's does not; kept connections are let go then."""
    monkeypatch.setattr(serving, "WATCH_CONFIG_EVERY", 0.01)
    router = (await serve()).router
    slept = 0.0
    router.clock = lambda: time.time() + slept
    distrusted: list[float] = []
    monkeypatch.setattr(router.upstream, "distrust", lambda: distrusted.append(slept))
    looks: list[bool] = []
    monkeypatch.setattr(router.config_file, "changed", lambda: looks.append(True))
    router.tasks.begin(serving._watch(router, aloud=False), "watch")
    await until(lambda: len(looks) > 3)
    slept = 60.0
    await until(lambda: distrusted)
    seen = len(looks)
    await until(lambda: len(looks) > seen + 3)
    assert distrusted == [60.0]
