"""Enormous and compressed bodies in both directions: carried, or cut with a clear error, never a blocked loop."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.chunks import completion
from tests.support.client import Connection, bomb, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.upstream import plain, raw, reply
from tests.support.waiting import PATIENCE


async def test_eight_megabytes_pass(stage: Stage) -> None:
    """A body of 8 MB (images) is carried whole, and the loop stays free meanwhile."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 2_000_000}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is this"}, image]}]
    running = asyncio.ensure_future(stage.chat("router/ab", messages=messages, patience=30))
    lag = await _worst_lag(stage, running)
    got = await running
    assert got.text == "Hello from upstream"
    assert stage.a.last.request.json()["messages"] == messages
    assert lag < 0.3


async def _worst_lag(stage: Stage, running: asyncio.Future[Any], seconds: float = 0.0) -> float:
    """The longest time of its own that `/health` took while `running` was under way, and `seconds` longer."""
    worst, until = 0.0, 0.0
    connection = await Connection.open(stage.router.port)
    while not running.done() or time.monotonic() < until:
        if not running.done():
            until = time.monotonic() + seconds
        watch = stage.router.watch()
        await connection.send(request_bytes("GET", "/health"))
        assert (await connection.answer()).status == 200
        worst = max(worst, watch.seconds)
        await asyncio.sleep(0.005)
    connection.close()
    return worst


Own = Callable[..., Awaitable[Stage]]

HOSTILE = {
    "one_letter": "a" * 2_000_000,
    "spaces": " " * 2_000_000,
    "digits": "1" * 2_000_000,
    "emoji": "🌍" * 400_000,
    "newlines": "\n" * 2_000_000,
    "words": "word " * 400_000,
    "keywords": "python traceback story " * 80_000,
    "no_boundary": "é" * 1_000_000,
    "json": '{"a":' * 300_000,
    "mentions": "@#$%^&*()" * 200_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_prompts_do_not_block_the_loop(stage: Stage, name: str) -> None:
    """Two megabytes that are slow to count or to classify do not stop the event loop, not even while booking."""
    for model in ("router", "router/ab"):
        running = asyncio.ensure_future(stage.chat(model, content=HOSTILE[name], patience=30))
        lag = await _worst_lag(stage, running, 1.0)
        assert (await running).text == "Hello from upstream"
        assert lag < 0.3, lag


async def test_too_large_is_413_without_buffering(own: Own) -> None:
    """A body above the limit is refused with 413: by its length at once, by its bytes as soon as they pass it."""
    stage = await own(env={"ROUTER_MAX_BODY_BYTES": "1000000"})
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes(headers={"Content-Length": "300000000", "Content-Type": "application/json"}))
    got = await connection.answer(3)
    assert got.status == 413
    assert "ROUTER_MAX_BODY_BYTES" in got.body.decode() or "1000000" in got.body.decode()
    connection.close()
    before = stage.router.rss()
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes(headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"}))
    sent, open_ = 0, True
    while open_ and sent < 300 << 20:
        try:
            open_ = await connection.send(b"10000\r\n" + b"a" * 65536 + b"\r\n", 1.0)
        except TimeoutError:
            break
        sent += 65536
    data = await connection.everything(3)
    assert connection.at_end
    assert not data or data.startswith(b"HTTP/1.1 413")
    assert stage.router.rss() - before < 32 << 20
    connection.close()
    assert stage.a.count == 0
    body = chat_body("router/ab", content="x" * 990_000)
    assert (await stage.router.ask("POST", "/v1/chat/completions", body)).status == 200


async def test_the_413_is_read_by_a_client_that_sends_first(stage: Stage) -> None:
    """A client that sends 34 MB before it reads still gets the 413 or a closed connection, not a hang."""
    connection = await Connection.open(stage.router.port)
    body = json.dumps(chat_body("router/ab", content="x" * 34_000_000)).encode()
    await connection.send(request_bytes(body=body))
    got = await connection.answer(5)
    assert got.status in (0, 413)
    assert got.ended != "timeout"
    connection.close()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unknown"])
async def test_compressed_requests_are_refused(stage: Stage, encoding: str) -> None:
    """A request with a Content-Encoding is refused before anything is inflated."""
    body = gzip.compress(json.dumps(chat_body("router/ab")).encode())
    got = await stage.router.ask("POST", "/v1/chat/completions", body, headers={"Content-Encoding": encoding})
    assert got.status in (400, 415), got.raw
    assert got.error["message"]
    assert stage.a.count == 0


async def test_a_bomb_from_a_client(stage: Stage) -> None:
    """A gigabyte packed into a megabyte is not unpacked."""
    before = stage.router.rss()
    got = await stage.router.ask("POST", "/v1/chat/completions", bomb(1024), headers={"Content-Encoding": "gzip"})
    assert got.status in (400, 413, 415)
    assert stage.router.rss() - before < 48 << 20


async def test_an_answer_of_values_without_end_is_not_parsed(stage: Stage) -> None:
    """A quarter of a megabyte on the wire that would be a gigabyte of lists is a failed attempt, and cheap."""
    body = json.dumps(completion("lists")).encode()[:-1] + b', "x": [' + b"[]," * 5_000_000 + b"1]}"
    packed = gzip.compress(body, 1)
    head = f"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    stage.a.script = raw(f"HTTP/1.1 200 OK\r\n{head}".encode() + packed, "hang")
    before = stage.router.rss()
    got = await stage.chat("router/ab", False, patience=PATIENCE)
    assert (got.status, got.header("x-router-attempts")) == (200, "2")
    assert stage.router.rss() - before < 100 << 20


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_bomb_from_a_provider(stage: Stage, streamed: bool, status: int) -> None:
    """A gigabyte packed into a megabyte by a provider is cut: bounded memory, next candidate or a clear error."""
    packed = bomb(1024)
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: {'text/event-stream' if streamed else 'application/json'}\r\n"
        f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    )
    stage.a.script = raw(head.encode() + packed, "hang")
    before = stage.router.rss()
    watch = stage.router.watch()
    got = await stage.chat("router/ab", streamed, patience=PATIENCE)
    assert got.status in ((200,) if status != 400 else (200, 400)), got.status
    assert watch.seconds < 2
    assert stage.router.rss() - before < 100 << 20


async def test_a_large_plain_answer(stage: Stage) -> None:
    """A completion of 6 MB passes whole."""
    stage.a.script = plain("y" * 6_000_000)
    got = await stage.chat("router/ab", False, patience=20)
    assert len(got.text) == 6_000_000


async def test_an_answer_of_many_levels(stage: Stage) -> None:
    """A provider's JSON of 100,000 levels does not kill anything."""
    deep = json.dumps(completion("x"))[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    stage.a.script = reply(200, deep)
    got = await stage.chat("router/ab", False)
    assert got.status == 200
    assert got.text in ("x", "Hello from upstream")
