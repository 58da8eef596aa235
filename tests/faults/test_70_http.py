"""HTTP itself as a weapon: smuggling probes, slowloris, floods of headers, lines and connections."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.support.chunks import DONE, finish, text
from tests.support.client import Connection, ask, chat_body, request_bytes
from tests.support.fixtures import Launch, Stage
from tests.support.router import chains
from tests.support.upstream import stream
from tests.support.waiting import PATIENCE, until

Own = Callable[..., Awaitable[Stage]]

BODY = json.dumps(chat_body("router/ab")).encode()
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"Host: 127.0.0.1\r\n"
TYPE = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

SMUGGLING: dict[str, bytes] = {
    "cl_and_te": POST + HOST + LENGTH + CHUNKED + b"\r\n" + CHUNKS,
    "te_and_cl": POST + HOST + CHUNKED + b"Content-Length: 4\r\n\r\n" + CHUNKS,
    "two_cl_differ": POST + HOST + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY,
    "two_cl_same_line": POST + HOST + b"Content-Length: 5, 6\r\n\r\n" + BODY,
    "cl_negative": POST + HOST + b"Content-Length: -1\r\n\r\n" + BODY,
    "cl_plus": POST + HOST + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "cl_hex": POST + HOST + b"Content-Length: 0x10\r\n\r\n" + BODY,
    "cl_text": POST + HOST + b"Content-Length: ten\r\n\r\n" + BODY,
    "cl_empty": POST + HOST + b"Content-Length: \r\n\r\n" + BODY,
    "cl_underscore": POST + HOST + b"Content-Length: 1_0\r\n\r\n" + BODY,
    "cl_unicode_digit": POST + HOST + "Content-Length: ١٠\r\n\r\n".encode() + BODY,
    "cl_overflow": POST + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "cl_space_inside": POST + HOST + b"Content-Length: 1 0\r\n\r\n" + BODY,
    "te_unknown": POST + HOST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "te_identity_and_chunked": POST + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "te_twice": POST + HOST + CHUNKED + CHUNKED + b"\r\n" + CHUNKS,
    "te_tab": POST + HOST + b"Transfer-Encoding:\tchunked\x0b\r\n\r\n" + CHUNKS,
    "te_space_before_colon": POST + HOST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "te_in_http10": POST.replace(b"1.1", b"1.0") + HOST + CHUNKED + b"Content-Length: 3\r\n\r\n" + CHUNKS,
    "header_space_name": POST + HOST + b"X Evil: 1\r\n" + LENGTH + b"\r\n" + BODY,
    "header_folding": POST + HOST + LENGTH + b"X-A: b\r\n c\r\n\r\n" + BODY,
    "header_leading_space": POST + b" " + HOST + LENGTH + b"\r\n" + BODY,
    "header_nul": POST + HOST + LENGTH + b"X-A: a\x00b\r\n\r\n" + BODY,
    "header_bare_cr": POST + HOST + LENGTH + b"X-A: a\rX-B: b\r\n\r\n" + BODY,
    "header_without_colon": POST + HOST + LENGTH + b"nonsense\r\n\r\n" + BODY,
    "header_empty_name": POST + HOST + LENGTH + b": value\r\n\r\n" + BODY,
    "two_hosts": POST + HOST + b"Host: evil.example\r\n" + LENGTH + b"\r\n" + BODY,
    "no_host": POST + LENGTH + b"\r\n" + BODY,
    "chunk_size_text": POST + HOST + CHUNKED + b"\r\nzz\r\nabc\r\n0\r\n\r\n",
    "chunk_size_negative": POST + HOST + CHUNKED + b"\r\n-5\r\nabc\r\n0\r\n\r\n",
    "chunk_size_0x": POST + HOST + CHUNKED + b"\r\n0x5\r\nabcde\r\n0\r\n\r\n",
    "chunk_size_overflow": POST + HOST + CHUNKED + b"\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunk_without_crlf": POST + HOST + CHUNKED + b"\r\n3\r\nabcX\r\n0\r\n\r\n",
    "version_odd": b"POST /v1/chat/completions HTTP/1.1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "version_9": b"POST /v1/chat/completions HTTP/9.9\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "no_version": b"POST /v1/chat/completions\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "method_odd": b"PO ST /v1/chat/completions HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "method_control": b"P\x01ST /v1/chat/completions HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "target_space": b"POST /v1/chat completions HTTP/1.1\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "tls_hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "http2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
async def test_smuggling_probes(stage: Stage, name: str) -> None:
    """An ambiguous or broken request is 400 (or 4xx) and a closed connection; what hides behind it is not served."""
    connection = await Connection.open(stage.router.port)
    await connection.send(SMUGGLING[name] + HIDDEN)
    data = await connection.everything(4)
    assert connection.at_end, "the connection must be closed"
    connection.close()
    first = data.split(b"\r\n", 1)[0]
    assert first == b"" or first.split(b" ")[1][:1] == b"4", first
    assert data.count(b"HTTP/1.1 ") <= 1, "the hidden request was answered"
    assert b"Traceback" not in data
    assert stage.a.count == 0


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_line_endings(stage: Stage, ending: bytes) -> None:
    """Bare LF between header lines is either understood as such or refused, never half of each."""
    head = (POST + HOST + TYPE + LENGTH).replace(b"\r\n", ending) + ending
    connection = await Connection.open(stage.router.port)
    await connection.send(head + BODY)
    data = await connection.everything(1.5)
    connection.close()
    assert data.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400")) or not data


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "FOO", "OPTIONS"])
async def test_odd_methods(stage: Stage, method: str) -> None:
    """Methods that no route has are 4xx."""
    connection = await Connection.open(stage.router.port)
    await connection.send(f"{method} 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    data = await connection.everything(3)
    connection.close()
    assert not data or data.split(b" ")[1][:1] == b"4"


async def test_upgrade_is_ignored(stage: Stage) -> None:
    """An Upgrade header changes nothing."""
    got = await stage.chat("router/ab", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert got.status in (200, 400)


FLOODS = {
    "long_target": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "long_header": b"GET /health HTTP/1.1\r\n" + HOST + b"X-Long: " + b"a" * 200_000 + b"\r\n\r\n",
    "long_name": b"GET /health HTTP/1.1\r\n" + HOST + b"X" * 200_000 + b": a\r\n\r\n",
    "many_headers": b"GET /health HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
    "endless_header": b"GET /health HTTP/1.1\r\n" + HOST + b"X-Long: " + b"a" * 3_000_000,
    "endless_target": b"GET /" + b"a" * 3_000_000,
    "endless_method": b"A" * 3_000_000,
    "many_cookies": b"GET /health HTTP/1.1\r\n" + HOST + b"Cookie: " + b"a=b; " * 40_000 + b"\r\n\r\n",
    "long_chunk_extension": POST + HOST + CHUNKED + b"\r\n5;" + b"x" * 300_000 + b"\r\nabcde\r\n0\r\n\r\n",
    "many_trailers": POST + HOST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + b"X-T: a\r\n" * 20_000 + b"\r\n",
}


@pytest.mark.parametrize("name", FLOODS)
async def test_floods_are_4xx(stage: Stage, name: str) -> None:
    """Floods of header bytes, lines and trailers are refused; memory and other clients do not notice."""
    before = stage.router.rss()
    connection = await Connection.open(stage.router.port)
    await connection.send(FLOODS[name])
    data = await connection.everything(4)
    assert connection.at_end or data
    connection.close()
    assert not data or data.split(b" ")[1][:1] == b"4", data[:100]
    assert stage.router.rss() - before < 16 << 20
    assert (await stage.chat("router/ab")).text == "Hello from upstream"


async def test_many_tiny_chunks(stage: Stage) -> None:
    """A body in 200,000 chunks of one byte costs time, not the service."""
    padded = json.dumps(chat_body("router/ab", content="x" * 100_000)).encode()
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes(headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"}))
    sending = asyncio.ensure_future(connection.send(b"".join(b"1\r\n%c\r\n" % byte for byte in padded) + b"0\r\n\r\n"))
    watch = stage.router.watch()
    assert (await ask(stage.router.port)).status == 200
    assert watch.seconds < 0.5
    await sending
    got = await connection.answer(PATIENCE)
    connection.close()
    assert got.status in (200, 400, 413)


@pytest.mark.slow
async def test_slowloris(own: Own) -> None:
    """300 clients that drip their heads are timed out, and a chat is served at once meanwhile."""
    stage = await own(env={"ROUTER_HEADER_TIMEOUT": "4"})
    connections = [await Connection.open(stage.router.port) for _ in range(300)]
    for connection in connections:
        await connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    worst = 0.0
    begun = time.monotonic()
    while time.monotonic() - begun < 4.5:
        started = time.monotonic()
        assert (await stage.chat("router/ab")).text == "Hello from upstream"
        worst = max(worst, time.monotonic() - started)
        for connection in connections:
            await connection.send(b"X-A: b\r\n")
        await asyncio.sleep(0.3)
    assert worst < 3  # nobody waits until the slow ones are timed out
    closed = await asyncio.gather(*(connection.closed_within(PATIENCE) for connection in connections))
    assert all(closed), f"{closed.count(False)} of 300 were not closed"
    for connection in connections:
        connection.close()


@pytest.mark.slow
async def test_idle_connections(own: Own) -> None:
    """500 connections that never say a word are closed by the header timer and slow nobody down."""
    stage = await own(env={"ROUTER_HEADER_TIMEOUT": "4"})
    connections = [await Connection.open(stage.router.port) for _ in range(500)]
    started = time.monotonic()
    assert (await stage.chat("router/ab")).text == "Hello from upstream"
    assert time.monotonic() - started < 3  # nobody waits until the silent ones are timed out
    closed = await asyncio.gather(*(connection.closed_within(PATIENCE) for connection in connections))
    assert all(closed), f"{closed.count(False)} of 500 were not closed"
    for connection in connections:
        connection.close()
    await until(lambda: stage.router.descriptors() < 80)


@pytest.mark.parametrize("how", ["silent_body", "silent_chunk", "half_head"])
async def test_silence_inside_a_request(stage: Stage, how: str) -> None:
    """A request that stops in its head or body is ended by the header timer (2 s here)."""
    pieces = {
        "silent_body": POST + HOST + TYPE + b"Content-Length: 5000\r\n\r\n" + BODY,
        "silent_chunk": POST + HOST + TYPE + CHUNKED + b"\r\n400\r\n" + BODY,
        "half_head": POST + b"Host: 127",
    }
    connection = await Connection.open(stage.router.port)
    await connection.send(pieces[how])
    started = time.monotonic()
    data = await connection.everything(PATIENCE)
    assert connection.at_end
    assert time.monotonic() - started > 1.2
    assert not data or data.split(b" ")[1][:1] == b"4"
    connection.close()
    assert stage.a.count == 0


async def test_a_kept_connection_may_rest(stage: Stage) -> None:
    """The header timer is for requests and fresh connections: one that was served may rest longer than it."""
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes("GET", "/health"))
    assert (await connection.answer()).status == 200
    await asyncio.sleep(2.8)
    assert await connection.send(request_bytes("GET", "/health"))
    assert (await connection.answer()).status == 200
    connection.close()


async def test_a_long_stream_is_not_timed_by_the_header_timer(stage: Stage) -> None:
    """A client that reads an answer for longer than the header timer is no slowloris."""
    stage.a.script = stream([*(text(f"{n} ") for n in range(30)), finish(), DONE], gap=0.1)
    got = await stage.chat("router/ab")
    assert (got.ended, got.done) == ("whole", True)


async def test_no_server_version(stage: Stage) -> None:
    """No answer tells versions of Python or aiohttp."""
    for method, path in (("GET", "/health"), ("GET", "/nosuch"), ("POST", "/v1/chat/completions")):
        got = await stage.router.ask(method, path)
        text = got.raw.decode().lower()
        assert "aiohttp" not in text
        assert "python/" not in text
    connection = await Connection.open(stage.router.port)
    await connection.send(b"garbage\r\n\r\n")
    data = (await connection.everything(3)).lower()
    connection.close()
    assert b"aiohttp" not in data
    assert b"python" not in data


async def test_the_pure_python_parser_is_refused(launch: Launch) -> None:
    """Starting on aiohttp's pure-Python parser is refused loudly."""
    router = await launch(chains({"a": 1, "b": 1}, {"ab": ["a/m1"]}), wait=False, env={"AIOHTTP_NO_EXTENSIONS": "1"})
    assert await asyncio.to_thread(router.wait, 10) != 0
    assert "parser" in router.log().lower()
    assert "Traceback" not in router.log()


async def test_more_connections_than_descriptors(own: Own) -> None:
    """Where idle connections have taken every descriptor the longest idle ones go: a chat is served all the same."""
    stage = await own(limits={resource.RLIMIT_NOFILE: 120})
    connections = [await Connection.open(stage.router.port) for _ in range(250)]
    await asyncio.sleep(0.3)
    for number in range(6):
        got = await stage.chat("router/ab", number % 2 == 0)
        assert (got.status, got.text) == (200, "Hello from upstream")
    for connection in connections:
        connection.close()
    assert (await stage.chat("router/ab")).status == 200
