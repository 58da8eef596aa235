"""Whether a request costs the same while everything around it grows.

    python -m bench.flat

Prints CPU per request of the event loop and of the bookkeeper: with more and more rows in the ledger, categories with
keywords, chains, client keys and conversations; and what 100 reloads at once do to requests under way.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop

from bench.pipeline import ENVIRON, SETTINGS, WHOLE, Canned, Nobody, answers, request_body
from llm_router.accounting.booking import Attempt, Booking
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.settle import Settler, no_encoding
from llm_router.accounting.store import Store
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.dispatch import Router
from llm_router.proxy.exchange import Caller
from llm_router.server.app import make_router
from llm_router.wire.chat import parse_chat

ROWS = (1, 100, 10_000, 1_000_000)
BATCH = 200
CHAIN = ["openai/gpt-4o-mini"]


def _id(number: int) -> str:
    """As the router makes them: 256ths of a second, then something random; here at a thousand a second."""
    return f"req_{(1_700_000_000_000 + number) * 256 // 1000:010x}{number * 11400714819323198485 % 2**64:016x}"


def ledger(folder: Path) -> None:
    """What writing a batch costs when the ledger has that many rows."""
    store = Store(folder)
    settler = Settler(no_encoding, DriftBook())
    number = 0

    def records(count: int) -> list[Any]:
        nonlocal number
        made = []
        for _ in range(count):
            number += 1
            attempts = (Attempt("openai/gpt-4o-mini", "ok", 200, 5),)
            booking = Booking(_id(number), 1.7e9 + number, "code", "local", CHAIN[0], "openai")
            booking.attempts, booking.answer, booking.answer_bytes = attempts, (WHOLE,), len(WHOLE)
            made.append(settler.settle(booking))
        return made

    for rows in ROWS:
        while number < rows:
            store.write(records(min(10_000, rows - number)))
        while store.roll_up(100_000):
            pass
        figures = []
        for _ in range(5):
            batch = records(BATCH)
            began = time.thread_time()
            store.write(batch)
            figures.append((time.thread_time() - began) / BATCH * 1e6)
        print(f"  {rows:>9,} rows in the ledger: {min(figures):6.1f} us to write one")
    store.close()


def start(folder: Path, settings: dict[str, Any]) -> Router:
    """A router of its own over a canned upstream."""
    folder.mkdir()
    config = folder / "router_config.json"
    config.write_text(json.dumps({**SETTINGS, **settings}))
    places = {"ROUTER_CONFIG_FILE": str(config), "ROUTER_STATE_DIR": str(folder / "state"), "HOME": str(folder)}
    environ = {**ENVIRON, **places}
    config_file = ConfigFile(environ, {}, folder)
    router = make_router(config_file.load(), config_file, environ)
    router._parts.upstream = Canned(stream=False)  # type: ignore[assignment]
    return router


async def cost(router: Router) -> float:
    """Loop CPU of one request, in microseconds: the best of some rounds."""
    raw = request_body()
    best = float("inf")
    for _ in range(7):
        began = time.thread_time()
        await answers(router, raw, 200)
        best = min(best, time.thread_time() - began)
        await asyncio.to_thread(router.bookkeeper.flush)
    return best / 200 * 1e6


def categories(number: int) -> dict[str, Any]:
    """So many custom categories with 20 keywords each."""
    made = {
        f"custom{n}": {
            "description": f"things of kind {n}",
            "models": CHAIN,
            "keywords": [f"word{n}x{k}" for k in range(20)],
        }
        for n in range(number)
    }
    return {"custom_categories": made}


def chain(number: int) -> dict[str, Any]:
    """A chain of so many models for each category."""
    models = [*CHAIN, *(f"openai/model-{n}" for n in range(number - 1))]
    return {"model_mappings": dict.fromkeys(SETTINGS["model_mappings"], models)}


async def growing(folder: Path, what: str, make: Callable[[int], dict[str, Any]], sizes: Sequence[int]) -> None:
    """Cost against the size of a part of the configuration."""
    for size in sizes:
        router = start(folder / f"{what}-{size}".replace(" ", "-"), make(size))
        print(f"  {size:>9,} {what}: {await cost(router):6.1f} us of the event loop")
        await asyncio.to_thread(router.bookkeeper.close, 5.0)


async def conversations(folder: Path) -> None:
    """Cost against the number of conversations that are remembered, each from a client of its own."""
    router = start(folder / "conversations", {})
    number = 0
    for size in (1, 1_000, 10_000):
        while number < size:
            number += 1
            raw = request_body().replace(b"the router", b"the router %d" % number, 1)
            await router.answer(parse_chat(raw), Caller(f"r{number}", f"key-{number}"), Nobody())  # type: ignore[arg-type]
        print(f"  {size:>9,} conversations and clients: {await cost(router):6.1f} us of the event loop")
    await asyncio.to_thread(router.bookkeeper.close, 5.0)


async def reloads(folder: Path) -> None:
    """The slowest of the requests that run while 100 reloads do, and what the reloads take."""
    router = start(folder / "reloads", categories(20))
    raw = request_body()
    slowest = 0.0
    done = asyncio.Event()

    async def ask() -> None:
        nonlocal slowest
        while not done.is_set():
            began = time.perf_counter()
            await answers(router, raw, 1)
            slowest = max(slowest, time.perf_counter() - began)
            await asyncio.sleep(0.001)  # a loop that never waits would keep all threads from the interpreter

    asking = asyncio.ensure_future(ask())
    began = time.perf_counter()
    await asyncio.gather(*(router.reload() for _ in range(100)))
    took = time.perf_counter() - began
    done.set()
    await asking
    print(f"  100 reloads at once: {took * 1000:.0f} ms; the slowest request meanwhile {slowest * 1000:.1f} ms")
    await asyncio.to_thread(router.bookkeeper.close, 5.0)


async def measure(folder: Path) -> None:
    """All of it."""
    print("Ledger")
    await asyncio.to_thread(ledger, folder / "ledger")
    print("Configuration")
    await growing(folder, "custom categories with 20 keywords", categories, (1, 50, 500))
    await growing(folder, "models in a chain", chain, (1, 8, 64))
    print("Clients")
    await conversations(folder)
    print("Reloads")
    await reloads(folder)


def main() -> None:
    """Runs in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(measure(Path(folder)))


if __name__ == "__main__":
    main()
