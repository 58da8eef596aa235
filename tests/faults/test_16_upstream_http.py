"""HTTP on the provider's side: reused connections, early answers, odd framing and codings, mislabelled bodies."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.support.chunks import DONE, answer, completion, error, error_event, finish, role, text
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, finish_as, healthy, plain, raw, reply, stream
from tests.support.waiting import until

BODY = json.dumps(completion("from a")).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)


async def test_connections_are_reused(stage: Stage) -> None:
    """Whole answers leave their connection for the next request."""
    for number in range(10):
        assert (await stage.chat("router/ab", number % 2 == 0)).status == 200
        await stage.turns()  # a stream's end may still be on its way when its client has it all
    assert stage.a.count == 10
    assert stage.router.has_workers or len(stage.a.connections) == 1


async def test_a_body_may_end_behind_its_done(stage: Stage) -> None:
    """The last chunk often comes in a packet of its own: the client need not wait, and the connection is still kept."""
    answered = asyncio.Event()
    ended = 0

    async def script(exchange: Exchange) -> None:
        nonlocal ended
        await exchange.head()
        await exchange.body(b"".join(answer("Hello")))
        await answered.wait()
        await exchange.finish()
        ended += 1

    stage.a.script = script
    for number in range(1, 4):
        answered.clear()
        got = await stage.chat("router/ab")
        assert (got.ended, got.text, got.done) == ("whole", "Hello", True)
        answered.set()
        await until(lambda: ended == number)  # noqa: B023
        await stage.turns()
    assert stage.router.has_workers or len(stage.a.connections) == 1


@pytest.mark.parametrize(
    "extra",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + BODY.replace(b"from a", b"POISON"),
        b"garbage",
        b"\r\n",
        b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ],
    ids=["answer", "poison", "garbage", "newline", "408"],
)
@pytest.mark.parametrize("late", [False, True])
async def test_unasked_bytes_answer_nobody(stage: Stage, extra: bytes, late: bool) -> None:
    """Bytes behind an answer, at once or on the idle connection, are never the answer to the next request."""
    answered, sent = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> None:
        if late:
            await exchange.send(HEAD + BODY)
            await answered.wait()
            await exchange.send(extra)
            sent.set()
        else:
            await exchange.send(HEAD + BODY + extra)

    stage.a.script = script
    for _ in range(4):
        got = await stage.chat("router/ab", False)
        assert (got.status, got.text) == (200, "from a")
        if late:
            answered.set()
            await sent.wait()
            await stage.turns()
            answered.clear()
            sent.clear()
    assert stage.b.count == 0


@contextlib.asynccontextmanager
async def listening(port: int, serve: Callable[[socket.socket], Awaitable[None]]) -> AsyncIterator[None]:
    """A bare listening socket whose first connection `serve` gets."""
    loop = asyncio.get_running_loop()
    taken: list[socket.socket] = [socket.create_server(("127.0.0.1", port))]
    taken[0].setblocking(False)

    async def accept() -> None:
        connection, _ = await loop.sock_accept(taken[0])
        connection.setblocking(False)
        taken.append(connection)
        await serve(connection)

    task = asyncio.ensure_future(accept())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for sock in taken:
            sock.close()


async def test_an_answer_before_the_request_was_read(stage: Stage) -> None:
    """A provider that refuses a large body before it has read it: its refusal reaches the client."""
    refusal = error("payload too large for us")

    async def serve(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_recv(connection, 10_000)
        head = b"HTTP/1.1 413 X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        await loop.sock_sendall(connection, head % len(refusal) + refusal)
        await asyncio.sleep(3)

    await stage.a.stop()
    async with listening(stage.a.port, serve):
        got = await stage.chat("a/m1", content="x" * 6_000_000)
    assert got.status == 413
    assert "payload too large for us" in got.error["message"]


async def test_a_provider_that_does_not_read_the_request(stage: Stage) -> None:
    """A provider that takes the connection and never reads a large body costs the first-byte clock."""

    async def serve(connection: socket.socket) -> None:
        await asyncio.sleep(30)

    await stage.a.stop()
    async with listening(stage.a.port, serve):
        got = await stage.chat("router/ab", content="x" * 12_000_000)
    assert (got.status, got.header("x-router-model")) == (200, "b/m2")


async def test_trailers_and_chunk_extensions(stage: Stage) -> None:
    """Chunk extensions and trailers of a provider are understood and dropped."""
    events = b"".join(answer("fine"))
    body = b"%x;name=value\r\n%b\r\n0\r\nX-Trailer: secret\r\nX-Router-Model: forged\r\n\r\n" % (len(events), events)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    stage.a.script = raw(head + body, "hang")
    got = await stage.chat("router/ab")
    assert got.body == events
    assert b"secret" not in got.raw
    assert b"forged" not in got.raw


CODINGS: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzip.compress(BODY)),
    "x_gzip": ("x-gzip", gzip.compress(BODY)),
    "upper": ("GZIP", gzip.compress(BODY)),
    "two_members": ("gzip", gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])),
    "deflate": ("deflate", zlib.compress(BODY)),
    "raw_deflate": ("deflate", zlib.compress(BODY)[2:-4]),
    "identity": ("identity", BODY),
    "unknown": ("x-snappy", BODY),
    "br": ("br", b"\x8b\x02\x80hello\x03"),
    "double": ("gzip, gzip", gzip.compress(gzip.compress(BODY))),
}


@pytest.mark.parametrize("name", CODINGS)
async def test_codings(stage: Stage, name: str) -> None:
    """Compressed answers are read; a coding that is not understood fails over; the client sees neither."""
    coding, data = CODINGS[name]
    stage.a.script = reply(200, data, {"Content-Encoding": coding})
    got = await stage.chat("router/ab", False)
    assert got.status == 200
    assert got.header("content-encoding") is None
    understood = name in ("gzip", "two_members", "deflate", "identity")
    assert got.text == "from a" or (not understood and got.text == "Hello from upstream")


@pytest.mark.parametrize(
    "kind",
    ["text/event-stream", "TEXT/EVENT-STREAM; charset=UTF-8", "text/event-stream;charset=utf-8", "text/plain",
     "application/octet-stream", "application/x-ndjson", "application/json", ""],
)  # fmt: skip
async def test_mislabelled_streams(stage: Stage, kind: str) -> None:
    """A good stream under a wrong Content-Type: a whole answer from somebody, labelled as a stream."""
    stage.a.script = stream(answer("from a"), content_type=kind)
    got = await stage.chat("router/ab")
    assert (got.status, got.ended, got.done) == (200, "whole", True)
    assert got.text in ("from a", "Hello from upstream")
    assert (got.header("content-type") or "").startswith("text/event-stream")
    if kind.lower().startswith("text/event-stream"):
        assert got.text == "from a"


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "text/plain", "text/html", "", "text/event-stream"]
)
async def test_mislabelled_completions(stage: Stage, kind: str) -> None:
    """A good JSON completion under a wrong Content-Type: a whole JSON answer from somebody."""
    stage.a.script = reply(200, BODY, content_type=kind)
    got = await stage.chat("router/ab", False)
    assert got.status == 200
    assert got.json()["choices"][0]["message"]["content"] in ("from a", "Hello from upstream")
    assert (got.header("content-type") or "").startswith("application/json")


@pytest.mark.parametrize(
    "padding", [b" \n" * 40, b"\n", b"\r\n\r\n", b"\xef\xbb\xbf"], ids=["blanks", "lf", "crlf", "bom"]
)
async def test_blanks_before_a_completion(stage: Stage, padding: bytes) -> None:
    """Providers that send blanks to keep a connection alive: the completion behind them is read."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(content_type="application/json")
        for at in range(0, len(padding), 8):
            await exchange.body(padding[at : at + 8])
            await asyncio.sleep(0.03)
        await exchange.body(BODY)
        await exchange.finish()

    stage.a.script = script
    got = await stage.chat("router/ab", False)
    assert got.status == 200
    assert json.loads(got.body.decode("utf-8-sig"))["choices"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_completion_piece_by_piece(stage: Stage, streamed: bool) -> None:
    """A JSON completion that drips in is whole at its end, streamed on or not."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(content_type="application/json")
        for at in range(0, len(BODY), 20):
            await exchange.body(BODY[at : at + 20])
            await asyncio.sleep(0.01)
        await exchange.finish()

    stage.a.script = script
    got = await stage.chat("router/ab", streamed)
    assert (got.text, got.done) == ("from a", streamed)


@pytest.mark.parametrize("end", ["fin", "reset", "half_chunk", "bad_chunk"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_completion_that_is_cut_behind_its_last_brace(stage: Stage, streamed: bool, end: Any) -> None:
    """A body whose framing broke is not trusted, or it is whole: never half of either."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(content_type="application/json")
        await exchange.body(BODY)
        await finish_as(exchange, end)

    stage.a.script = script
    got = await stage.chat("router/ab", streamed)
    assert (got.status, got.ended, got.errors) == (200, "whole", [])
    assert got.text in ("from a", "Hello from upstream")


async def test_content_and_error_in_one_read(stage: Stage) -> None:
    """Words and an error in the same packet: either the words and one error event, or the next candidate."""
    stage.a.script = stream(role() + text("word") + error_event("boom"))
    got = await stage.chat("router/ab")
    assert got.ended == "whole"
    if got.header("x-router-model") == "b/m2":
        assert got.text == "Hello from upstream"
    else:
        assert (got.text, got.done, len(got.errors)) == ("word", False, 1)


async def test_a_half_dead_pool(stage: Stage) -> None:
    """Twenty kept connections that all die at once cost no request."""
    stage.a.script = stream(answer("warm"), gap=0.02)
    await asyncio.gather(*(stage.chat("router/ab") for _ in range(20)))
    for connection in stage.a.connections:
        connection.reset()
    stage.a.script = healthy
    got = await asyncio.gather(*(stage.chat("router/ab") for _ in range(20)))
    assert {one.text for one in got} == {"Hello from upstream"}
    assert {one.header("x-router-model") for one in got} == {"a/m1"}


async def test_a_slow_head(stage: Stage) -> None:
    """A head that arrives byte by byte is a head."""

    async def script(exchange: Exchange) -> None:
        for byte in HEAD:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0.001)
        await exchange.send(BODY)

    stage.a.script = script
    assert (await stage.chat("router/ab", False)).text == "from a"


@pytest.mark.parametrize("reason", [b"OK", b"", b"\xff\xfe", b"x" * 3000], ids=["ok", "none", "latin", "long"])
async def test_odd_status_lines(stage: Stage, reason: bytes) -> None:
    """The reason phrase means nothing."""
    stage.a.script = raw(HEAD.replace(b"OK", reason, 1) + BODY, "hang")
    got = await stage.chat("router/ab", False)
    assert got.status == 200


@pytest.mark.parametrize(
    "header",
    [b"X-Odd: \xff\xfe\xfd", b"X-Odd:", b"X-Odd : 1", b"X Odd: 1", b"X-Odd: a\x00b", b"\tfolded", b"Content-Length: 5"],
    ids=repr,
)
async def test_odd_headers_of_a_provider(stage: Stage, header: bytes) -> None:
    """Broken header lines of a provider never reach the client and never crash anything."""
    stage.a.script = raw(HEAD.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n") + BODY, "fin")
    got = await stage.chat("router/ab", False)
    assert got.status == 200
    assert got.text in ("from a", "Hello from upstream")
    assert got.header("x-odd") is None


async def test_silence_between_finish_and_done(stage: Stage) -> None:
    """A provider that says its finish and then nothing: the answer ends, whole or with one error."""
    stage.a.script = stream(answer("Hello", done=False), end="hang")
    got = await stage.chat("router/ab")
    assert (got.ended, got.text, got.finishes) == ("whole", "Hello", ["stop"])
    assert got.done != bool(got.errors)


async def test_two_answers_in_one_stream(stage: Stage) -> None:
    """What follows `[DONE]` is never shown."""
    stage.a.script = stream(b"".join([*answer("one"), *answer("two")]))
    got = await stage.chat("router/ab")
    assert got.text == "one"
    assert got.body == b"".join(answer("one"))


async def test_many_small_events_in_one_read_and_one_event_in_many(stage: Stage) -> None:
    """A thousand events in one packet and one event in a thousand packets are the same words."""
    many = [role(), *(text(f"{number} ") for number in range(1000)), finish(), DONE]
    stage.a.script = stream(b"".join(many))
    assert (await stage.chat("router/ab")).body == b"".join(many)
    big = [role(), text("y" * 60_000), finish(), DONE]
    stage.a.script = stream(b"".join(big), cut=60)
    assert (await stage.chat("router/ab", patience=20)).body == b"".join(big)


async def test_no_proxy_headers_of_ours_upstream(stage: Stage) -> None:
    """The provider sees no header that tells of the client's machine."""
    stage.a.script = plain("x")
    await stage.chat(
        "router/ab", False, headers={"Via": "1.1 home", "X-Real-IP": "10.1.2.3", "Referer": "http://intranet/"}
    )
    sent = str(stage.a.last.request.headers)
    for word in ("home", "10.1.2.3", "intranet"):
        assert word not in sent


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_name_that_does_not_resolve_fails_over(own: Callable[..., Awaitable[Stage]], streamed: bool) -> None:
    """A DNS failure is a connection failure."""
    stage = await own()
    config = json.loads(stage.router.config_file.read_text())
    config["providers"]["gone"] = {"base_url": "http://no-such-host.invalid/v1", "api_key_env": "A_KEY"}
    config["model_mappings"]["code"] = ["gone/m1", "b/m2"]
    stage.router.config_file.write_text(json.dumps(config))
    assert (await stage.router.ask("POST", "/config/reload")).status == 200
    got = await stage.chat("router/code", streamed)
    assert (got.status, got.header("x-router-model")) == (200, "b/m2")
