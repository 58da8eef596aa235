"""Everything here that opens sockets runs on both event loops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
import uvloop

from llm_router.proxy.upstream import UpstreamClient
from tests.proxy.upstream.certs import Authority, make_authority
from tests.proxy.upstream.peers import Peer, Serve, Server


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
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


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def server_tls(authority: Authority) -> ssl.SSLContext:
    """For servers on this machine."""
    return authority.server_context("good", "DNS:localhost", "IP:127.0.0.1", "IP:::1")


@pytest.fixture
async def trusting(authority: Authority) -> AsyncIterator[UpstreamClient]:
    """A client that trusts the test authority through its variable."""
    one = UpstreamClient(environ={"SSL_CERT_FILE": str(authority.certificate)})
    yield one
    await one.close()
