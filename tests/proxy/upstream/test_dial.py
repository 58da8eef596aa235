"""Getting connected: several addresses, deadlines, and leaving in the middle of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from llm_router.proxy.upstream import CancelledUnsent, ConnectFailed, ConnectTimeout, UpstreamClient, UpstreamResponse
from llm_router.wire.providers.base import UpstreamCall
from tests.proxy.upstream.certs import Authority
from tests.proxy.upstream.peers import (
    STREAM_HEAD,
    WHOLE,
    ConnectProxy,
    Peer,
    Serve,
    Sink,
    at_once,
    silent_port,
    sockets_of_this_process,
    until,
    whole_forever,
)

Hosts = Callable[..., None]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Says which addresses every name has; a later address may have a port of its own."""

    def define(*addresses: tuple[str, int]) -> None:
        async def look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
            kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address, _ in addresses]
            return [(kind, socket.SOCK_STREAM, 6, "", address) for kind, address in zip(kinds, addresses, strict=True)]

        monkeypatch.setattr("llm_router.proxy.upstream.resolver._look_up", look_up)

    return define


async def whole(peer: Peer) -> None:
    await peer.request()
    await peer.send(WHOLE)


@pytest.mark.parametrize("order", [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
@pytest.mark.parametrize("alive", ["127.0.0.1", "::1"])
async def test_an_address_that_refuses_is_passed_over(
    serve: Serve, client: UpstreamClient, hosts: Hosts, order: tuple[str, str], alive: str
) -> None:
    """Where a name has an IPv4 and an IPv6 address and one refuses, the other is taken."""
    server = await serve(whole, host=alive)
    hosts(*((address, server.port) for address in order))
    response = await client.send(server.call(host="both.test"), connect_timeout=30)
    assert await response.read(9) == b"hello"


async def test_a_silent_address_is_overtaken(serve: Serve, client: UpstreamClient, hosts: Hosts) -> None:
    """Happy eyeballs: an address that does not answer costs a quarter of a second, not the connect timeout."""
    server = await serve(whole)
    before = sockets_of_this_process()
    with silent_port("::1") as port:
        hosts(("::1", port), ("127.0.0.1", server.port))
        start = time.monotonic()
        response = await client.send(server.call(host="both.test"), connect_timeout=30)
        assert time.monotonic() - start < 20
        assert await response.read(9) == b"hello"
    await client.close()
    await until(lambda: sockets_of_this_process() <= before)


async def test_an_address_that_was_overtaken_is_not_first_again(
    serve: Serve, client: UpstreamClient, hosts: Hosts
) -> None:
    """Where IPv6 works by half, the next connections do not wait for it: the address that answered is asked first."""
    server = await serve(whole)
    with silent_port("::1") as port:
        hosts(("::1", port), ("127.0.0.1", server.port))
        for _ in range(2):
            response = await client.send(server.call(host="both.test"), connect_timeout=30)
            assert await response.read(9) == b"hello"
            known = client._dialer._resolver.known("both.test", server.port, 0.0)
            assert [one[4][0] for one in known] == ["127.0.0.1", "::1"]


async def test_all_addresses_refuse(client: UpstreamClient, hosts: Hosts) -> None:
    """When nobody answers the error names no address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    hosts(("127.0.0.1", port), ("::1", port), ("127.0.0.2", port))
    with pytest.raises(ConnectFailed) as caught:
        await client.send(UpstreamCall("http://none.test/", {}, b""), connect_timeout=30)
    assert not any(word in str(caught.value) for word in ("127", "::1", str(port), "none.test"))


async def never(peer: Peer) -> None:
    await peer.gone()


async def test_timeout_in_tcp(client: UpstreamClient) -> None:
    """The connect timeout covers the TCP handshake; no socket is left."""
    with silent_port() as port:
        before = sockets_of_this_process()
        start = time.monotonic()
        with pytest.raises(ConnectTimeout):
            await client.send(UpstreamCall(f"http://127.0.0.1:{port}/", {}, b""), connect_timeout=0.2)
        assert time.monotonic() - start > 0.15
        await asyncio.sleep(0)
        assert sockets_of_this_process() <= before
    assert client.open == 0


async def test_timeout_in_dns(client: UpstreamClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connect timeout covers the name lookup."""

    async def look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr("llm_router.proxy.upstream.resolver._look_up", look_up)
    with pytest.raises(ConnectTimeout):
        await client.send(UpstreamCall("http://slow.test/", {}, b""), connect_timeout=0.1)
    assert client.open == 0


async def test_timeout_in_tls(serve: Serve, client: UpstreamClient) -> None:
    """The connect timeout covers the TLS handshake, and the server sees us leave."""
    server = await serve(never)
    await client._dialer._trust.context()  # loading it may take a busy machine as long as the timeout
    with pytest.raises(ConnectTimeout):
        await client.send(UpstreamCall(f"https://127.0.0.1:{server.port}/", {}, b""), connect_timeout=0.5)
    await at_once(lambda: server.peers and server.peers[0].closed_at)
    assert client.open == 0


async def test_timeout_does_not_cover_the_answer(serve: Serve, client: UpstreamClient) -> None:
    """Waiting for the head is somebody else's clock."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(1.1)
        await peer.send(WHOLE)

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=1)
    assert await response.read(9) == b"hello"


async def cancelled(call: asyncio.Future[Any]) -> None:
    """Cancels, and sees it done."""
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def heard_nothing(sending: Coroutine[Any, Any, UpstreamResponse]) -> bool:
    """Whether a call that was cancelled says that the upstream was not asked at all."""
    with pytest.raises(asyncio.CancelledError) as told:
        await sending
    return told.type is CancelledUnsent


async def test_what_a_cancelled_upstream_has_heard(serve: Serve, client: UpstreamClient) -> None:
    """Who leaves before there is a connection has asked nobody, which is told; after that the request was sent."""
    with silent_port() as port:
        url = f"http://127.0.0.1:{port}/"
        call = asyncio.ensure_future(heard_nothing(client.send(UpstreamCall(url, {}, b""), connect_timeout=30)))
        await asyncio.sleep(0)
        call.cancel()
        assert await call
    for scheme, unsent in (("http", False), ("https", True)):
        server = await serve(never)
        url = f"{scheme}://127.0.0.1:{server.port}/"
        call = asyncio.ensure_future(heard_nothing(client.send(UpstreamCall(url, {}, b""), connect_timeout=30)))
        await until(lambda: server.peers)  # noqa: B023
        await asyncio.sleep(0.05)
        call.cancel()
        assert await call is unsent


async def test_cancel_in_tcp(client: UpstreamClient) -> None:
    """Leaving while connecting leaves no socket behind."""
    with silent_port() as port:
        before = sockets_of_this_process()
        url = f"http://127.0.0.1:{port}/"
        call = asyncio.ensure_future(client.send(UpstreamCall(url, {}, b""), connect_timeout=30))
        await asyncio.sleep(0.05)
        assert sockets_of_this_process() > before
        await cancelled(call)
        await asyncio.sleep(0)
        assert sockets_of_this_process() <= before
    assert client.open == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cancel_while_waiting(serve: Serve, client: UpstreamClient, scheme: str) -> None:
    """Leaving in the TLS handshake or while waiting for the head closes the connection within 100 ms."""
    server = await serve(never)
    url = f"{scheme}://127.0.0.1:{server.port}/"
    call = asyncio.ensure_future(client.send(UpstreamCall(url, {}, b""), connect_timeout=30))
    await until(lambda: server.peers)
    await asyncio.sleep(0.05)
    await cancelled(call)
    await at_once(lambda: server.peers[0].closed_at)
    assert client.open == 0


async def test_cancel_on_a_kept_connection(serve: Serve, client: UpstreamClient) -> None:
    """Leaving while waiting on a reused connection closes it, and nothing is sent again."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await peer.request()
        await peer.gone()

    server = await serve(script)
    await (await client.send(server.call(), connect_timeout=30)).read(9)
    call = asyncio.ensure_future(client.send(server.call(), connect_timeout=30))
    await until(lambda: len(server.requests) == 2)
    await cancelled(call)
    await at_once(lambda: server.peers[0].closed_at)
    assert (len(server.requests), len(server.peers)) == (2, 1)


async def test_cancel_in_the_body(serve: Serve, client: UpstreamClient) -> None:
    """Leaving while a body is read closes the connection within 100 ms."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.gone()

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=30)
    call = asyncio.ensure_future(response.read(100))
    await asyncio.sleep(0.02)
    await cancelled(call)
    await at_once(lambda: server.peers[0].closed_at)


async def test_cancel_just_as_the_head_arrives(serve: Serve, client: UpstreamClient) -> None:
    """A call that is given up in the moment its answer comes in closes that connection and no other."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.gone()

    server = await serve(script)
    for _ in range(20):
        call = asyncio.ensure_future(client.send(server.call(), connect_timeout=30))
        connection = None
        while connection is None or connection._response is None:
            await asyncio.sleep(0)
            connection = next(iter(client._pool._all), None)
            if call.done():
                break
        if not call.done():
            await cancelled(call)
        else:
            call.result().close()
        assert client.open == 0
    await until(lambda: all(peer.closed_at for peer in server.peers))


async def test_a_late_cancel_spares_who_has_the_connection_now(serve: Serve, client: UpstreamClient) -> None:
    """A cancelled call whose whole answer is already in must not close a connection that serves another call."""

    gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await gate.wait()
            await peer.send(WHOLE)

    server = await serve(script)
    sink = Sink()
    first = asyncio.ensure_future(client.send(server.call(b"1"), connect_timeout=30))
    await until(lambda: server.requests)

    class Taker:
        """Takes the connection in the very moment it is free, before the first call's task runs again."""

        def __init__(self) -> None:
            self.call: asyncio.Future[Any] | None = None

        def connection_idle(self, connection: Any) -> None:
            client._pool.connection_idle(connection)
            first.cancel()
            taken = client._pool.take(connection.origin, 0.0)
            assert taken is connection
            self.call = connection.request(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: ", b"")

        def connection_gone(self, connection: Any) -> None:
            client._pool.connection_gone(connection)

    taker = Taker()
    (connection,) = client._pool._all
    connection._holder = taker
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    connection._holder = client._pool
    assert taker.call is not None
    response = await taker.call
    response.attach(sink)
    assert await sink.end() is None
    assert sink.data == b"hello"


@pytest.mark.parametrize("kind", ["http", "https", "tunnel", "raced"])
async def test_cancel_at_every_step(
    serve: Serve, authority: Authority, server_tls: ssl.SSLContext, hosts: Hosts, kind: str
) -> None:
    """Wherever in its course a call is given up, no socket stays open and nothing complains."""
    scheme = "http" if kind in ("http", "raced") else "https"
    server = await serve(whole_forever, tls=server_tls if scheme == "https" else None)
    proxy = await serve(ConnectProxy(server).script)
    hosts(*([("127.0.0.1", server.port)] * (2 if kind == "raced" else 1)))
    environ = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"} if kind == "tunnel" else {}
    problems: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    tls = ssl.create_default_context(cafile=authority.certificate)
    tls.check_hostname = False
    before = sockets_of_this_process()
    finished = 0
    for steps in range(400):
        client = UpstreamClient(ssl_context=tls, environ=environ)
        url = f"{scheme}://upstream.test:{server.port}/"
        call = asyncio.ensure_future(client.send(UpstreamCall(url, {}, b""), connect_timeout=30))
        for _ in range(steps):
            await asyncio.sleep(0)
        if call.done():
            finished += 1
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await call).close()
        assert client.open == client.idle  # a whole answer may have come already
        await client.close()
        if finished == 3:
            break
    assert finished == 3
    await until(lambda: sockets_of_this_process() <= before)
    assert problems == []


async def test_closing_the_client_while_connecting(client: UpstreamClient) -> None:
    """A connection that is only just being made does not survive the client."""
    with silent_port() as port:
        call = asyncio.ensure_future(
            client.send(UpstreamCall(f"http://127.0.0.1:{port}/", {}, b""), connect_timeout=0.3)
        )
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises((ConnectFailed, ConnectTimeout)):
            await call
    assert client.open == 0
