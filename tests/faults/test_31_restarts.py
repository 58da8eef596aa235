"""What circuits are over a kill and a restart: neither forgotten nor prolonged, whatever the file says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.faults.circuits import open_circuit, open_circuits, served_by
from tests.support.chunks import error
from tests.support.fixtures import Launch, Stage
from tests.support.upstream import healthy, reply
from tests.support.waiting import until

Own = Callable[..., Awaitable[Stage]]


def _state_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name]


async def _saved(stage: Stage, name: str) -> None:
    """Waits until the state file tells of a model or a fault; several workers have a database, which is as quick."""
    await _written(stage, lambda text: name in text)


async def _saved_open(stage: Stage, model: str) -> None:
    """The same of an open circuit: its first failures may have been saved before the last."""
    await _written(stage, lambda text: bool(json.loads(text)["models"].get(model, {}).get("open_until")))


async def _written(stage: Stage, told: Callable[[str], bool]) -> None:
    if "ROUTER_WORKERS" in stage.router.env:
        await asyncio.sleep(1.2)
        return
    saved = stage.router.state / "circuits.json"
    await until(lambda: saved.exists() and told(saved.read_text()))


async def test_a_kill_forgets_nothing(own: Own) -> None:
    """SIGKILL and restart: an open circuit stays open for what remains of its time, no shorter and no longer."""
    stage = await own(env={"ROUTER_CIRCUIT_RECOVERY": "5"})
    started = time.monotonic()
    await open_circuit(stage)
    opened = time.monotonic()
    await _saved_open(stage, "a/m1")
    for _ in range(3):
        await asyncio.to_thread(stage.router.kill)
        await asyncio.to_thread(stage.router.start)
        seen = await open_circuits(stage), await served_by(stage), stage.a.count
        assert seen == (["a/m1"], "b/m2", 3) or time.monotonic() - started > 5
    await asyncio.sleep(max(0.0, opened + 5.1 - time.monotonic()))
    assert await served_by(stage) == "a/m1"


async def test_a_cooldown_survives_a_kill(own: Own) -> None:
    """A rate limit's cooldown is remembered over a restart too."""
    stage = await own()
    stage.a.script = reply(429, error("slow down"), {"Retry-After": "60"})
    await stage.chat("router/ab")
    await _saved(stage, "a/m1")
    await asyncio.to_thread(stage.router.kill)
    await asyncio.to_thread(stage.router.start)
    assert await served_by(stage) == "b/m2"
    assert stage.a.count == 1


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\x00\xff" * 500,
    b'{"circuits": 7}',
    b'{"version": 999, "circuits": {"a/m1": null}}',
    b"9" * 100_000,
    b"[" * 100_000,
]


async def test_a_corrupt_circuit_file_is_survived(own: Own) -> None:
    """Whatever the state file holds, the router starts and serves."""
    stage = await own()
    await open_circuit(stage)
    await _saved_open(stage, "a/m1")
    await asyncio.to_thread(stage.router.kill)
    files = _state_files(stage.router.state)
    for content in GARBAGE:
        for path in files:
            path.write_bytes(content)
        await asyncio.to_thread(stage.router.start)
        assert (await stage.chat("router/ab")).status == 200, content[:20]
        await asyncio.to_thread(stage.router.kill)


async def test_odd_numbers_in_the_circuit_file(own: Own) -> None:
    """Times far in the future or no numbers at all do not lock a model for ever nor stop the start."""
    stage = await own()
    await open_circuit(stage)
    await _saved_open(stage, "a/m1")
    await asyncio.to_thread(stage.router.kill)
    for path in _state_files(stage.router.state):
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, FileNotFoundError):  # a worker that outlived the router by a moment has tidied up
            continue
        path.write_text(json.dumps(_with_numbers(content, 1e18)))
    await asyncio.to_thread(stage.router.start)
    got = await stage.chat("a/m1")
    assert got.status in (200, 503)
    if got.status == 503:
        assert int(got.header("retry-after") or "999999") <= 3600


def _with_numbers(value: Any, number: float) -> Any:
    if isinstance(value, dict):
        return {key: _with_numbers(item, number) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item, number) for item in value]
    return number if isinstance(value, float) else value


async def test_a_new_key_is_a_new_chance(own: Own, launch: Launch) -> None:
    """A provider that was opened for its credentials is forgotten when the key changes."""
    stage = await own()
    stage.a.script = reply(401, error("no"))
    await stage.chat("router/ab")
    await _saved(stage, "authentication")
    await asyncio.to_thread(stage.router.kill)
    stage.a.script = healthy
    await asyncio.to_thread(stage.router.start)
    assert await served_by(stage) == "b/m2"
    await asyncio.to_thread(stage.router.kill)
    stage.router.env["A_KEY"] = "sk-test-another-key-000000"
    await asyncio.to_thread(stage.router.start)
    assert await served_by(stage) == "a/m1"
