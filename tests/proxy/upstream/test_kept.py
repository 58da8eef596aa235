"""Connections that are kept for the next call, over real sockets."""

from __future__ import annotations

import asyncio
import gc

import pytest

from llm_router.proxy.upstream import ConnectionLost, UpstreamClient, connection
from tests.proxy.upstream.peers import LAST_CHUNK, STREAM_HEAD, WHOLE, Peer, Serve, chunk, collect, echo, until
from tests.support.vanishing import linux_alone, vanish


async def test_connection_is_reused(serve: Serve, client: UpstreamClient) -> None:
    """After a whole answer the next call takes the same connection."""
    server = await serve(echo)
    for number in range(5):
        response = await client.send(server.call(b"x"), connect_timeout=30)
        assert await response.read(10) == b"x"
        assert response.reused is (number > 0)
        assert client.idle == 1
    assert len(server.peers) == 1


async def test_no_limit_on_connections(serve: Serve, client: UpstreamClient) -> None:
    """Three hundred streams at once do not queue behind one another."""
    gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await gate.wait()
        await peer.send(STREAM_HEAD + chunk(request.body) + LAST_CHUNK)
        await peer.gone()

    server = await serve(script)
    calls = [asyncio.ensure_future(client.send(server.call(b"%d" % n), connect_timeout=30)) for n in range(300)]
    await until(lambda: len(server.requests) == 300)
    assert (client.open, client.idle) == (300, 0)
    gate.set()
    assert [await collect(await call) for call in calls] == [b"%d" % n for n in range(300)]
    assert client.idle == 300


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        WHOLE + WHOLE,
        WHOLE + b"x",
        STREAM_HEAD + chunk(b"hello") + LAST_CHUNK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=0\r\n\r\nhello",
    ],
)
async def test_connection_is_not_reused(serve: Serve, client: UpstreamClient, answer: bytes) -> None:
    """Where the server says so, or sends more than its answer, the next call gets a connection of its own."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    server = await serve(script)
    for number in range(3):
        response = await client.send(server.call(), connect_timeout=30)
        assert await response.read(100) == b"hello"
        assert not response.reused
        assert len(server.peers) == number + 1


async def test_bytes_on_an_idle_connection_close_it(serve: Serve, client: UpstreamClient) -> None:
    """An answer that nobody asked for is never given to the next call."""
    idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await idle.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await peer.gone()

    server = await serve(script)
    assert await (await client.send(server.call(), connect_timeout=30)).read(9) == b"hello"
    assert client.idle == 1
    idle.set()
    await until(lambda: client.idle == 0)
    assert client.open == 0
    await until(lambda: server.peers[0].closed_at)
    assert await (await client.send(server.call(), connect_timeout=30)).read(9) == b"hello"
    assert len(server.peers) == 2


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_server_closes_an_idle_connection(serve: Serve, client: UpstreamClient, how: str) -> None:
    """An idle connection that the server closes leaves the pool at once."""
    idle = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await idle.wait()
        getattr(peer, how)()

    server = await serve(script)
    await (await client.send(server.call(), connect_timeout=30)).read(9)
    assert client.idle == 1
    idle.set()
    await until(lambda: client.idle == 0)
    assert client.open == 0


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_stale_connection_is_replaced_once(serve: Serve, client: UpstreamClient, how: str) -> None:
    """A reused connection that dies on our request is replaced by a fresh one; the caller does not notice."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await peer.request()
        if peer is server.peers[0]:
            getattr(peer, how)()
        else:
            await peer.send(WHOLE)

    server = await serve(script)
    await (await client.send(server.call(b"first"), connect_timeout=30)).read(9)
    response = await client.send(server.call(b"second"), connect_timeout=30)
    assert (response.reused, await response.read(9)) == (False, b"hello")
    assert [request.body for request in server.requests] == [b"first", b"second", b"second"]


async def test_fresh_replacement_is_not_replaced_again(serve: Serve, client: UpstreamClient) -> None:
    """One replacement, not two."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer is server.peers[0]:
            await peer.send(WHOLE)
            await peer.request()

    server = await serve(script)
    await (await client.send(server.call(), connect_timeout=30)).read(9)
    with pytest.raises(ConnectionLost) as caught:
        await client.send(server.call(), connect_timeout=30)
    assert not caught.value.started
    assert len(server.requests) == 3


async def test_fresh_connection_is_never_replaced(serve: Serve, client: UpstreamClient) -> None:
    """A call on a fresh connection is sent once, whatever happens."""

    async def script(peer: Peer) -> None:
        await peer.request()

    server = await serve(script)
    with pytest.raises(ConnectionLost):
        await client.send(server.call(), connect_timeout=30)
    assert len(server.requests) == 1


async def test_stale_after_the_first_byte_is_not_replaced(serve: Serve, client: UpstreamClient) -> None:
    """Once a byte of an answer was seen the request may have been worked on: no second try."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await peer.request()
        await peer.send(b"HTTP/1.1 20")

    server = await serve(script)
    await (await client.send(server.call(), connect_timeout=30)).read(9)
    with pytest.raises(ConnectionLost) as caught:
        await client.send(server.call(), connect_timeout=30)
    assert caught.value.started
    assert len(server.requests) == 2


async def _sweep(client: UpstreamClient) -> None:
    while True:
        await asyncio.sleep(0.01)
        client.sweep(asyncio.get_running_loop().time())


@linux_alone
async def test_connections_that_were_forgotten_on_the_way_are_replaced(
    serve: Serve, client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where packets vanish, as behind a NAT that forgot, a fresh connection is made, and no other kept one trusted."""
    monkeypatch.setattr(connection, "STALE_SECONDS", 0.3)
    together = asyncio.Barrier(3)

    async def script(peer: Peer) -> None:
        await peer.request()
        if len(server.peers) <= 3:
            await together.wait()
            await peer.send(WHOLE)
            vanish(peer.writer.get_extra_info("socket"))
            await asyncio.sleep(30)
        await peer.send(WHOLE)

    server = await serve(script)
    first = await asyncio.gather(*(client.send(server.call(), connect_timeout=30) for _ in range(3)))
    assert [await one.read(9) for one in first] == [b"hello"] * 3
    assert client.idle == 3
    sweeping = asyncio.ensure_future(_sweep(client))
    response = await client.send(server.call(b"again"), connect_timeout=30)
    assert (response.reused, await response.read(9)) == (False, b"hello")
    assert [request.body for request in server.requests] == [b"{}"] * 3 + [b"again"]
    assert client.open <= 1
    sweeping.cancel()


@linux_alone
async def test_a_request_that_nobody_acknowledges_is_given_up(
    serve: Serve, client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a fresh connection too, without waiting for the first-byte timeout, and without another try."""
    monkeypatch.setattr(connection, "UNHEARD_SECONDS", 0.3)

    async def script(peer: Peer) -> None:
        await asyncio.sleep(30)

    server = await serve(script)
    sending = asyncio.ensure_future(client.send(server.call(bytes(64 << 20)), connect_timeout=30))
    await until(lambda: server.peers)
    await asyncio.sleep(0)
    vanish(server.peers[0].writer.get_extra_info("socket"))
    sweeping = asyncio.ensure_future(_sweep(client))
    with pytest.raises(ConnectionLost) as caught:
        await sending
    assert not caught.value.started
    assert len(server.peers) == 1
    sweeping.cancel()


async def test_who_thinks_for_long_is_not_given_up(
    serve: Serve, client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was acknowledged may wait for its answer for as long as its clocks allow."""
    monkeypatch.setattr(connection, "STALE_SECONDS", 0.05)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.7)
            await peer.send(WHOLE)

    server = await serve(script)
    sweeping = asyncio.ensure_future(_sweep(client))
    for reused in (False, True):
        response = await client.send(server.call(), connect_timeout=30)
        assert (response.reused, await response.read(9)) == (reused, b"hello")
    assert len(server.requests) == 2
    sweeping.cancel()


async def test_after_a_sleep_no_kept_connection_is_trusted(serve: Serve, client: UpstreamClient) -> None:
    """What was idle when the machine fell asleep is let go, whatever its clock says; what is under way goes on."""
    answer = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer is server.peers[0]:
            await answer.wait()
        await peer.send(WHOLE)
        await peer.gone()

    server = await serve(script)
    busy = asyncio.ensure_future(client.send(server.call(), connect_timeout=30))
    await until(lambda: server.requests)
    await (await client.send(server.call(), connect_timeout=30)).read(9)
    assert (client.idle, client.open) == (1, 2)
    client.distrust()
    assert (client.idle, client.open) == (0, 1)
    answer.set()
    assert await (await busy).read(9) == b"hello"


async def test_many_stale_connections(serve: Serve, client: UpstreamClient) -> None:
    """After a server's restart every call goes through, however many connections were kept."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.02)
        await peer.send(WHOLE)
        await peer.request()
        if peer not in server.peers[:20]:
            await peer.send(WHOLE)

    server = await serve(script)
    for _ in range(2):
        calls = [client.send(server.call(), connect_timeout=30) for _ in range(20)]
        assert [await one.read(9) for one in await asyncio.gather(*calls)] == [b"hello"] * 20


async def test_sweep_evicts(serve: Serve, client: UpstreamClient) -> None:
    """Idle connections go when the sweep comes, and the server sees it."""
    server = await serve(echo)
    await (await client.send(server.call(), connect_timeout=30)).read(9)
    now = asyncio.get_running_loop().time()
    client.sweep(now + 1)
    assert client.idle == 1
    client.sweep(now + 3600)
    assert (client.idle, client.open) == (0, 0)


async def test_answer_before_the_request_is_sent_whole(serve: Serve, client: UpstreamClient) -> None:
    """A server may refuse a large body early; that connection, in the middle of a body, is not reused."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.sleep(5)

    server = await serve(script)
    response = await client.send(server.call(bytes(64 << 20)), connect_timeout=30)
    assert (response.status, await response.read(9)) == (413, b"no")
    assert (client.idle, client.open) == (0, 0)


async def test_answers_leave_no_garbage(serve: Serve, client: UpstreamClient) -> None:
    """Requests are freed by reference counts: nothing piles up for the collector, whose pauses streams would feel."""
    server = await serve(echo)
    call = server.call(b"x")

    async def exchange(how: str) -> None:
        response = await client.send(call, connect_timeout=30)
        if how == "read":
            await response.read(10)
        elif how == "sink":
            await collect(response)
        else:
            getattr(response, how)()

    kinds = ("read", "sink", "release", "close")
    for how in kinds:
        await exchange(how)
    gc.collect()
    gc.disable()
    try:
        for how in kinds * 10:
            await exchange(how)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [one for one in gc.garbage if type(one).__module__.startswith(("llm_router", "httptools"))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert ours == []
