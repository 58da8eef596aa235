"""Answers that are let go, paused or closed before or after their end, over real sockets."""

from __future__ import annotations

import asyncio
import time

import pytest

from llm_router.proxy.upstream import ConnectFailed, UpstreamClient, UpstreamResponse
from tests.proxy.upstream.peers import LAST_CHUNK, STREAM_HEAD, WHOLE, Peer, Serve, Sink, at_once, chunk, echo, until


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("together", [True, False])
async def test_release_keeps_the_connection(serve: Serve, client: UpstreamClient, where: str, together: bool) -> None:
    """After [DONE] the connection is kept if the message ends with it or shortly after; the sink hears no more."""
    released = asyncio.Event()

    def release(response: UpstreamResponse) -> None:
        response.release()
        released.set()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(STREAM_HEAD + chunk(b"[DONE]") + (LAST_CHUNK if together else b""))
            if not together:
                await released.wait()
                await peer.send(chunk(b"rest") + LAST_CHUNK)

    server = await serve(script)
    for number in range(3):
        released.clear()
        response = await client.send(server.call(), connect_timeout=30)
        assert response.reused is (number > 0)
        sink = Sink((lambda data: release(response)) if where == "inside" else None)  # noqa: B023
        response.attach(sink)
        if where == "outside":
            await until(lambda: sink.data)  # noqa: B023
            release(response)
        await until(lambda: client.idle == 1)
        assert sink.data == b"[DONE]"
        assert len(sink.ends) == (where == "outside" and together)
    assert len(server.peers) == 1


@pytest.mark.parametrize("how", ["silent", "talkative"])
async def test_release_waits_neither_long_nor_for_much(serve: Serve, client: UpstreamClient, how: str) -> None:
    """An upstream that stays open after [DONE], or goes on and on, is closed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + chunk(b"[DONE]"))
        if how == "talkative":
            await peer.send(chunk(bytes(1 << 20)))
        await peer.gone()

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=30)
    sink = Sink(lambda data: response.release())
    start = time.monotonic()
    response.attach(sink)
    await until(lambda: sink.data)
    if how == "silent":
        await until(lambda: server.peers[0].closed_at)
        assert time.monotonic() - start > 0.8
    else:
        await at_once(lambda: server.peers[0].closed_at)
    assert (client.open, sink.ends) == (0, [])


async def test_close_is_seen_at_once(serve: Serve, client: UpstreamClient) -> None:
    """close in mid-stream closes the socket within 100 ms and silences the sink."""
    ticks = 0

    async def script(peer: Peer) -> None:
        nonlocal ticks
        await peer.request()
        await peer.send(STREAM_HEAD)
        watch = asyncio.ensure_future(peer.gone())
        while not watch.done():
            ticks += 1
            await peer.send(chunk(b"tick"))
            await asyncio.sleep(0.005)

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=30)
    sink = Sink()
    response.attach(sink)
    await until(lambda: len(sink.pieces) > 3)
    response.close()
    response.close()
    seen = len(sink.pieces)
    await at_once(lambda: server.peers[0].closed_at)
    assert (len(sink.pieces), sink.ends, client.open) == (seen, [], 0)


async def test_close_after_the_end_spares_the_connection(serve: Serve, client: UpstreamClient) -> None:
    """A complete answer no longer owns its connection: closing it late harms nobody."""

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await asyncio.sleep(0.02)
            await peer.send(WHOLE)

    server = await serve(script)
    first = await client.send(server.call(), connect_timeout=30)
    await first.read(9)
    second = asyncio.ensure_future(client.send(server.call(), connect_timeout=30))
    await asyncio.sleep(0.01)
    first.close()
    first.release()
    first.pause()
    assert await (await second).read(9) == b"hello"
    assert len(server.peers) == 1


async def test_pause_of_a_kept_body_does_not_pause_the_connection(serve: Serve, client: UpstreamClient) -> None:
    """A sink that has not taken all of a complete answer does not stop the next answer on the same connection."""
    server = await serve(echo)
    first = await client.send(server.call(b"one"), connect_timeout=30)
    await until(lambda: client.idle == 1)
    first.pause()
    second = await client.send(server.call(b"two"), connect_timeout=30)
    assert second.reused
    assert await second.read(9) == b"two"
    first.resume()
    assert await first.read(9) == b"one"


async def test_last_read_moves_with_body_bytes_only(serve: Serve, client: UpstreamClient) -> None:
    """The idle clock is set by body bytes, not by framing."""
    framing, rest = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + chunk(b"a"))
        await framing.wait()
        await peer.send(b"1;" + b"x" * 100)
        await rest.wait()
        await peer.send(b"\r\nb\r\n")
        await peer.gone()

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=30)
    sink = Sink()
    response.attach(sink)
    await until(lambda: sink.data == b"a")
    first = response.last_read
    framing.set()
    await asyncio.sleep(0.1)
    assert response.last_read == first
    rest.set()
    await until(lambda: sink.data == b"ab")
    assert response.last_read - first > 0.08
    response.close()


async def test_close_of_the_client_ends_everything(serve: Serve) -> None:
    """Closing the client aborts idle and busy connections, tells running sinks nothing, and refuses new calls."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(WHOLE if request.body else STREAM_HEAD)
        await peer.gone()

    server = await serve(script)
    client = UpstreamClient()
    busy = await client.send(server.call(b""), connect_timeout=30)
    await (await client.send(server.call(b"x"), connect_timeout=30)).read(9)
    assert repr(client) == "<UpstreamClient open open=2 idle=1>"
    sink = Sink()
    busy.attach(sink)
    await client.close()
    await until(lambda: all(peer.closed_at for peer in server.peers))
    assert repr(client) == "<UpstreamClient closed open=0 idle=0>"
    with pytest.raises(ConnectFailed):
        await client.send(server.call(), connect_timeout=30)
