"""One router with three scripted upstreams for most tests; a launcher for those that need a router of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Answer
from tests.support.router import RouterProcess, chains, keep_port
from tests.support.upstream import Upstream, healthy
from tests.support.waiting import PATIENCE

Launch = Callable[..., Awaitable[RouterProcess]]


@pytest.fixture(scope="session")
def ports() -> Iterator[dict[str, int]]:
    """The ports of the upstreams a, b and c, the same for the whole session."""
    kept = {name: keep_port() for name in "abc"}
    yield {name: sock.getsockname()[1] for name, sock in kept.items()}
    for sock in kept.values():
        sock.close()


@pytest.fixture(scope="session")
def shared_router(tmp_path_factory: pytest.TempPathFactory, ports: Mapping[str, int]) -> Iterator[RouterProcess]:
    """The router that most tests share; all clocks are one second."""
    with RouterProcess(tmp_path_factory.mktemp("router"), chains(ports)) as router:
        yield router


@dataclass(slots=True)
class Stage:
    """A router and its upstreams: `a` and `b` are the usual chain, all healthy until a test says otherwise."""

    router: RouterProcess
    a: Upstream
    b: Upstream
    c: Upstream

    async def chat(self, *args: Any, **more: Any) -> Answer:
        """One chat request to the router."""
        return await self.router.chat(*args, **more)

    async def reset(self) -> None:
        """Every circuit closed, every cooldown forgotten."""
        answer = await self.router.ask("POST", "/circuit-breaker/reset-all")
        assert answer.status == 200, answer.raw

    async def turns(self) -> None:
        """Lets the router answer three other questions: what it does at once is done by then, on any machine."""
        for _ in range(3):
            assert (await self.router.ask()).status == 200
        await self.router.agree()

    async def record(self, answer: Answer | str, patience: float = PATIENCE) -> dict[str, Any]:
        """The ledger record of a request, once it is settled."""
        name = answer if isinstance(answer, str) else answer.header("x-request-id")
        deadline = time.monotonic() + patience
        while True:
            found = await self.router.ask("GET", f"/v1/requests/{name}")
            if found.status == 200:
                record: dict[str, Any] = found.json()
                return record
            assert time.monotonic() < deadline, f"{name} was not settled: {found.status} {found.body!r}"
            await asyncio.sleep(0.05)

    async def metrics(self) -> dict[str, Any]:
        """`/metrics` as JSON."""
        answer = await self.router.ask("GET", "/metrics")
        assert answer.status == 200, answer.raw
        figures: dict[str, Any] = answer.json()
        return figures

    async def settled(self, total: int, patience: float = PATIENCE) -> dict[str, Any]:
        """`/metrics` once `requests.total` is at least `total`."""
        deadline = time.monotonic() + patience
        while True:
            figures = await self.metrics()
            if figures["requests"]["total"] >= total or time.monotonic() > deadline:
                return figures
            await asyncio.sleep(0.05)


async def start_upstreams(ports: Mapping[str, int]) -> dict[str, Upstream]:
    """Healthy upstreams on the given ports."""
    upstreams = {name: Upstream(port) for name, port in ports.items()}
    for upstream in upstreams.values():
        upstream.script = healthy
        await upstream.start()
    return upstreams


@pytest.fixture
async def stage(shared_router: RouterProcess, ports: Mapping[str, int]) -> AsyncIterator[Stage]:
    """The shared router with fresh upstreams and closed circuits."""
    upstreams = await start_upstreams(ports)
    stage = Stage(shared_router, **upstreams)
    await stage.reset()
    yield stage
    for upstream in upstreams.values():
        await upstream.stop()


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    """Starts a router of its own: `await launch(config, env=..., args=...)`; all are killed at the end."""
    started: list[RouterProcess] = []

    async def start(config: Any = None, wait: bool = True, folder: str = "router", **more: Any) -> RouterProcess:
        router = RouterProcess(tmp_path / folder, config, **more)
        started.append(router)
        await asyncio.to_thread(router.start, wait)
        return router

    yield start
    for router in started:
        await asyncio.to_thread(router.stop)


@pytest.fixture
async def own(launch: Launch) -> AsyncIterator[Callable[..., Awaitable[Stage]]]:
    """A stage of its own: `await own(env=..., models=..., **file_keys)`, with healthy upstreams on free ports."""
    upstreams: list[Upstream] = []

    async def start(
        env: Mapping[str, str] | None = None,
        models: Mapping[str, list[str]] | None = None,
        args: tuple[str, ...] = (),
        umask: int = -1,
        limits: Mapping[int, int] | None = None,
        **keys: Any,
    ) -> Stage:
        found = await start_upstreams(dict.fromkeys("abc", 0))
        upstreams.extend(found.values())
        config = chains({name: upstream.port for name, upstream in found.items()}, models, **keys)
        # Workers want a state folder of their own.
        folder = f"router-{len(upstreams)}"
        router = await launch(config, folder=folder, env=env, args=args, umask=umask, limits=limits)
        return Stage(router, **found)

    yield start
    for upstream in upstreams:
        await upstream.stop()
