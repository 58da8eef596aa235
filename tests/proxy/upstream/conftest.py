"""Everything here that opens sockets runs on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
import uvloop

from llm_router.proxy.upstream import UpstreamClient
from tests.proxy.upstream.peers import Peer, Server


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Starts servers that run a script for each connection; stops them afterwards."""
    servers: list[Server] = []

    async def start(script: Callable[[Peer], Awaitable[None]], **options: object) -> Server:
        servers.append(await Server(script).start(**options))
        return servers[-1]

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    """A client that knows no proxy."""
    one = UpstreamClient()
    yield one
    await one.close()
