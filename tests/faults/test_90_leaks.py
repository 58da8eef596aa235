"""Hundreds of random faults: descriptors, memory and figures stay as they were."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from tests.support.chunks import DONE, answer, error, error_event, finish, role, text
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.router import KEYS
from tests.support.upstream import Script, hang, healthy, plain, raw, reply, stream

Own = Callable[..., Awaitable[Stage]]

SCRIPTS: list[Script] = [
    healthy,
    healthy,
    healthy,
    hang,
    plain("x"),
    reply(500, error("x")),
    reply(400, error("x")),
    reply(429, error("x"), {"Retry-After": "0"}),
    reply(302, b"", {"Location": "/x"}),
    reply(200, b"<html>"),
    raw(b"", "reset"),
    raw(b"", "fin"),
    raw(b"HTTP/1.1 200 OK\r\nContent-Ty", "reset"),
    raw(b"garbage\r\n\r\n"),
    stream([role(), text("a")], end="reset"),
    stream([role(), text("a")], end="fin"),
    stream([role(), text("a")], end="half_chunk"),
    stream([role(), text("a")], end="bad_chunk"),
    stream([role(), text("a")], end="hang"),
    stream([role(), error_event()]),
    stream([role(), text("a"), error_event()]),
    stream([role(), finish(), DONE]),
    stream(answer(), gap=0.02),
    stream(answer(), encoding="gzip"),
    stream(answer(), framing="close"),
]


@pytest.mark.slow
async def test_six_hundred_random_faults(own: Own) -> None:
    """600 random faults and leaving clients: 25 descriptors more at most, figures that add up, a healthy end."""
    stage = await own(
        env={
            "ROUTER_FIRST_BYTE_TIMEOUT": "0.5",
            "ROUTER_IDLE_TIMEOUT": "0.5",
            "ROUTER_CIRCUIT_THRESHOLD": "100000",
        }
    )
    dice = random.Random(4711)
    for _ in range(20):
        await stage.chat("router/abc")
    await asyncio.sleep(0.5)
    descriptors, memory = stage.router.descriptors(), stage.router.rss()
    for upstream in (stage.a, stage.b, stage.c):
        upstream.queue = [dice.choice(SCRIPTS) for _ in range(2000)]
    gate = asyncio.Semaphore(40)
    answers: list[bytes] = []

    async def one(number: int) -> None:
        async with gate:
            streamed, leaves = dice.random() < 0.7, dice.random() < 0.3
            connection = await Connection.open(stage.router.port)
            await connection.send(request_bytes(body=chat_body("router/abc", streamed, content=f"fault {number}")))
            if leaves:
                await asyncio.sleep(dice.random() * 0.3)
                connection.reset() if dice.random() < 0.5 else connection.close()
                return
            got = await connection.answer(20)
            connection.close()
            assert got.ended in ("whole",), (got.ended, got.raw[:300])
            assert got.status in (200, 400, 429, 503)
            answers.append(got.raw)
            if streamed and got.status == 200:
                assert got.done != bool(got.errors), "either whole or one error"

    await asyncio.gather(*(one(number) for number in range(600)))
    for upstream in (stage.a, stage.b, stage.c):
        upstream.queue.clear()
    figures = (await stage.settled(620))["requests"]
    assert figures["total"] == 620
    assert figures["total"] == figures["success"] + figures["failed"] + figures["cancelled"]
    for _ in range(50):
        if stage.router.descriptors() <= descriptors + 25:
            break
        await asyncio.sleep(0.1)
    assert stage.router.descriptors() <= descriptors + 25
    assert stage.router.rss() - memory < 48 << 20
    everything = b"".join(answers)
    for secret in (*KEYS.values(), "Traceback", 'File "', "127.0.0.1"):
        assert secret.encode() not in everything
    log = stage.router.log()
    for sign in ("Traceback", "never retrieved", "was destroyed", "Unclosed", "never awaited", *KEYS.values()):
        assert sign not in log, sign
    await stage.reset()
    assert (await stage.chat("router/abc")).text == "Hello from upstream"


@pytest.mark.slow
async def test_memory_does_not_grow_with_requests(own: Own) -> None:
    """Two thousand answers leave the memory where it was after the first few hundred."""
    stage = await own()
    gate = asyncio.Semaphore(20)

    async def one(number: int) -> None:
        async with gate:
            got = await stage.chat("router/ab", number % 2 == 0, content=f"question {number} " + "x" * 500)
            assert got.status == 200

    await asyncio.gather(*(one(number) for number in range(600)))
    await asyncio.sleep(1.2)
    before = stage.router.rss()
    await asyncio.gather(*(one(number) for number in range(1400)))
    await asyncio.sleep(1.2)
    assert stage.router.rss() - before < 12 << 20
