"""What the chapters about circuits share: opening one, and seeing which are open."""

from __future__ import annotations

from typing import Any

from tests.support.chunks import error
from tests.support.fixtures import Stage
from tests.support.upstream import reply

BROKEN = reply(500, error("broken"))


async def served_by(stage: Stage, model: str = "router/ab", **more: Any) -> str | None:
    """The model that answers one more request."""
    return (await stage.chat(model, **more)).header("x-router-model")


async def open_circuit(stage: Stage, model: str = "router/ab", times: int = 3) -> None:
    """Lets upstream `a` fail `times` times in a row."""
    good, stage.a.script = stage.a.script, BROKEN
    for _ in range(times):
        await stage.chat(model)
    stage.a.script = good


async def open_circuits(stage: Stage) -> list[str]:
    """The models whose circuits are open."""
    found: list[str] = (await stage.metrics())["circuit_breaker"]["open_circuits"]
    return found
