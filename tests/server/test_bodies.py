"""Bodies of requests: how long, how many, never unpacked, over raw sockets."""

from __future__ import annotations

import asyncio
import logging

import pytest

from llm_router.server import connections
from tests.server.conftest import Small, StartSmall
from tests.server.raw import CHUNKED, HEAD
from tests.support.client import request_bytes
from tests.support.waiting import until


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "unknown"])
async def test_compressed_bodies_are_refused(small: Small, coding: str, caplog: pytest.LogCaptureFixture) -> None:
    """A compressed body is 415 before a byte of it is unpacked, and nothing is logged about its content."""
    with caplog.at_level(logging.DEBUG):
        answer = await small.ask("POST", "/", b"\x1f\x8bnot gzip at all", headers={"Content-Encoding": coding})
    assert (answer.status, answer.error["code"]) == (415, "unsupported_content_encoding")
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("coding", ["identity", ""])
async def test_identity_is_no_compression(small: Small, coding: str) -> None:
    """`Content-Encoding: identity` says that nothing was done."""
    assert (await small.ask("POST", "/", b"abc", headers={"Content-Encoding": coding})).json()["size"] == 3


async def test_long_bodies_are_refused_before_they_are_read(start: StartSmall) -> None:
    """A declared length above the limit is 413 at once and names the setting; one at the limit passes."""
    small = await start(max_body_bytes=1000)
    connection = await small.open()
    await connection.send(HEAD + b"Content-Length: 1001\r\n\r\n")
    answer = await connection.answer()
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert "ROUTER_MAX_BODY_BYTES" in answer.error["message"]
    assert await connection.closed_within(20)
    connection.close()
    assert (await small.ask("POST", "/", b"x" * 1000)).json()["size"] == 1000


async def test_long_chunked_bodies_are_refused_while_they_come(start: StartSmall) -> None:
    """Without a declared length the limit holds too, and what comes after it is dropped, not kept."""
    small = await start(max_body_bytes=100_000)
    connection = await small.open()
    await connection.send(CHUNKED + b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    sending = asyncio.ensure_future(connection.send((b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n") * 200))
    answer = await connection.answer()
    assert answer.status == 413
    await sending
    connection.close()


async def test_what_is_dropped_is_bounded_too(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a refusal the router reads on for a while, not for as much as a client likes to send."""
    monkeypatch.setattr(connections, "LINGER_BYTES", 1 << 20)
    small = await start(max_body_bytes=100_000)
    for refused in (CHUNKED, b"nonsense\r\n\r\n"):
        connection = await small.open()
        await connection.send(refused)
        sent = 0
        while sent < 64 << 20 and await connection.send(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"):
            sent += 0xFFFF
        assert sent < 32 << 20
        connection.close()


async def test_eight_megabytes_pass(small: Small) -> None:
    """A large body arrives whole."""
    assert (await small.ask("POST", "/", b"x" * (8 << 20))).json()["size"] == 8 << 20


async def test_big_bodies_share_a_budget(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all connections together hold too much, one more big body is 503 with Retry-After, and all is given back."""
    monkeypatch.setattr(connections, "MOST_HELD_BYTES", 3 << 20)
    small = await start()
    holding = [await small.open() for _ in range(2)]
    for connection in holding:
        await connection.send(HEAD + b"Content-Length: %d\r\n\r\n" % (3 << 20) + b"x" * (2 << 20))
    await until(lambda: small.runner.server.held_bytes >= 2 << 20)
    refused = await small.ask("POST", "/", b"x" * (3 << 20))
    assert (refused.status, refused.header("retry-after")) == (503, "1")
    for connection in holding:
        connection.close()
    await until(lambda: small.runner.server.held_bytes == 0)
    assert (await small.ask("POST", "/", b"x" * (3 << 20))).status == 200
    assert small.runner.server.held_bytes == 0


async def test_a_body_is_counted_as_what_it_is_parsed_to(start: StartSmall, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 MB of empty lists are a gigabyte once they are parsed; as much of a text, or of an image, is what it is."""
    monkeypatch.setattr(connections, "MOST_HELD_BYTES", 16 << 20)
    small = await start()
    refused = await small.ask("POST", "/", b"[" + b"[]," * (1 << 20) + b"[]]")
    assert (refused.status, refused.error["code"]) == (413, "request_too_large")
    assert (await small.ask("POST", "/", b'"' + b"as many words, in a text, as that " * (1 << 17) + b'"')).status == 200
    assert (await small.ask("POST", "/", b'"' + b"AAAA" * (1 << 20) + b'"')).status == 200
    await until(lambda: small.runner.server.held_bytes == 0)


async def test_unread_bodies_do_not_harm(small: Small) -> None:
    """A handler that does not read its body leaves the connection usable."""
    connection = await small.open()
    for _ in range(3):
        await connection.send(request_bytes("POST", "/deaf", b"x" * 1000))
        answer = await connection.answer()
        assert answer.body == b"not read"
    connection.close()
