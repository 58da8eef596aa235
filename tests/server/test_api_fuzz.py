"""The running router against its own description: nothing that the description allows or forbids makes it fail."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.client import Connection, request_bytes
from tests.support.fixtures import Stage, launch, own
from tests.support.waiting import PATIENCE

__all__ = ["launch", "own"]

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,use_after_free"
)
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_schemathesis_finds_no_fault(own: Callable[..., Awaitable[Stage]], tmp_path: Path) -> None:
    """Hundreds of generated requests, sound and broken, bring no 5xx and no answer that is not described."""
    # made-up models then belong to a provider that answers: that there is nobody to ask is a 503 with good reason
    stage = await own(env={"DEFAULT_PROVIDER": "a", "DEFAULT_MODEL": "m1"})
    process = await asyncio.create_subprocess_exec(
        *(SCHEMATHESIS, "run", f"http://127.0.0.1:{stage.router.port}/openapi.json"),
        *("--checks", CHECKS, "--max-examples", "30", "--generation-deterministic", "--no-color"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "Traceback" not in stage.router.log()


@pytest.mark.slow
async def test_three_hundred_idle_and_dripping_connections(own: Callable[..., Awaitable[Stage]]) -> None:
    """Clients that say nothing, or drip their heads, hold nobody up and are gone after the header timeout."""
    stage = await own(env={"ROUTER_HEADER_TIMEOUT": "5"})
    silent = [await Connection.open(stage.router.port) for _ in range(150)]
    dripping = [await Connection.open(stage.router.port) for _ in range(150)]
    for connection in dripping:
        await connection.send(request_bytes()[:40])
    answers = [await stage.chat("router/ab") for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    assert max(answer.head_at - answer.asked_at for answer in answers if answer.head_at) < 4
    assert all(await asyncio.gather(*(connection.closed_within(PATIENCE) for connection in (*silent, *dripping))))
    for connection in (*silent, *dripping):
        connection.close()
