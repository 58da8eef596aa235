"""The client over real sockets: answers, kept connections, ends of all kinds."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import time

import pytest

from llm_router.proxy.upstream import (
    ConnectFailed,
    ConnectionLost,
    InvalidCall,
    ProtocolError,
    ResponseTooLarge,
    UpstreamClient,
)
from llm_router.wire.providers.base import UpstreamCall
from tests.proxy.upstream.peers import LAST_CHUNK, STREAM_HEAD, WHOLE, Peer, Serve, Sink, chunk, collect, until


async def echo(peer: Peer) -> None:
    """Answers every request with its body."""
    while True:
        request = await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(request.body), request.body))


async def test_there_and_back(serve: Serve, client: UpstreamClient) -> None:
    """A call arrives as it was meant, its answer too."""
    server = await serve(echo)
    response = await client.send(server.call(b'{"a":1}', {"Authorization": "Bearer k"}), connect_timeout=2)
    assert (response.status, response.headers["content-length"], response.reused) == (200, "7", False)
    assert await response.read(100) == b'{"a":1}'
    (request,) = server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["authorization"] == "bearer k"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


async def test_ipv6(serve: Serve, client: UpstreamClient) -> None:
    """An upstream may have an IPv6 address."""
    server = await serve(echo, host="::1")
    response = await client.send(server.call(b"six"), connect_timeout=2)
    assert await response.read(100) == b"six"
    assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


async def test_large_bodies_both_ways(serve: Serve, client: UpstreamClient) -> None:
    """32 MB go out and come back."""
    server = await serve(echo)
    body = bytes(range(256)) * (1 << 17)
    response = await client.send(server.call(body), connect_timeout=2)
    assert await response.read(len(body)) == body


async def test_socket_options(serve: Serve, client: UpstreamClient) -> None:
    """Small writes leave at once, and a peer that vanished is noticed some day."""
    server = await serve(echo)
    await (await client.send(server.call(), connect_timeout=2)).read(100)
    connection = client._pool.take(client._routes.find("POST", server.url()).endpoint.origin, 0.0)
    assert connection is not None
    assert connection._transport is not None
    raw = connection._transport.get_extra_info("socket")
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# --- kept connections ----------------------------------------------------------------------------------------------


async def test_connection_is_reused(serve: Serve, client: UpstreamClient) -> None:
    """After a whole answer the next call takes the same connection."""
    server = await serve(echo)
    for number in range(5):
        response = await client.send(server.call(b"x"), connect_timeout=2)
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
    calls = [asyncio.ensure_future(client.send(server.call(b"%d" % n), connect_timeout=5)) for n in range(300)]
    await until(lambda: len(server.requests) == 300, 10)
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
        response = await client.send(server.call(), connect_timeout=2)
        assert await response.read(100) == b"hello"
        assert not response.reused
        assert len(server.peers) == number + 1


async def test_bytes_on_an_idle_connection_close_it(serve: Serve, client: UpstreamClient) -> None:
    """An answer that nobody asked for is never given to the next call."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await asyncio.sleep(0.02)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await peer.gone()

    server = await serve(script)
    assert await (await client.send(server.call(), connect_timeout=2)).read(9) == b"hello"
    assert client.idle == 1
    await until(lambda: client.idle == 0)
    assert client.open == 0
    await until(lambda: server.peers[0].closed_at)
    assert await (await client.send(server.call(), connect_timeout=2)).read(9) == b"hello"
    assert len(server.peers) == 2


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_server_closes_an_idle_connection(serve: Serve, client: UpstreamClient, how: str) -> None:
    """An idle connection that the server closes leaves the pool at once."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await asyncio.sleep(0.02)
        getattr(peer, how)()

    server = await serve(script)
    await (await client.send(server.call(), connect_timeout=2)).read(9)
    assert client.idle == 1
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
    await (await client.send(server.call(b"first"), connect_timeout=2)).read(9)
    response = await client.send(server.call(b"second"), connect_timeout=2)
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
    await (await client.send(server.call(), connect_timeout=2)).read(9)
    with pytest.raises(ConnectionLost) as caught:
        await client.send(server.call(), connect_timeout=2)
    assert not caught.value.started
    assert len(server.requests) == 3


async def test_fresh_connection_is_never_replaced(serve: Serve, client: UpstreamClient) -> None:
    """A call on a fresh connection is sent once, whatever happens."""

    async def script(peer: Peer) -> None:
        await peer.request()

    server = await serve(script)
    with pytest.raises(ConnectionLost):
        await client.send(server.call(), connect_timeout=2)
    assert len(server.requests) == 1


async def test_stale_after_the_first_byte_is_not_replaced(serve: Serve, client: UpstreamClient) -> None:
    """Once a byte of an answer was seen the request may have been worked on: no second try."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await peer.request()
        await peer.send(b"HTTP/1.1 20")

    server = await serve(script)
    await (await client.send(server.call(), connect_timeout=2)).read(9)
    with pytest.raises(ConnectionLost) as caught:
        await client.send(server.call(), connect_timeout=2)
    assert caught.value.started
    assert len(server.requests) == 2


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
        calls = [client.send(server.call(), connect_timeout=2) for _ in range(20)]
        assert [await one.read(9) for one in await asyncio.gather(*calls)] == [b"hello"] * 20


async def test_sweep_evicts(serve: Serve, client: UpstreamClient) -> None:
    """Idle connections go when the sweep comes, and the server sees it."""
    server = await serve(echo)
    await (await client.send(server.call(), connect_timeout=2)).read(9)
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
    response = await client.send(server.call(bytes(64 << 20)), connect_timeout=2)
    assert (response.status, await response.read(9)) == (413, b"no")
    assert (client.idle, client.open) == (0, 0)


# --- ends ----------------------------------------------------------------------------------------------------------


async def stream_of(serve: Serve, client: UpstreamClient, *writes: bytes, end: str = "close") -> tuple[Sink, object]:
    """What a sink sees of an answer that is written in these pieces."""

    async def script(peer: Peer) -> None:
        await peer.request()
        for data in writes:
            await peer.send(data)
            await asyncio.sleep(0.01)
        if end == "gone":
            await peer.gone()
        else:
            getattr(peer, end)()

    server = await serve(script)
    sink = Sink()
    (await client.send(server.call(), connect_timeout=2)).attach(sink)
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


async def test_redirects_are_answers(serve: Serve, client: UpstreamClient) -> None:
    """Nothing is followed: a prompt and a key go nowhere else."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
        await peer.request()
        await peer.send(WHOLE)

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=2)
    assert (response.status, await response.read(9)) == (307, b"")
    await (await client.send(server.call(), connect_timeout=2)).read(9)
    assert len(server.requests) == 2
    assert "cookie" not in server.requests[1].headers


async def test_refused_connection(client: UpstreamClient) -> None:
    """A port where nobody listens is a failed connection, told without its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectFailed) as caught:
        await client.send(UpstreamCall(f"http://127.0.0.1:{port}/", {}, b""), connect_timeout=2)
    assert "refused" in str(caught.value)
    assert "127" not in str(caught.value)
    assert str(port) not in str(caught.value)
    assert client.open == 0


async def test_unknown_name(client: UpstreamClient) -> None:
    """A name that does not exist is a failed connection."""
    with pytest.raises(ConnectFailed) as caught:
        await client.send(UpstreamCall("http://nowhere.invalid/", {}, b""), connect_timeout=5)
    assert "nowhere" not in str(caught.value)


async def test_invalid_calls_connect_to_nobody(serve: Serve, client: UpstreamClient) -> None:
    """A call that cannot be put on the wire is refused before there is a connection."""
    server = await serve(echo)
    with pytest.raises(InvalidCall):
        await client.send(server.call(headers={"X": "a\r\nb"}), connect_timeout=2)
    with pytest.raises(InvalidCall):
        await client.send(UpstreamCall(server.url("/a b"), {}, b""), connect_timeout=2)
    assert server.peers == []


async def test_read_too_large(serve: Serve, client: UpstreamClient) -> None:
    """A one-shot answer beyond the limit is refused and its connection closed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + chunk(bytes(1000)))
        await peer.gone()

    server = await serve(script)
    with pytest.raises(ResponseTooLarge):
        await (await client.send(server.call(), connect_timeout=2)).read(999)
    assert client.open == 0


# --- letting go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("together", [True, False])
async def test_release_keeps_the_connection(serve: Serve, client: UpstreamClient, where: str, together: bool) -> None:
    """After [DONE] the connection is kept if the message ends with it or shortly after; the sink hears no more."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(STREAM_HEAD + chunk(b"[DONE]") + (LAST_CHUNK if together else b""))
            if not together:
                await asyncio.sleep(0.05)
                await peer.send(chunk(b"rest") + LAST_CHUNK)

    server = await serve(script)
    for number in range(3):
        response = await client.send(server.call(), connect_timeout=2)
        assert response.reused is (number > 0)
        sink = Sink((lambda data: response.release()) if where == "inside" else None)  # noqa: B023
        response.attach(sink)
        if where == "outside":
            await until(lambda: sink.data)  # noqa: B023
            response.release()
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
    response = await client.send(server.call(), connect_timeout=2)
    sink = Sink(lambda data: response.release())
    response.attach(sink)
    await until(lambda: sink.data)
    start = time.monotonic()
    await until(lambda: server.peers[0].closed_at)
    waited = time.monotonic() - start
    assert 0.8 < waited < 1.5 if how == "silent" else waited < 0.5
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
    response = await client.send(server.call(), connect_timeout=2)
    sink = Sink()
    response.attach(sink)
    await until(lambda: len(sink.pieces) > 3)
    start = time.monotonic()
    response.close()
    response.close()
    seen = len(sink.pieces)
    await until(lambda: server.peers[0].closed_at)
    assert time.monotonic() - start < 0.1
    assert (len(sink.pieces), sink.ends, client.open) == (seen, [], 0)


async def test_close_after_the_end_spares_the_connection(serve: Serve, client: UpstreamClient) -> None:
    """A complete answer no longer owns its connection: closing it late harms nobody."""

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await asyncio.sleep(0.02)
            await peer.send(WHOLE)

    server = await serve(script)
    first = await client.send(server.call(), connect_timeout=2)
    await first.read(9)
    second = asyncio.ensure_future(client.send(server.call(), connect_timeout=2))
    await asyncio.sleep(0.01)
    first.close()
    first.release()
    first.pause()
    assert await (await second).read(9) == b"hello"
    assert len(server.peers) == 1


async def test_pause_of_a_kept_body_does_not_pause_the_connection(serve: Serve, client: UpstreamClient) -> None:
    """A sink that has not taken all of a complete answer does not stop the next answer on the same connection."""
    server = await serve(echo)
    first = await client.send(server.call(b"one"), connect_timeout=2)
    await until(lambda: client.idle == 1)
    first.pause()
    second = await client.send(server.call(b"two"), connect_timeout=2)
    assert second.reused
    assert await second.read(9) == b"two"
    first.resume()
    assert await first.read(9) == b"one"


async def test_last_read_moves_with_body_bytes_only(serve: Serve, client: UpstreamClient) -> None:
    """The idle clock is set by body bytes, not by framing."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + chunk(b"a"))
        await asyncio.sleep(0.05)
        await peer.send(b"1;" + b"x" * 100)
        await asyncio.sleep(0.05)
        await peer.send(b"\r\nb\r\n")
        await peer.gone()

    server = await serve(script)
    response = await client.send(server.call(), connect_timeout=2)
    sink = Sink()
    response.attach(sink)
    await until(lambda: sink.data == b"a")
    first = response.last_read
    await asyncio.sleep(0.06)
    assert response.last_read == first
    await until(lambda: sink.data == b"ab")
    assert 0.08 < response.last_read - first < 0.3
    response.close()


async def test_close_of_the_client_ends_everything(serve: Serve) -> None:
    """Closing the client aborts idle and busy connections, tells running sinks nothing, and refuses new calls."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(WHOLE if request.body else STREAM_HEAD)
        await peer.gone()

    server = await serve(script)
    client = UpstreamClient()
    busy = await client.send(server.call(b""), connect_timeout=2)
    await (await client.send(server.call(b"x"), connect_timeout=2)).read(9)
    assert repr(client) == "<UpstreamClient open open=2 idle=1>"
    sink = Sink()
    busy.attach(sink)
    await client.close()
    await until(lambda: all(peer.closed_at for peer in server.peers))
    assert repr(client) == "<UpstreamClient closed open=0 idle=0>"
    with pytest.raises(ConnectFailed):
        await client.send(server.call(), connect_timeout=2)


async def test_answers_leave_no_garbage(serve: Serve, client: UpstreamClient) -> None:
    """Requests are freed by reference counts: nothing piles up for the collector, whose pauses streams would feel."""
    server = await serve(echo)
    call = server.call(b"x")

    async def exchange(how: str) -> None:
        response = await client.send(call, connect_timeout=2)
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
