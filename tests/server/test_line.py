"""A worker's line to its supervisor."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from llm_router.server.supervisor import HURRY
from llm_router.server.worker import Line
from tests.support.waiting import until


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("heard", [True, False])
def test_a_killed_supervisor_is_noticed(make_loop: object, heard: bool) -> None:
    """Whether or not it had heard all that was said before it died; what it says while it lives means haste."""

    async def story() -> None:
        ours, theirs = socket.socketpair()
        told: list[str] = []
        line = Line(theirs)
        line.start_watchdog(lambda: told.append("orphaned"), lambda: told.append("hurried"))
        if heard:
            ours.recv(64)
        ours.send(HURRY)
        await until(lambda: told == ["hurried"])
        ours.close()
        await until(lambda: told == ["hurried", "orphaned"])
        line.close()
        theirs.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:  # type: ignore[arg-type]
        runner.run(story())
