"""Full disks, unwritable folders, corrupt ledgers, and the modes of files."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.chunks import error
from tests.support.fixtures import Launch, Stage
from tests.support.router import RouterProcess, chains
from tests.support.upstream import reply
from tests.support.waiting import until

Own = Callable[..., Awaitable[Stage]]


async def _wait(router: RouterProcess, seconds: float = 15.0) -> int:
    return await asyncio.to_thread(router.wait, seconds)


def _limit_files(stage: Stage, size: int) -> None:
    for pid in stage.router.processes():
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))


async def test_a_disk_that_fills_up(own: Own) -> None:
    """Disk full while running: chat goes on, a configuration write is a 5xx that leaves the file whole."""
    stage = await own()
    await stage.chat("router/ab")
    await asyncio.sleep(0.3)
    content = stage.router.config_file.read_bytes()
    _limit_files(stage, 0)
    for number in range(20):
        got = await stage.chat("router/ab", number % 2 == 0)
        assert (got.status, got.text) == (200, "Hello from upstream")
    got = await stage.router.ask("POST", "/config/category", {"name": "extra", "models": ["a/m1"]})
    assert got.status >= 500, got.raw
    assert got.error["message"]
    assert stage.router.config_file.read_bytes() == content
    config = (await stage.router.ask("GET", "/config")).json()
    assert "extra" not in config["model_mappings"]
    assert (await stage.chat("router/extra")).status == 404
    _limit_files(stage, -1)
    got = await stage.router.ask("POST", "/config/category", {"name": "extra", "models": ["a/m1"]})
    assert got.status == 200
    name = f"after-{uuid.uuid4()}"
    await stage.chat("router/ab", headers={"x-request-id": name})
    assert await stage.record(name)


async def test_a_disk_that_is_full_from_the_start(own: Own) -> None:
    """Disk full at the start: chat works, nothing dies."""
    stage = await own(limits={resource.RLIMIT_FSIZE: 0})
    for number in range(6):
        got = await stage.chat("router/ab", number % 2 == 0)
        assert (got.status, got.text) == (200, "Hello from upstream")
    assert (await stage.router.ask("GET", "/metrics")).status == 200


@pytest.mark.skipif("ROUTER_WORKERS" in os.environ, reason="workers need a folder, and say so at the start")
@pytest.mark.parametrize("folder", ["/proc/llm-router-state", "/dev/null/state"])
async def test_a_state_folder_that_cannot_be_written(own: Own, folder: str) -> None:
    """An unwritable state folder: chat goes on and the operator is told."""
    stage = await own(env={"ROUTER_STATE_DIR": folder})
    for number in range(6):
        got = await stage.chat("router/ab", number % 2 == 0)
        assert (got.status, got.text) == (200, "Hello from upstream")
    await until(lambda: folder in stage.router.log())
    log = stage.router.log()
    assert log.count("Traceback") == 0
    assert (await stage.router.ask("GET", "/metrics")).status == 200


@pytest.mark.parametrize("content", [b"this is no database " * 300, b"", b"SQLite format 3\x00" + b"\xff" * 4096])
async def test_a_corrupt_ledger_is_not_overwritten(own: Own, content: bytes) -> None:
    """A ledger that is none: chat goes on, the operator is told, and the bytes are still somewhere."""
    stage = await own()
    await stage.chat("router/ab")
    ledger = stage.router.state / "ledger.sqlite3"
    await until(ledger.exists)
    stage.router.signal(signal.SIGTERM)
    await _wait(stage.router)
    for extra in stage.router.state.glob("ledger.sqlite3-*"):
        extra.unlink()
    ledger.write_bytes(content)
    await asyncio.to_thread(stage.router.start)
    for number in range(6):
        assert (await stage.chat("router/ab", number % 2 == 0)).text == "Hello from upstream"
    if content:
        await until(lambda: "ledger.sqlite3" in stage.router.log())
        assert any(path.read_bytes() == content for path in stage.router.state.rglob("*") if path.is_file())
    assert (await stage.router.ask("GET", "/metrics")).status == 200
    assert (await stage.router.ask("GET", "/v1/usage")).status < 600


async def test_a_state_folder_that_is_taken_away(own: Own) -> None:
    """The state folder is moved away while running: chat goes on, the operator is told, new records are kept anew."""
    stage = await own()
    await stage.record(await stage.chat("router/ab"))
    stage.router.state.rename(stage.router.state.with_name("elsewhere"))
    got = await stage.chat("router/ab")
    assert (got.status, got.text) == (200, "Hello from upstream")
    await stage.record(got)
    assert stage.router.log().count("removed or moved away") == 1
    assert (stage.router.state / "ledger.sqlite3").exists()


async def test_a_ledger_that_is_locked_at_the_end(own: Own) -> None:
    """Somebody locks the ledger while the router ends: that is told, and the next start books what is missing."""
    stage = await own()
    await stage.record(await stage.chat("router/ab"))
    ledger = sqlite3.connect(stage.router.state / "ledger.sqlite3", isolation_level=None)
    ledger.execute("BEGIN IMMEDIATE")
    name = f"last-{uuid.uuid4()}"
    assert (await stage.chat("router/ab", headers={"x-request-id": name})).status == 200
    stage.router.signal(signal.SIGTERM)
    assert await _wait(stage.router, 40) == 0
    assert "booked by the next start as interrupted" in stage.router.log()
    ledger.execute("ROLLBACK")
    ledger.close()
    await asyncio.to_thread(stage.router.start)
    assert (await stage.record(name))["outcome"] == "interrupted"


async def test_files_are_private_whatever_the_umask(own: Own) -> None:
    """Every file that the router makes is 0600 in a folder of 0700, under umask 000 too."""
    stage = await own(umask=0)
    stage.a.script = reply(500, error("x"))
    for _ in range(4):
        await stage.chat("router/ab")
    await until(lambda: len(list(stage.router.state.rglob("*"))) >= 2)
    await asyncio.sleep(1.3)
    stage.router.signal(signal.SIGHUP)
    await asyncio.sleep(0.3)
    seen = [stage.router.state, *stage.router.state.rglob("*")]
    for path in [*seen, *stage.router.home.rglob("*")]:
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path} {mode:o}"


async def test_caches_elsewhere_are_private_too(launch: Launch, tmp_path: Path) -> None:
    """Without a state folder set the files go below the home folder, as private as anywhere."""
    router = RouterProcess(tmp_path / "r", chains({"a": 1, "b": 1}, {"ab": ["a/m1"]}), umask=0)
    del router.env["ROUTER_STATE_DIR"]
    await asyncio.to_thread(router.start)
    try:
        await router.chat("router/ab")
        await until(lambda: any(path.name == "ledger.sqlite3" for path in router.home.rglob("*")))
    finally:
        await asyncio.to_thread(router.stop)
    made = list(router.home.rglob("*"))
    assert any(path.name == "ledger.sqlite3" for path in made)
    for path in made:
        mode = path.stat().st_mode & 0o777
        if path.is_file():
            assert mode == 0o600, f"{path} {mode:o}"
            assert path.parent.stat().st_mode & 0o777 == 0o700, path.parent
