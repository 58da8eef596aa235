"""The client over real sockets: calls that arrive, calls that cannot."""

from __future__ import annotations

import asyncio
import socket

import pytest

from llm_router.proxy.outbox import Outbox
from llm_router.proxy.upstream import ConnectFailed, InvalidCall, ResponseTooLarge, UpstreamClient
from llm_router.proxy.upstream.connection import WATCH_AFTER_SECONDS
from llm_router.wire.providers.base import UpstreamCall
from tests.proxy.upstream.peers import STREAM_HEAD, WHOLE, Peer, Serve, chunk, echo
from tests.support.waiting import until


async def test_there_and_back(serve: Serve, client: UpstreamClient) -> None:
    """A call arrives as it was meant, its answer too."""
    server = await serve(echo)
    response = await client.send(server.call(b'{"a":1}', {"Authorization": "Bearer k"}), connect_timeout=30)
    assert (response.status, response.headers["content-length"], response.reused) == (200, "7", False)
    assert await response.read(100) == b'{"a":1}'
    (request,) = server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["authorization"] == "bearer k"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


async def test_ipv6(serve: Serve, client: UpstreamClient) -> None:
    """An upstream may have an IPv6 address."""
    server = await serve(echo, host="::1")
    response = await client.send(server.call(b"six"), connect_timeout=30)
    assert await response.read(100) == b"six"
    assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


async def test_large_bodies_both_ways(serve: Serve, client: UpstreamClient) -> None:
    """32 MB go out and come back."""
    server = await serve(echo)
    body = bytes(range(256)) * (1 << 17)
    response = await client.send(server.call(body), connect_timeout=30)
    assert await response.read(len(body)) == body


async def test_socket_options(serve: Serve, client: UpstreamClient) -> None:
    """Small writes leave at once, and a peer that vanished is noticed some day."""
    server = await serve(echo)
    await (await client.send(server.call(), connect_timeout=30)).read(100)
    connection = client._pool.take(client._routes.find(server.url()).endpoint.origin, 0.0)
    assert connection is not None
    assert connection._transport is not None
    raw = connection._transport.get_extra_info("socket")
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    client.sweep(asyncio.get_running_loop().time() + WATCH_AFTER_SECONDS)
    assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_how_many_are_awaited(serve: Serve, client: UpstreamClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests leave by the outbox, which knows how many wait for an answer: who got one, left or failed does not."""
    answer, put = asyncio.Event(), client.outbox.put
    sent: list[bytes] = []

    def note(outbox: Outbox, transport: asyncio.WriteTransport, data: bytes) -> None:
        sent.append(data)
        put(transport, data)

    async def script(peer: Peer) -> None:
        await peer.request()
        await answer.wait()
        await peer.send(WHOLE)

    monkeypatch.setattr(Outbox, "put", note)
    server = await serve(script)
    calls = [asyncio.ensure_future(client.send(server.call(), connect_timeout=30)) for _ in range(3)]
    await until(lambda: len(server.requests) == 3)
    assert (client.outbox.awaited, len(sent)) == (3, 3)
    calls[0].cancel()
    await asyncio.wait({calls[0]})
    assert client.outbox.awaited == 2
    answer.set()
    for call in calls[1:]:
        await (await call).read(9)
    with pytest.raises(ConnectFailed):
        await client.send(UpstreamCall("http://127.0.0.1:9/", {}, b""), connect_timeout=30)
    assert client.outbox.awaited == 0


async def test_redirects_are_answers(serve: Serve, client: UpstreamClient) -> None:
    """Nothing is followed: a prompt and a key go nowhere else."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
        await peer.request()
        await peer.send(WHOLE)

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=30)
    assert (response.status, await response.read(9)) == (307, b"")
    await (await client.send(server.call(), connect_timeout=30)).read(9)
    assert len(server.requests) == 2
    assert "cookie" not in server.requests[1].headers


async def test_refused_connection(client: UpstreamClient) -> None:
    """A port where nobody listens is a failed connection, told without its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectFailed) as caught:
        await client.send(UpstreamCall(f"http://127.0.0.1:{port}/", {}, b""), connect_timeout=30)
    assert "refused" in str(caught.value)
    assert "127" not in str(caught.value)
    assert str(port) not in str(caught.value)
    assert client.open == 0


async def test_unknown_name(client: UpstreamClient) -> None:
    """A name that does not exist is a failed connection."""
    with pytest.raises(ConnectFailed) as caught:
        await client.send(UpstreamCall("http://nowhere.invalid/", {}, b""), connect_timeout=30)
    assert "nowhere" not in str(caught.value)


async def test_invalid_calls_connect_to_nobody(serve: Serve, client: UpstreamClient) -> None:
    """A call that cannot be put on the wire is refused before there is a connection."""
    server = await serve(echo)
    with pytest.raises(InvalidCall):
        await client.send(server.call(headers={"X": "a\r\nb"}), connect_timeout=30)
    with pytest.raises(InvalidCall):
        await client.send(UpstreamCall(server.url("/a b"), {}, b""), connect_timeout=30)
    assert server.peers == []


async def test_read_too_large(serve: Serve, client: UpstreamClient) -> None:
    """A one-shot answer beyond the limit is refused and its connection closed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + chunk(bytes(1000)))
        await peer.gone()

    server = await serve(script)
    with pytest.raises(ResponseTooLarge):
        await (await client.send(server.call(), connect_timeout=30)).read(999)
    assert client.open == 0
