"""How answers end, well and badly, over real sockets."""

from __future__ import annotations

import gzip

import pytest

from llm_router.proxy.upstream import ConnectionLost, ProtocolError, UpstreamClient
from tests.proxy.upstream.peers import LAST_CHUNK, STREAM_HEAD, Peer, Serve, Sink, a_few_turns, chunk


async def stream_of(serve: Serve, client: UpstreamClient, *writes: bytes, end: str = "close") -> tuple[Sink, object]:
    """What a sink sees of an answer that is written in these pieces."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for data in writes:
            await peer.send(data)
            await a_few_turns()
        if end == "gone":
            await peer.gone()
        else:
            getattr(peer, end)()

    server = await serve(script)
    sink = Sink()
    (await client.send(server.call(), connect_timeout=30)).attach(sink)
    return sink, await sink.end()


async def test_chunks_come_as_they_are_sent(serve: Serve, client: UpstreamClient) -> None:
    """One call of the sink per read, chunk frames removed."""
    sink, error = await stream_of(
        serve, client, STREAM_HEAD, chunk(b"one"), chunk(b"two") + chunk(b"three"), LAST_CHUNK, end="gone"
    )
    assert error is None
    assert sink.pieces == [b"one", b"twothree"]
    assert client.idle == 1


async def test_close_delimited_body(serve: Serve, client: UpstreamClient) -> None:
    """HTTP/1.0 and friends end with the connection."""
    sink, error = await stream_of(serve, client, b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo")
    assert (error, sink.data) == (None, b"hello")


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    "head", [STREAM_HEAD + b"5\r\n", STREAM_HEAD + b"100\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"]
)
async def test_cut_bodies_are_lost(serve: Serve, client: UpstreamClient, head: bytes, end: str) -> None:
    """A body that ends before its framing says so is never taken for whole; what came is delivered."""
    sink, error = await stream_of(serve, client, head, b"hello", end=end)
    assert isinstance(error, ConnectionLost)
    assert (error.started, error.body) == (True, True)
    assert sink.data == b"hello"
    assert client.open == 0


async def test_reset_of_a_close_delimited_body_is_a_cut(serve: Serve, client: UpstreamClient) -> None:
    """Only a FIN ends such a body."""
    _, error = await stream_of(serve, client, b"HTTP/1.1 200 OK\r\n\r\nhello", end="reset")
    assert isinstance(error, ConnectionLost)


async def test_broken_chunk_size(serve: Serve, client: UpstreamClient) -> None:
    """Broken framing in the body is a protocol error, after the body before it."""
    sink, error = await stream_of(serve, client, STREAM_HEAD + chunk(b"hello"), b"zz\r\n", end="gone")
    assert isinstance(error, ProtocolError)
    assert sink.data == b"hello"
    assert client.open == 0


async def test_corrupt_gzip(serve: Serve, client: UpstreamClient) -> None:
    """Broken compression is a protocol error, and the connection is closed."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    sink, error = await stream_of(
        serve, client, head + chunk(gzip.compress(b"hello" * 99)[:20]), chunk(bytes(99)), end="gone"
    )
    assert isinstance(error, ProtocolError)
    assert sink.data != b"hello" * 99
    assert client.open == 0


@pytest.mark.parametrize(
    ("answer", "end", "expected"),
    [
        (b"", "close", ConnectionLost),
        (b"", "reset", ConnectionLost),
        (b"HTTP/1.1 200 OK\r\nX: ", "close", ConnectionLost),
        (b"HTTP/1.1 200 OK\r\nX: ", "reset", ConnectionLost),
        (b"HTTP/1.1 103 Hints\r\n\r\n", "close", ConnectionLost),
        (b"hello\r\n\r\n", "gone", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000, "gone", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", "gone", ProtocolError),
    ],
)
async def test_no_usable_head(
    serve: Serve, client: UpstreamClient, answer: bytes, end: str, expected: type[Exception]
) -> None:
    """Every way not to answer has its type, and leaves no connection behind."""
    with pytest.raises(expected) as caught:
        await stream_of(serve, client, answer, end=end)
    assert caught.type is expected
    assert client.open == 0


async def test_head_of_60_kb(serve: Serve, client: UpstreamClient) -> None:
    """A large head arrives in many reads."""
    sink, error = await stream_of(serve, client, b"HTTP/1.1 200 OK\r\nX: " + b"a" * 60_000, b"\r\n\r\nhello")
    assert (error, sink.data) == (None, b"hello")
