"""The HTTP server's own limits, clocks and manners, over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import socket
import time
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import http_parser, web
from aiohttp.http import RawRequestMessage

from llm_router.config.values import Access
from llm_router.errors import ConfigError
from llm_router.server import connections, limits
from llm_router.server.connections import Connection as ServerConnection
from llm_router.server.connections import make_runner
from tests.server.conftest import Small, StartRouter, StartSmall
from tests.support.client import Connection as ClientConnection
from tests.support.client import request_bytes

HOST = b"Host: localhost\r\n"
HEAD = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"

BROKEN: dict[str, bytes] = {
    "length and coding": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "coding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two equal lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "negative length": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "hex length": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "length with _": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "empty length": HEAD + b"Content-Length: \r\n\r\n",
    "64-bit length": HEAD + b"Content-Length: 18446744073709551615\r\n\r\nabc",
    "huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "arabic digits": HEAD + "Content-Length: ٣\r\n\r\nabc".encode(),
    "coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked, chunked": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ", chunked": HEAD + b"Transfer-Encoding: ,chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked,": HEAD + b"Transfer-Encoding: chunked,\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "quoted coding": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    "empty coding": HEAD + b"Transfer-Encoding:\r\n\r\n",
    "empty coding and length": HEAD + b"Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc",
    "coding after a fold": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "chunk in words": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk with space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "chunk without size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "huge chunk": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunk too short": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "chunk lines end in LF": CHUNKED + b"3\nabc\n0\n\n",
    "CR in chunk extension": CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "bad trailer": CHUNKED + b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
    "length in trailer": CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
    "LF only": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "LF once": b"GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "CR only": b"GET / HTTP/1.1\rHost: localhost\r\r",
    "bare CR": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "folded host": b"GET / HTTP/1.1\r\nHost: local\r\n host\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nHost: localhost\r\nfoo\r\n\r\n",
    "header without name": b"GET / HTTP/1.1\r\nHost: localhost\r\n: v\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "other host in target": b"GET http://evil.com/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "connect": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/1.1.1": b"GET / HTTP/1.1.1\r\n" + HOST + b"\r\n",
    "space in target": b"GET /x y HTTP/1.1\r\n" + HOST + b"\r\n",
    "target without /": b"GET x HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_framing_is_refused(small: Small, name: str) -> None:
    """What two servers could read in two ways is one 400 in JSON and the end of the connection."""
    data, end = await small.raw(BROKEN[name] + HIDDEN)
    assert end == "eof"
    assert data.startswith(b"HTTP/1.1 400 ") or (name == "HTTP/0.9" and data.startswith(b"HTTP/"))
    assert data.count(b"HTTP/") == 1
    assert b"application/json" in data
    assert data.endswith(b"}\n")
    assert b"aiohttp" not in data
    assert b"Server: llm-router\r\n" in data


@pytest.mark.parametrize("name", ["negative chunk", "chunk too short", "bad trailer", "huge chunk"])
@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_framing_that_breaks_late_is_refused_at_once(small: Small, name: str, pause: float) -> None:
    """A body whose framing breaks while it is being read is 400 now, not when a clock runs out."""
    connection = await small.open()
    await connection.send(CHUNKED + b"3\r\nabc\r\n")
    await asyncio.sleep(pause)
    await connection.send(BROKEN[name].removeprefix(CHUNKED))
    data = await connection.everything(2)
    assert connection.at_end == "eof"
    assert data.startswith(b"HTTP/1.1 400 ")
    assert data.count(b"HTTP/") == 1
    connection.close()


GOOD: dict[str, bytes] = {
    "length": HEAD + b"Content-Length: 3\r\n\r\nabc",
    "leading zero": HEAD + b"Content-Length: 003\r\n\r\nabc",
    "chunked": CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    "chunks": CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
    "chunk extension": CHUNKED + b"3;name=value\r\nabc\r\n0\r\n\r\n",
    "trailer": CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    "CHUNKED": HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "blank lines first": b"\r\n\r\n" + HEAD + b"Content-Length: 3\r\n\r\nabc",
    "absolute target": b"POST http://localhost/ HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc",
    "upgrade": HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    "long header": HEAD + b"X: " + b"a" * 8000 + b"\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("cut", [0, 1])
async def test_good_framing_is_read(small: Small, name: str, cut: int) -> None:
    """Every sound framing of the same body gives the same body, whole or byte by byte, twice on one connection."""
    connection = await small.open()
    for _ in range(2):
        if cut and len(GOOD[name]) < 500:
            for index in range(len(GOOD[name])):
                await connection.send(GOOD[name][index : index + 1])
                await asyncio.sleep(0)
        else:
            await connection.send(GOOD[name])
        answer = await connection.answer(3)
        assert answer.status == 200
        assert (answer.json()["size"], answer.json()["head"]) == (3, "abc")
    connection.close()


async def test_http_1_0(small: Small) -> None:
    """HTTP/1.0 works: without a Host, with a length, closed afterwards unless keep-alive was asked for."""
    data, end = await small.raw(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
    assert end == "eof"
    assert b'"size": 3' in data
    connection = await small.open()
    for _ in range(2):
        await connection.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await connection.answer(2)).status == 200
    connection.close()


async def test_pipelining(small: Small) -> None:
    """Requests sent without waiting are answered in order."""
    one = b"".join(HEAD + b"Content-Length: %d\r\n\r\n%b" % (size, b"x" * size) for size in range(1, 60))
    connection = await small.open()
    await connection.send(one)
    assert [(await connection.answer(3)).json()["size"] for _ in range(1, 60)] == list(range(1, 60))
    connection.close()


async def test_expect_continue(small: Small) -> None:
    """`Expect: 100-continue` is answered before the body is sent; the answer itself follows."""
    connection = await small.open()
    await connection.send(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert await connection.receive(2) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await connection.send(b"abc")
    assert (await connection.answer(2)).json()["size"] == 3
    connection.close()


async def test_expect_continue_is_not_said_to_what_is_refused(start: StartSmall) -> None:
    """A body that would be refused anyway (too long, foreign host) is never invited."""
    small = await start(max_body_bytes=1000)
    for head, status in ((HEAD, b"413"), (b"POST / HTTP/1.1\r\nHost: evil.com\r\n", b"403")):
        connection = await small.open()
        await connection.send(head + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        assert (await connection.receive(2))[9:12] == status
        connection.close()


async def test_unknown_expectations(small: Small) -> None:
    """An expectation other than 100-continue is 417 in JSON."""
    answer = await small.ask("POST", "/", b"abc", headers={"Expect": "miracles"})
    assert (answer.status, answer.error["code"]) == (417, "bad_http")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "unknown"])
async def test_compressed_bodies_are_refused(small: Small, coding: str, caplog: pytest.LogCaptureFixture) -> None:
    """A compressed body is 415 before a byte of it is unpacked, and nothing is logged about its content."""
    with caplog.at_level(logging.DEBUG):
        answer = await small.ask("POST", "/", b"\x1f\x8bnot gzip at all", headers={"Content-Encoding": coding})
    assert (answer.status, answer.error["code"]) == (415, "unsupported_content_encoding")
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("coding", ["identity", ""])
async def test_identity_is_no_compression(small: Small, coding: str) -> None:
    """`Content-Encoding: identity` says that nothing was done."""
    assert (await small.ask("POST", "/", b"abc", headers={"Content-Encoding": coding})).json()["size"] == 3


async def test_long_bodies_are_refused_before_they_are_read(start: StartSmall) -> None:
    """A declared length above the limit is 413 at once and names the setting; one at the limit passes."""
    small = await start(max_body_bytes=1000)
    connection = await small.open()
    await connection.send(HEAD + b"Content-Length: 1001\r\n\r\n")
    answer = await connection.answer(2)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert "ROUTER_MAX_BODY_BYTES" in answer.error["message"]
    assert await connection.closed_within(8)
    connection.close()
    assert (await small.ask("POST", "/", b"x" * 1000)).json()["size"] == 1000


async def test_long_chunked_bodies_are_refused_while_they_come(start: StartSmall) -> None:
    """Without a declared length the limit holds too, and what comes after it is dropped, not kept."""
    small = await start(max_body_bytes=100_000)
    connection = await small.open()
    await connection.send(CHUNKED + b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    sending = asyncio.ensure_future(connection.send((b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n") * 200))
    answer = await connection.answer(5)
    assert answer.status == 413
    await sending
    connection.close()


async def test_what_is_dropped_is_bounded_too(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a refusal the router reads on for a while, not for as much as a client likes to send."""
    monkeypatch.setattr(connections, "LINGER_BYTES", 1 << 20)
    small = await start(max_body_bytes=100_000)
    for refused in (CHUNKED, b"nonsense\r\n\r\n"):
        connection = await small.open()
        await connection.send(refused)
        sent = 0
        while sent < 64 << 20 and await connection.send(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"):
            sent += 0xFFFF
        assert sent < 32 << 20
        connection.close()


async def test_eight_megabytes_pass(small: Small) -> None:
    """A large body arrives whole."""
    assert (await small.ask("POST", "/", b"x" * (8 << 20))).json()["size"] == 8 << 20


async def test_big_bodies_share_a_budget(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all connections together hold too much, one more big body is 503 with Retry-After, and all is given back."""
    monkeypatch.setattr(connections, "MOST_HELD_BYTES", 3 << 20)
    small = await start()
    holding = [await small.open() for _ in range(2)]
    for connection in holding:
        await connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % (3 << 20) + b"x" * (2 << 20))
    await asyncio.sleep(0.2)
    refused = await small.ask("POST", "/", b"x" * (3 << 20))
    assert (refused.status, refused.header("retry-after")) == (503, "1")
    for connection in holding:
        connection.close()
    await asyncio.sleep(0.1)
    assert (await small.ask("POST", "/", b"x" * (3 << 20))).status == 200
    assert small.runner.server.held_bytes == 0


async def test_unread_bodies_do_not_harm(small: Small) -> None:
    """A handler that does not read its body leaves the connection usable."""
    connection = await small.open()
    for _ in range(3):
        await connection.send(request_bytes("POST", "/deaf", b"x" * 1000))
        answer = await connection.answer(2)
        assert answer.body == b"not read"
    connection.close()


# Clocks. The header timeout of these servers is short; the sweep runs at a quarter of it.


async def test_silent_connections_are_closed(start: StartSmall) -> None:
    """A fresh connection that says nothing is closed after the header timeout, without a word."""
    small = await start(header_timeout=0.4)
    began = time.monotonic()
    data, end = await small.raw(b"", 3)
    assert (data, end) == (b"", "eof")
    assert 0.35 < time.monotonic() - began < 1.2


async def test_slowloris_is_closed(start: StartSmall) -> None:
    """A head that comes drop by drop is 408 after the header timeout, however lively it drips."""
    small = await start(header_timeout=0.5)
    connection = await small.open()
    began = time.monotonic()
    drops = 0
    data = b""
    try:
        await connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        while not data and time.monotonic() - began < 5 and await connection.send(b"X: y\r\n"):
            drops += 1
            with contextlib.suppress(TimeoutError):
                data = await connection.receive(0.05)
        took = time.monotonic() - began
    finally:
        connection.close()
    assert data.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in data
    assert drops > 3
    assert 0.4 < took < 2.5


async def test_idle_keep_alive_connections_may_stay(start: StartSmall) -> None:
    """A connection that has been served may rest for longer than the header timeout, but a head begun on it may not."""
    small = await start(header_timeout=0.3)
    connection = await small.open()
    await connection.send(request_bytes("GET", "/"))
    assert (await connection.answer(2)).status == 200
    await asyncio.sleep(0.8)
    await connection.send(request_bytes("GET", "/"))
    assert (await connection.answer(2)).status == 200
    await connection.send(b"GET / HT")
    assert (await connection.answer(2)).status == 408
    connection.close()


async def test_idle_keep_alive_connections_end(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection is closed when its keep-alive time is over."""
    monkeypatch.setattr(connections, "KEEPALIVE_S", 0.5)
    small = await start()
    connection = await small.open()
    await connection.send(request_bytes("GET", "/"))
    assert (await connection.answer(2)).status == 200
    assert await connection.closed_within(2)
    connection.close()


async def test_idle_keep_alive_connections_end_on_the_short_way_too(
    serve: StartRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that rests after a plain chat request is closed when its keep-alive time is over, not before."""
    monkeypatch.setattr(connections, "KEEPALIVE_S", 1.5)
    monkeypatch.setattr(connections, "MAX_SWEEP_S", 0.1)
    served = await serve()
    connection = await ClientConnection.open(served.port)
    for _ in range(3):
        await connection.send(request_bytes("POST", "/v1/chat/completions", b"{}"))
        assert (await connection.answer(2)).status == 400
        await asyncio.sleep(0.8)
    assert await connection.closed_within(2)
    connection.close()


async def test_connections_are_kept_alive_and_not_delayed(small: Small) -> None:
    """What the listening socket was told holds for accepted connections: dead peers are found, small writes leave."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    limits.prepare_listener(listener)
    await web.SockSite(small.runner, listener).start()
    connection = await ClientConnection.open(listener.getsockname()[1])
    await connection.send(request_bytes("GET", "/"))
    assert (await connection.answer(2)).status == 200
    (served,) = small.runner.server.connections
    accepted = served.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


async def test_silent_bodies_are_ended(start: StartSmall) -> None:
    """A body that stops coming is 408 after the header timeout, which the answer names."""
    small = await start(header_timeout=0.4)
    connection = await small.open()
    began = time.monotonic()
    await connection.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
    answer = await connection.answer(3)
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert "ROUTER_HEADER_TIMEOUT" in answer.error["message"]
    assert 0.35 < time.monotonic() - began < 1.5
    connection.close()


async def test_slow_bodies_may_take_their_time(start: StartSmall) -> None:
    """A body that keeps coming, however slowly, is read to its end: only silence is bounded."""
    small = await start(header_timeout=0.4)
    connection = await small.open()
    await connection.send(HEAD + b"Content-Length: 8\r\n\r\n")
    for _ in range(8):
        await asyncio.sleep(0.15)
        await connection.send(b"x")
    assert (await connection.answer(3)).json()["size"] == 8
    connection.close()


async def test_slow_answers_are_no_silence(start: StartSmall) -> None:
    """While the router works on a request its client may be silent for as long as it likes."""
    small = await start(header_timeout=0.2)
    answer = await small.ask("GET", "/slow?s=1")
    assert answer.body == b"done"


async def test_the_timeout_in_force_counts(start: StartSmall) -> None:
    """A reload that shortens the header timeout reaches connections that are open already."""
    small = await start(header_timeout=4.0)
    connection = await small.open()
    await asyncio.sleep(0.1)
    small.snapshot = replace(small.snapshot, header_timeout=0.2)
    assert await connection.closed_within(2.5)
    connection.close()


@pytest.mark.parametrize(
    ("flood", "statuses"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", (400, 431)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n", (431,)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X" * 70_000 + b": a\r\n\r\n", (431,)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: a\r\n" % i for i in range(1000)) + b"\r\n", (431,)),
        (b"GET / HTTP/1.1\r\n" + HOST + (b"X: " + b"a" * 9000 + b"\r\n") * 30, (431,)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 4_000_000, (431,)),
        (b"\r\n" * 100_000, (431, 400)),
    ],
    ids=["target", "value", "name", "many", "large head", "endless value", "blank lines"],
)
async def test_floods_in_the_head(small: Small, flood: bytes, statuses: tuple[int, ...]) -> None:
    """Too long lines, too many headers and too large heads are 4xx, told to the client before the connection ends."""
    connection = await small.open()
    sending = asyncio.ensure_future(connection.send(flood))
    answer = await connection.answer(5)
    assert answer.status in statuses
    assert answer.header("connection") == "close"
    connection.close()
    await sending


async def test_most_connections(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit an idle connection makes room; where all are busy one more is 503 and closed."""
    monkeypatch.setattr(connections, "connection_limit", lambda: 4)
    small = await start()
    idle = [await small.open() for _ in range(4)]
    await asyncio.sleep(0.05)
    assert (await small.ask("GET", "/")).status == 200
    assert sum([await connection.closed_within(0.2) for connection in idle]) >= 1
    for connection in idle:
        connection.close()
    busy = [await small.open() for _ in range(4)]
    for connection in busy:
        await connection.send(request_bytes("GET", "/slow"))
    await asyncio.sleep(0.1)
    assert small.running == 4
    connection = await small.open()
    answer = await connection.answer(2)
    assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
    assert small.running == 4
    for other in (*busy, connection):
        other.close()


async def test_a_client_that_leaves_cancels_its_handler(small: Small) -> None:
    """FIN and RST both reach the handler while it works."""
    for leave in ("close", "reset"):
        connection = await small.open()
        await connection.send(request_bytes("GET", "/slow"))
        await asyncio.sleep(0.05)
        getattr(connection, leave)()
        await asyncio.sleep(0.1)
    assert (small.running, small.cancelled) == (0, 2)


async def test_faults_are_told_without_details(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is a 500 in JSON without its text, logged once with its traceback."""
    answer = await small.ask("GET", "/broken")
    assert (answer.status, answer.error["code"]) == (500, "internal")
    assert b"secret" not in answer.raw
    assert answer.header("x-request-id")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info


async def test_a_fault_in_a_begun_answer_breaks_it_off(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that had begun does not end as if it were whole."""
    answer = await small.ask("GET", "/broken-stream")
    assert answer.ended != "whole"
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_url"),
        ("POST", "/v1/responses", 404, "unknown_url"),
        ("DELETE", "/broken", 405, "method_not_allowed"),
        ("GET", "/%00", 404, "unknown_url"),
        ("GET", "/..%2f..%2fetc/passwd", 404, "unknown_url"),
        ("OPTIONS", "*", 404, "unknown_url"),
    ],
)
async def test_aiohttps_own_refusals_are_json(small: Small, method: str, path: str, status: int, code: str) -> None:
    """What the framework refuses is told in OpenAI's shape, with a newline at the end and a request id."""
    answer = await small.ask(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.body.endswith(b"}\n")
    assert answer.header("x-request-id")
    assert answer.header("server") == "llm-router"
    if status == 405:
        assert answer.header("allow") == "GET, HEAD"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-1.2:3_4", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a b", False),
        ("é", False),
        ("-a", False),
    ],
)
async def test_request_ids(small: Small, sent: str, kept: bool) -> None:
    """A client's own id comes back if it is a sane token; else there is a fresh one each time."""
    first = await small.ask("GET", "/", headers={"x-request-id": sent})
    again = await small.ask("GET", "/", headers={"x-request-id": sent})
    assert (first.header("x-request-id") == sent) is kept
    assert (first.header("x-request-id") == again.header("x-request-id")) is kept


async def test_draining_closes_connections(small: Small) -> None:
    """While the router drains every answer ends its connection."""
    small.draining = True
    answer = await small.ask("GET", "/")
    assert (answer.status, answer.header("connection")) == (200, "close")


async def test_shutdown_lets_requests_finish_within_its_time(start: StartSmall) -> None:
    """What runs may end within the drain timeout, idle connections do not hold, and one clock bounds the whole."""
    small = await start(drain_timeout=1.0)
    idle = await small.open()
    await asyncio.sleep(0.05)
    short = asyncio.ensure_future(small.ask("GET", "/slow?s=0.4"))
    long = asyncio.ensure_future(small.ask("GET", "/slow?s=30", patience=5))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await small.runner.cleanup()
    assert 0.9 < time.monotonic() - began < 1.9
    assert (await short).body == b"done"
    assert (await long).status == 0
    assert await idle.closed_within(0.5)
    assert small.cancelled == 1
    idle.close()


async def test_cross_origin_answers_and_preflights(start: StartSmall) -> None:
    """A configured origin gets its preflight and may read answers and errors; all others get no permission at all."""
    small = await start(access=Access(api_keys=("alpha",), allowed_origins=("https://chat.example.com",)))
    origin = {"Origin": "https://chat.example.com", "Sec-Fetch-Site": "cross-site"}
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    preflight = await small.ask("OPTIONS", "/", headers=origin | wanted)
    assert preflight.status == 204
    assert preflight.header("access-control-allow-headers") == "authorization, content-type"
    assert "POST" in (preflight.header("access-control-allow-methods") or "")
    for headers, status in (({"Authorization": "Bearer alpha"}, 200), ({}, 401)):
        answer = await small.ask("POST", "/", {"a": 1}, headers=origin | headers)
        assert answer.status == status
        allowed = answer.header("access-control-allow-origin")
        assert allowed == ("https://chat.example.com" if status == 200 else None)
    missing = await small.ask("GET", "/nowhere", headers=origin | {"Authorization": "Bearer alpha"})
    assert (missing.status, missing.header("access-control-allow-origin")) == (404, "https://chat.example.com")
    evil = await small.ask("OPTIONS", "/", headers={"Origin": "https://evil.com"} | wanted)
    assert evil.status == 403
    assert not [name for name, _ in evil.headers if name.lower().startswith("access-control")]


async def test_nodes_fetch_passes(small: Small) -> None:
    """node's fetch sends `Sec-Fetch-Mode: cors` without Origin or Sec-Fetch-Site; it is no browser."""
    answer = await small.ask("POST", "/", {"a": 1}, headers={"Sec-Fetch-Mode": "cors", "Accept-Language": "*"})
    assert answer.status == 200


async def test_access_settings_in_force_count(small: Small) -> None:
    """A reload that sets a key closes the door for the next request, also on a connection that is open."""
    connection = await small.open()
    for access, status in ((Access(), 200), (Access(api_keys=("alpha",)), 401), (Access(), 200)):
        small.snapshot = replace(small.snapshot, access=access)
        await connection.send(request_bytes("GET", "/"))
        answer = await connection.answer(2)
        assert answer.status == status
        if status == 401:
            assert answer.header("www-authenticate") == "Bearer"
    connection.close()


def test_pure_python_parser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiohttp's C parser there is no server, and the message says what to do."""
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(ConfigError, match="C extension"):
        make_runner(web.Application(), lambda: pytest.fail("not asked"))


def test_connection_limit_follows_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection is counted with its upstream's descriptor; where the system has no limit, ours holds."""
    for soft, limit in ((1024, 480), (64, 8), (10**9, limits.MOST_CONNECTIONS), (-1, limits.MOST_CONNECTIONS)):
        monkeypatch.setattr(limits.resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert limits.connection_limit() == limit


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [(1024, 4096, 4096), (1024, 1 << 20, 65_600), (1024, -1, 65_600), (1 << 20, 1 << 20, None)],
)
def test_descriptors_are_taken(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int | None) -> None:
    """The soft limit is raised as far as the system allows and we can use, and never lowered."""
    taken: list[Any] = []
    monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(limits.resource, "setrlimit", lambda _, values: taken.append(values))
    limits.raise_descriptor_limit()
    assert taken == ([] if wanted is None else [(wanted, hard)])


async def test_what_is_read_of_aiohttp_exists(small: Small) -> None:
    """The attributes that aiohttp keeps to itself and the sweep reads are there and mean what we think."""
    connection = await small.open()
    await asyncio.sleep(0.05)
    (server_side,) = small.runner.server.connections
    assert isinstance(server_side, ServerConnection)
    assert server_side.idle
    assert (server_side._current_request, server_side._reading_paused, len(server_side._messages)) == (None, False, 0)
    await connection.send(request_bytes("GET", "/slow"))
    await asyncio.sleep(0.05)
    assert not server_side.idle
    assert server_side._current_request.path == "/slow"
    await connection.send(request_bytes("GET", "/"))
    await asyncio.sleep(0.05)
    assert [type(message) for message, _ in server_side._messages] == [RawRequestMessage]
    connection.close()


async def test_error_answers_keep_their_headers(small: Small) -> None:
    """Refusals of the guard come in JSON with a request id."""
    answer = await small.ask("GET", "/", headers={"Host": "evil.com"})
    assert answer.status == 403
    assert json.loads(answer.body)["error"]["code"] == "host_not_allowed"
    assert answer.header("x-request-id")


def mutations(count: int) -> list[bytes]:
    """Requests with something wrong: bytes changed, left out, doubled, cut."""
    dice = random.Random(20261123)
    found = []
    for _ in range(count):
        data = bytearray(dice.choice([*GOOD.values(), *BROKEN.values()]))
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(data) or 1)
            match dice.randrange(4):
                case 0:
                    data[place : place + 1] = bytes([dice.choice(b"\r\n\t :;,\x00\x7f\xff0aZ")])
                case 1:
                    del data[place : place + dice.randint(1, 9)]
                case 2:
                    data[place:place] = data[place : place + dice.randint(1, 30)]
                case 3:
                    del data[place:]
        found.append(bytes(data))
    return found


async def test_mutated_requests_never_break_the_server(start: StartSmall, caplog: pytest.LogCaptureFixture) -> None:
    """Four hundred damaged requests bring 2xx or 4xx answers, no 5xx, no exception, no connection left behind."""
    small = await start(header_timeout=0.2)
    statuses: set[bytes] = set()
    requests = mutations(400)
    for first in range(0, 400, 100):
        for data, _ in await asyncio.gather(*(small.raw(request, 1.0) for request in requests[first : first + 100])):
            statuses.update(re.findall(rb"HTTP/\d\.\d (\d)\d\d ", data))
    assert statuses == {b"2", b"4"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    await asyncio.sleep(0.2)
    assert not [each for each in small.runner.server.connections if not each.idle]
