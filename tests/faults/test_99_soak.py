"""Half an hour of mixed traffic with faults: `pytest -m soak tests/faults`, only on demand.

SOAK_SECONDS shortens it, SOAK_CLIENTS sets how many clients ask at a time.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.support.chunks import answer, error, error_event, role, text
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, Script, either, hang, plain, raw, reply, stream

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
CLIENTS = int(os.environ.get("SOAK_CLIENTS", "12"))
WORDS = [f"word{number} " for number in range(40)]
GOOD = either(stream(answer(*WORDS), gap=0.005), plain("".join(WORDS)))
FAULTS: tuple[Script, ...] = (
    hang,
    reply(500, error("x")),
    reply(503, b""),
    reply(200, b"<html>"),
    raw(b"", "reset"),
    raw(b"garbage\r\n\r\n"),
    stream([role(), error_event()]),
    stream([role(), text("a")], end="reset"),
    stream([role(), text("a")], end="hang"),
    stream([role(), text("a"), error_event()]),
)


@dataclass(slots=True)
class Seen:
    """What the clients saw, and the process on the way."""

    outcomes: Counter[str] = field(default_factory=Counter)
    names: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)


async def _sometimes_bad(exchange: Exchange) -> None:
    await (random.choice(FAULTS) if random.random() < 0.05 else GOOD)(exchange)


async def _client(stage: Stage, seen: Seen, until: float) -> None:
    while time.monotonic() < until:
        name = f"soak-{uuid.uuid4()}"
        streamed, leaves = random.random() < 0.7, random.random() < 0.05
        content = "please tell me about " + "things " * random.randrange(200)
        connection = await Connection.open(stage.router.port)
        try:
            body = chat_body("router/abc", streamed, content=content)
            await connection.send(request_bytes(body=body, headers={"x-request-id": name}))
            seen.names.append(name)
            if leaves:
                await asyncio.sleep(random.random() * 0.2)
                seen.outcomes["left"] += 1
                continue
            got = await connection.answer(30)
            assert got.ended == "whole", (name, got.ended)
            if got.status != 200:
                assert got.status in (429, 503), got.raw
                seen.outcomes["failed"] += 1
            elif got.errors:
                assert (len(got.errors), got.done) == (1, False)
                seen.outcomes["cut"] += 1
            else:
                assert got.text == "".join(WORDS)
                assert got.done == streamed
                seen.outcomes["whole"] += 1
        finally:
            connection.close()


async def _watch(stage: Stage, seen: Seen, until: float) -> None:
    while time.monotonic() < until:
        started = time.monotonic()
        assert (await stage.router.ask("GET", "/health")).status == 200
        seen.lags.append(time.monotonic() - started)
        seen.memory.append(stage.router.rss())
        seen.descriptors.append(stage.router.descriptors())
        await asyncio.sleep(max(0.2, SECONDS / 600))


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
async def test_soak(own: Callable[..., Awaitable[Stage]]) -> None:
    """Flat memory, flat descriptors, no orphaned task, and a ledger that equals what the clients saw."""
    stage = await own(env={"ROUTER_CIRCUIT_RECOVERY": "2"})
    for upstream in (stage.a, stage.b, stage.c):
        upstream.script = _sometimes_bad
    seen = Seen()
    until = time.monotonic() + SECONDS
    trimming = asyncio.ensure_future(_forget(stage, until))
    await asyncio.gather(_watch(stage, seen, until), *(_client(stage, seen, until) for _ in range(CLIENTS)))
    await trimming
    figures = (await stage.settled(len(seen.names), 15))["requests"]
    early, late = seen.memory[len(seen.memory) // 4], seen.memory[-1]
    print(
        f"\n{sum(seen.outcomes.values())} requests: {dict(seen.outcomes)}; RSS {seen.memory[0] >> 20} MB at the start, "
        f"{early >> 20} after a quarter, {late >> 20} at the end; descriptors {seen.descriptors[0]} to "
        f"{max(seen.descriptors)}, {seen.descriptors[-1]} at the end; slowest /health {max(seen.lags) * 1000:.0f} ms"
    )
    assert figures["total"] == len(seen.names)
    # One that left may have been served before its leaving was seen, or have failed meanwhile.
    assert abs(figures["success"] - seen.outcomes["whole"]) <= seen.outcomes["left"]
    assert abs(figures["failed"] - seen.outcomes["failed"] - seen.outcomes["cut"]) <= seen.outcomes["left"]
    assert figures["cancelled"] <= seen.outcomes["left"]
    for name in random.sample(seen.names, min(200, len(seen.names))):
        assert await stage.record(name)
    assert late - early < 24 << 20
    await asyncio.sleep(2)
    assert stage.router.descriptors() <= seen.descriptors[0] + 25
    log = stage.router.log()
    for sign in ("Traceback", "never retrieved", "was destroyed", "Unclosed"):
        assert sign not in log, sign


async def _forget(stage: Stage, until: float) -> None:
    """The upstreams' own records of half an hour would not be flat."""
    while time.monotonic() < until:
        await asyncio.sleep(5)
        for upstream in (stage.a, stage.b, stage.c):
            del upstream.exchanges[:-50]
            upstream.connections[:] = [one for one in upstream.connections if not one.gone]
