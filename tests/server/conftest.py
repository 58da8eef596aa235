"""The server rooms in this process, on real sockets: a small application for HTTP itself, and the router's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from llm_router.config.values import Access, Snapshot
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.dispatch import Router
from llm_router.server import app as server_app
from llm_router.server.bodies import expect_later, read_body
from llm_router.server.chat import DirectChat
from llm_router.server.runner import Runner, make_runner
from tests.support.client import Answer, Connection, ask
from tests.support.upstream import Upstream, healthy

_BOTH = ("uvloop", "asyncio")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """HTTP and its short way are tested on both event loops: their transports differ in when they say what."""
    loops = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    wanted = {
        "test_connections.py": _BOTH,
        "test_framing.py": _BOTH,
        "test_bodies.py": _BOTH,
        "test_clocks.py": _BOTH,
        "test_draining.py": _BOTH,
        "test_heads_come_again.py": _BOTH,
        "test_two_ways.py": _BOTH,
        "test_api_fuzz.py": ("asyncio",),
    }
    return {name: loops[name] for name in wanted.get(item.path.name, ("uvloop",))}


@dataclass(slots=True)
class Small:
    """A server with one route that echoes and some that misbehave. `snapshot` may be replaced while it runs."""

    snapshot: Snapshot
    runner: web.BaseRunner
    port: int = 0
    draining: bool = False
    running: int = 0
    cancelled: int = 0

    async def open(self) -> Connection:
        """A fresh connection."""
        return await Connection.open(self.port)

    async def ask(self, method: str = "GET", path: str = "/", body: Any = None, **more: Any) -> Answer:
        """One request on a connection of its own."""
        return await ask(self.port, method, path, body, **more)

    async def raw(self, data: bytes, patience: float = 3.0) -> tuple[bytes, str]:
        """Sends bytes as they are; all that comes back, and how it ended ("" where it is still open)."""
        connection = await self.open()
        try:
            await connection.send(data)
            return await connection.everything(patience), connection.at_end
        finally:
            connection.close()


StartSmall = Callable[..., Awaitable[Small]]
StartRouter = Callable[..., Awaitable["Served"]]


def small_app(small: Callable[[], Small]) -> web.Application:
    """Routes that are as good or as bad as a test needs them."""

    async def echo(request: web.Request) -> web.StreamResponse:
        body = await read_body(request, small().snapshot.max_body_bytes)
        return web.json_response({"method": request.method, "size": len(body), "head": body[:100].decode("latin-1")})

    async def deaf(request: web.Request) -> web.StreamResponse:
        return web.Response(text="not read")

    async def broken(request: web.Request) -> web.StreamResponse:
        raise RuntimeError("a secret detail")

    async def broken_stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise RuntimeError("a secret detail")

    async def slow(request: web.Request) -> web.StreamResponse:
        state = small()
        state.running += 1
        try:
            await asyncio.sleep(float(request.query.get("s", "30")))
        except asyncio.CancelledError:
            state.cancelled += 1
            raise
        finally:
            state.running -= 1
        return web.Response(text="done")

    app = web.Application()
    app.router.add_route("*", "/", echo, expect_handler=expect_later)
    app.router.add_post("/deaf", deaf)
    app.router.add_get("/broken", broken)
    app.router.add_get("/broken-stream", broken_stream)
    app.router.add_get("/slow", slow)
    return app


@pytest.fixture
async def start() -> AsyncIterator[StartSmall]:
    """Starts small servers; arguments are settings of their snapshot."""
    running: list[web.BaseRunner] = []

    async def start_small(**settings: Any) -> Small:
        snapshot = replace(Snapshot(providers={}, categories={}, header_timeout=10.0, drain_timeout=2.0), **settings)
        state: list[Small] = []
        runner = make_runner(
            small_app(lambda: state[0]),
            lambda: state[0].snapshot if state else snapshot,
            lambda: bool(state) and state[0].draining,
        )
        state.append(Small(snapshot, runner))
        await runner.setup()
        running.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        state[0].port = site.port
        return state[0]

    yield start_small
    for runner in running:
        await runner.cleanup()


@pytest.fixture
async def small(start: StartSmall) -> Small:
    """A small server with the default settings."""
    return await start()


@dataclass(slots=True)
class Served:
    """The real router on a real socket, in a folder of its own."""

    router: Router
    port: int
    folder: Path
    runner: Runner

    async def ask(self, method: str = "GET", path: str = "/", body: Any = None, **more: Any) -> Answer:
        """One request on a connection of its own."""
        return await ask(self.port, method, path, body, **more)

    def file(self) -> Any:
        """The configuration file as it stands."""
        return json.loads((self.folder / "router_config.json").read_text())


CONFIG: dict[str, Any] = {
    "_note": "kept",
    "providers": {"a": {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "A_KEY"}},
    "model_mappings": {
        "tools": ["a/m1"],
        "code": ["a/m1", "a/vendor/m2"],
        "reasoning": ["a/m1"],
        "conversation": ["a/m1"],
    },
    "custom_categories": {"creative": {"description": "stories", "models": ["a/vendor/m3"], "keywords": ["story"]}},
}


@pytest.fixture
async def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartRouter]:
    """Starts the router's own application; keys are those of `Access`."""
    running: list[tuple[web.BaseRunner, Router]] = []
    # building an encoding takes long, and nothing here counts
    monkeypatch.setattr("llm_router.accounting.ranks.Encodings.build", lambda *_: None)

    async def start_router(config: dict[str, Any] | None = None, **access: Any) -> Served:
        path = tmp_path / "router_config.json"
        path.write_text(json.dumps(CONFIG if config is None else config))
        environ = {
            "ROUTER_CONFIG_FILE": str(path),
            "ROUTER_STATE_DIR": str(tmp_path / "state"),
            "A_KEY": "sk-secret-a-key",
        }
        keys = Access(**access)
        environ |= {
            "ROUTER_LOG_LEVEL": "warning",
            "ROUTER_API_KEY": ",".join(keys.api_keys),
            "ROUTER_ADMIN_KEY": keys.admin_key or "",
        }
        config_file = ConfigFile(environ, {})
        router = server_app.make_router(config_file.load(), config_file, environ)
        app, direct = server_app.make_app(router), DirectChat(router)
        runner = make_runner(app, lambda: router.snapshot, lambda: router.draining, direct)
        await runner.setup()
        running.append((runner, router))
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return Served(router, site.port, tmp_path, runner)

    yield start_router
    for runner, router in running:
        await runner.cleanup()
        await router.upstream.close()
        await router.tasks.drain(2)
        router.bookkeeper.close(2)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A healthy provider."""
    running = await Upstream().start()
    running.script = healthy
    yield running
    await running.stop()
