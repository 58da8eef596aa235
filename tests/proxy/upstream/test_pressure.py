"""A sink that is slower than its upstream: reading stops, memory stays, nothing is lost."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import ssl
import tracemalloc
from collections.abc import Iterator

import pytest

from llm_router.proxy.upstream import UpstreamClient, UpstreamResponse
from llm_router.proxy.upstream.connection import READ_BYTES
from tests.proxy.upstream.peers import LAST_CHUNK, STREAM_HEAD, Peer, Serve, Server, Sink, chunk, until

BLOCK = bytes(range(256)) * 256  # 64 KiB
BLOCKS = 1000
# What may be under way in both kernels' buffers, asyncio's write buffer and, with TLS, OpenSSL's.
KERNEL_BYTES = 16 << 20
OUR_BYTES = 2 << 20


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def firehose(peer: Peer) -> None:
    """64 MB as fast as they are taken."""
    await peer.request()
    await peer.send(STREAM_HEAD)
    for _ in range(BLOCKS):
        await peer.send(chunk(BLOCK))
    await peer.send(LAST_CHUNK)


async def stalled(server: Server) -> int:
    """Waits until the server cannot send any more; gives how much it sent."""
    sent = -1
    async with asyncio.timeout(20):
        while sent != server.peers[0].sent:
            sent = server.peers[0].sent
            await asyncio.sleep(0.25)
    return sent


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize("attached", [True, False])
async def test_reading_stops_and_goes_on(
    serve: Serve, trusting: UpstreamClient, server_tls: ssl.SSLContext, kind: str, attached: bool, traced: None
) -> None:
    """Paused, or without a sink, the upstream is blocked, a bounded part is in memory; later every byte arrives."""
    server = await serve(firehose, tls=server_tls if kind == "tls" else None)
    response = await trusting.send(server.call(), connect_timeout=30)
    sink = Sink()
    if attached:
        response.attach(sink)
        response.pause()
    before = tracemalloc.get_traced_memory()[0]
    sent = await stalled(server)
    assert sent < KERNEL_BYTES
    assert len(sink.data) < 1 << 20
    if kind == "plain":  # with TLS in this process the server's own buffers would be counted too
        assert tracemalloc.get_traced_memory()[0] - before < OUR_BYTES
    if attached:
        response.resume()
    else:
        response.attach(sink)
    async with asyncio.timeout(30):
        await sink.over.wait()
    assert sink.ends == [None]
    assert hashlib.sha256(sink.data).digest() == hashlib.sha256(BLOCK * BLOCKS).digest()


@pytest.mark.slow
async def test_pausing_at_every_read(serve: Serve, client: UpstreamClient) -> None:
    """pause in each call and resume in the next turn of the loop: slow, but whole and in order."""
    server = await serve(firehose)
    response = await client.send(server.call(), connect_timeout=30)
    loop = asyncio.get_running_loop()

    def stop(data: bytes) -> None:
        response.pause()
        loop.call_soon(response.resume)

    sink = Sink(stop)
    response.attach(sink)
    async with asyncio.timeout(30):
        await sink.over.wait()
    assert sink.ends == [None]
    assert hashlib.sha256(sink.data).digest() == hashlib.sha256(BLOCK * BLOCKS).digest()


async def test_many_paused_streams_do_not_stop_others(serve: Serve, client: UpstreamClient) -> None:
    """Other answers come through while one is blocked."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        if request.body == b"big":
            await peer.send(STREAM_HEAD)
            for _ in range(BLOCKS):
                await peer.send(chunk(BLOCK))
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    server = await serve(script)
    blocked = [await client.send(server.call(b"big"), connect_timeout=30) for _ in range(4)]
    await stalled(server)
    for _ in range(10):
        response = await client.send(server.call(b"small"), connect_timeout=30)
        assert await response.read(9) == b"hello"
    for response in blocked:
        response.close()


@pytest.mark.slow
async def test_bomb_is_held_by_a_pause(serve: Serve, client: UpstreamClient, traced: None) -> None:
    """A gigabyte of zeros in a megabyte: what a paused sink has not asked for is not inflated."""
    bomb = gzip.compress(bytes(256 << 20)) * 4

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb))
        await peer.send(bomb)
        await peer.gone()

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=30)
    counter = _Counter(response, stop_at=2 << 20)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    response.attach(counter)
    await until(lambda: counter.seen >= 2 << 20)
    await asyncio.sleep(0.2)
    assert counter.seen < 3 << 20
    assert tracemalloc.get_traced_memory()[1] - before < 4 << 20
    response.close()
    await until(lambda: server.peers[0].closed_at)


class _Counter:
    """Counts, and pauses at a mark."""

    def __init__(self, response: UpstreamResponse, stop_at: int) -> None:
        self.seen = 0
        self._response = response
        self._stop_at = stop_at

    def body_received(self, data: bytes) -> None:
        self.seen += len(data)
        if self.seen >= self._stop_at:
            self._response.pause()

    def body_ended(self, error: Exception | None) -> None:
        raise AssertionError("the body is not over")


@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_flood_gives_others_their_turn(
    serve: Serve, trusting: UpstreamClient, server_tls: ssl.SSLContext, kind: str, coding: str
) -> None:
    """However much waits in the kernel, a turn of the loop takes no more of it than a read or two."""
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") if coding else STREAM_HEAD
    block = chunk(gzip.compress(BLOCK, 0) if coding else BLOCK)

    async def flood(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        for _ in range(BLOCKS // 4):
            await peer.send(block)
        await peer.send(LAST_CHUNK)

    server = await serve(flood, tls=server_tls if kind == "tls" else None)
    response = await trusting.send(server.call(), connect_timeout=30)
    turns = [0]
    sink = Sink(lambda data: turns.append(turns.pop() + len(data)))
    response.pause()
    response.attach(sink)
    await stalled(server)
    response.resume()
    while not sink.ends:
        turns.append(0)
        await asyncio.sleep(0)
    assert sink.ends == [None]
    assert len(sink.data) == BLOCKS // 4 * len(BLOCK)
    assert max(turns) <= 4 * READ_BYTES
