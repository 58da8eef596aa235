"""The stages of the fault suite serve these stories too; some are told of a router with two workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.faults.conftest import Stage, launch, own, ports, shared_router, stage
from tests.support.crew import PATIENT, Crew
from tests.support.waiting import until

__all__ = ["crew", "launch", "own", "ports", "shared_router", "stage"]


@pytest.fixture
async def crew(own: Callable[..., Awaitable[Stage]]) -> AsyncIterator[Callable[..., Awaitable[Crew]]]:
    """`await crew(env=..., models=...)`: a router with two workers, both ready."""
    made: list[Crew] = []

    async def start(env: Mapping[str, str] | None = None, **more: Any) -> Crew:
        stage = await own(args=("--workers", "2"), env={**PATIENT, **(env or {})}, **more)
        await until(lambda: "with 2 workers" in stage.router.log())
        made.append(Crew(stage))
        return made[-1]

    yield start
    for one in made:
        one.forget()
