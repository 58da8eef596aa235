"""Heads that come again are not parsed: what is made of them is what the parser would have made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.server.chat import DirectChat
from llm_router.server.heads import Asked, KnownHead, learn
from tests.server.conftest import CONFIG, Served, StartRouter
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.upstream import Upstream, healthy

ASKED = Asked("/v1/chat/completions", "localhost", None, None, "", None, True)
PATH = "/v1/chat/completions"
BEFORE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
AFTER = b"\r\nAccept: */*\r\n\r\n"


def request(size: int, extra: bytes = b"") -> bytes:
    """A request with the known head."""
    return BEFORE + b"%d" % size + AFTER + b"x" * size + extra


def known(size: int = 500) -> KnownHead:
    """The head of a request with a body of `size`."""
    head = learn(BEFORE + b"%d" % size + AFTER, size, ASKED)
    assert head is not None
    return head


@pytest.mark.parametrize("size", [100, 101, 500, 998, 999])
def test_the_same_head_again(size: int) -> None:
    """The body of a request that differs in its length and its body alone is found."""
    assert known().body_of(request(size)) == b"x" * size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request(0),
        request(9),
        request(99),
        request(1000),
        request(500)[:-1],
        request(500, b"P"),
        request(500, request(500)),
        request(500).replace(b"localhost", b"localhosT"),
        request(500).replace(b"500", b"+50"),
        request(500).replace(b"500", b"5e2"),
        request(500).replace(b": 500", b":  500"),
        request(500).replace(b"500", b"0500"),
        request(500).replace(b"*/*", b"*/."),
        BEFORE + b"-50" + AFTER,
        b"\r\n" + request(500),
    ],
)
def test_anything_else_is_left_to_the_parser(data: bytes) -> None:
    """A byte more, less or other, a part of a request, and more than one are not recognized."""
    assert known().body_of(data) is None


@given(st.binary(max_size=1500), st.integers(1, 4000))
def test_what_is_recognized_is_framed_as_it_says(tail: bytes, size: int) -> None:
    """Whatever follows the known beginning: a body that is found has the length that its head says."""
    data = BEFORE + tail
    body = known(size).body_of(data)
    assert body is None or data == BEFORE + b"%d" % len(body) + AFTER + body
    exact = request(size)
    assert known(size).body_of(exact) == b"x" * size


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (BEFORE + b"5" + AFTER, 6),
        (BEFORE + b"05" + AFTER, 5),
        (BEFORE + b"5 " + AFTER, 5),
        (BEFORE.replace(b"Length: ", b"Length:") + b"5" + AFTER, 5),
        (BEFORE + b"5" + AFTER + b"GET / HT", 5),
        (b"\r\n\r\n" + BEFORE + b"5" + AFTER, 5),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 5),
        (BEFORE + b"5\r\nX: " + b"a" * 9000 + AFTER, 5),
    ],
)
def test_a_doubtful_head_is_not_learned(head: bytes, length: int) -> None:
    """Unusual spelling, blank lines before it, more than a head, and giants."""
    assert learn(head, length, ASKED) is None


def test_names_may_be_spelled_in_any_case() -> None:
    """Some clients send lower-case names."""
    head = learn(BEFORE.lower() + b"5" + AFTER, 5, ASKED)
    assert head is not None
    assert head.body_of(BEFORE.lower() + b"7" + AFTER + b"7 bytes") == b"7 bytes"


# Over sockets, with a provider that answers with what it was sent.


@pytest.fixture
async def upstream() -> Any:
    """A healthy provider."""
    running = await Upstream().start()
    running.script = healthy
    yield running
    await running.stop()


@pytest.fixture
async def served(serve: StartRouter, upstream: Upstream) -> Served:
    """The router with a key, in front of the healthy provider."""
    providers = {"a": {"base_url": upstream.url, "api_key_env": "A_KEY"}}
    return await serve({**CONFIG, "providers": providers}, api_keys=("alpha", "beta"))


@pytest.fixture
def recognized(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request that came by the short way: whether it was recognized, or else parsed."""
    seen: list[bool] = []
    serve = DirectChat.serve

    async def watched(self: DirectChat, connection: Any, asked: Asked, identity: Any, body: Any) -> bool:
        seen.append(isinstance(body, bytes))
        return await serve(self, connection, asked, identity, body)

    monkeypatch.setattr(DirectChat, "serve", watched)
    return seen


def ask(words: str, key: str = "alpha", **headers: str) -> bytes:
    """A plain chat request."""
    fields: Mapping[str, str | None] = {"Authorization": f"Bearer {key}", **headers}
    return request_bytes("POST", PATH, chat_body("a/m1", False, words), fields)


def prompts(upstream: Upstream) -> list[str]:
    """What the provider was asked, in order."""
    return [exchange.request.json()["messages"][0]["content"] for exchange in upstream.exchanges]


async def test_requests_of_one_client(served: Served, upstream: Upstream, recognized: list[bool]) -> None:
    """From the second on they are recognized, with other prompts of other lengths, and answered as the first was."""
    words = [number * 50 for number in ("first", "second", "3rd", "4")]
    connection = await Connection.open(served.port)
    for text in words:
        await connection.send(ask(text))
        answer = await connection.answer()
        assert (answer.status, bool(answer.text)) == (200, True)
    assert recognized == [False, True, True, True]
    assert prompts(upstream) == words
    connection.close()


async def test_another_key_is_another_head(served: Served, upstream: Upstream, recognized: list[bool]) -> None:
    """Each request is judged by what it brings itself."""
    connection = await Connection.open(served.port)
    for key, status in (("alpha", 200), ("alpha", 200), ("betaa", 401)):
        await connection.send(ask("hello", key))
        assert (await connection.answer()).status == status
    assert recognized == [False, True]
    assert len(upstream.exchanges) == 2
    connection.close()


@pytest.mark.parametrize("cut", [1, 20, 150, -1])
async def test_a_request_in_two_reads_is_parsed(served: Served, recognized: list[bool], cut: int) -> None:
    """Part of a known request is left to the parser, and so is the rest of it; the next one is recognized again."""
    connection = await Connection.open(served.port)
    data = ask("hello")
    for _ in range(2):
        await connection.send(data)
        assert (await connection.answer()).status == 200
    (server_side,) = served.runner.server.connections
    await connection.send(data[:cut])
    async with asyncio.timeout(10):
        while server_side.idle and not server_side._head_bytes:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.001)
    await connection.send(data[cut:])
    assert (await connection.answer()).status == 200
    await connection.send(data)
    assert (await connection.answer()).status == 200
    assert recognized == [False, True, False, True]
    connection.close()


async def test_requests_that_do_not_wait_are_answered_in_order(
    served: Served, upstream: Upstream, recognized: list[bool]
) -> None:
    """What comes while an answer is under way is parsed, and waits."""
    connection = await Connection.open(served.port)
    words = [f"number {number}" for number in range(30)]
    for first in (0, 1, 2):
        await connection.send(ask(words[first]))
        assert (await connection.answer()).status == 200
    for text in words[3:]:
        await connection.send(ask(text))
    for _ in words[3:]:
        assert (await connection.answer()).status == 200
    assert prompts(upstream) == words
    assert recognized[:3] == [False, True, True]
    connection.close()


async def test_after_another_kind_of_request_all_are_parsed(served: Served, recognized: list[bool]) -> None:
    """A connection that has left the short way answers the head that it knew, too."""
    connection = await Connection.open(served.port)
    for data in (ask("hello"), ask("again"), request_bytes("GET", "/health"), ask("third"), ask("forth")):
        await connection.send(data)
        assert (await connection.answer()).status == 200
    assert recognized == [False, True]
    connection.close()


async def test_ids_and_limits_of_a_known_head_count_again(served: Served, recognized: list[bool]) -> None:
    """What the head says beside who asks holds for every request that repeats it."""
    connection = await Connection.open(served.port)
    for _ in range(3):
        await connection.send(ask("hello", **{"x-request-id": "the-same", "x-router-max-price": "cheap"}))
        answer = await connection.answer()
        assert (answer.status, answer.header("x-request-id")) == (400, "the-same")
    assert recognized == [False, True, True]
    connection.close()


async def test_heads_that_are_never_the_same(served: Served, recognized: list[bool]) -> None:
    """A client that numbers its requests is served as well; after a few of them nobody compares its heads any more."""
    connection = await Connection.open(served.port)
    for number in range(12):
        await connection.send(ask("hello", **{"x-request-id": f"number-{number:02}"}))
        assert (await connection.answer()).header("x-request-id") == f"number-{number:02}"
    (server_side,) = served.runner.server.connections
    assert server_side._lessons == 0
    assert recognized == [False] * 12
    connection.close()


async def test_a_client_that_leaves_after_a_known_head(
    served: Served, upstream: Upstream, recognized: list[bool]
) -> None:
    """Its provider is hung up on, as with any other request."""
    connection = await Connection.open(served.port)
    await connection.send(ask("hello"))
    assert (await connection.answer()).status == 200

    async def silent(exchange: Any) -> None:
        await exchange.hang()

    upstream.script = silent
    await connection.send(ask("hello"))
    exchange = await upstream.wait_for(2)
    connection.reset()
    async with asyncio.timeout(10):
        while exchange.closed_at is None:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.001)
    assert recognized == [False, True]
