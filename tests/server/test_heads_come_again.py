"""Requests with a known head over sockets, with a provider that answers with what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from llm_router.server import connections
from llm_router.server.chat import DirectChat
from llm_router.server.heads import PlainHead
from tests.server.conftest import CONFIG, Served, StartRouter
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.upstream import Upstream
from tests.support.waiting import until

PATH = "/v1/chat/completions"


@pytest.fixture
async def served(serve: StartRouter, upstream: Upstream) -> Served:
    """The router with a key, in front of the healthy provider."""
    providers = {"a": {"base_url": upstream.url, "api_key_env": "A_KEY"}}
    return await serve({**CONFIG, "providers": providers}, api_keys=("alpha", "beta"))


@pytest.fixture
def recognized(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each request that came by the short way: whether it was recognized, or else parsed."""
    seen: list[bool] = []
    serve, reads = DirectChat.serve, DirectChat.reads
    parsed: list[Any] = []

    def watched_reads(self: DirectChat, message: Any) -> PlainHead | None:
        parsed.append(message)
        return reads(self, message)

    async def watched_serve(self: DirectChat, connection: Any, head: PlainHead, identity: Any, body: Any) -> bool:
        seen.append(not parsed)
        parsed.clear()
        return await serve(self, connection, head, identity, body)

    monkeypatch.setattr(DirectChat, "reads", watched_reads)
    monkeypatch.setattr(DirectChat, "serve", watched_serve)
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


@pytest.mark.parametrize("cut", [1, 20, 120])
async def test_half_a_head_is_parsed(served: Served, recognized: list[bool], cut: int) -> None:
    """Part of a known head is left to the parser, and so is the rest of it; the next one is recognized again."""
    connection = await Connection.open(served.port)
    data = ask("hello")
    for _ in range(2):
        await connection.send(data)
        assert (await connection.answer()).status == 200
    await send_in_two(served, connection, data, cut)
    assert (await connection.answer()).status == 200
    await connection.send(data)
    assert (await connection.answer()).status == 200
    assert recognized == [False, True, False, True]
    connection.close()


async def send_in_two(served: Served, connection: Connection, data: bytes, cut: int) -> None:
    """Sends `data` so that the server, which has no other connection, has read its beginning when the rest comes."""
    await connection.send(data[:cut])
    await until(lambda: any(not each.idle or each._head_bytes for each in served.runner.server.connections))
    await connection.send(data[cut:])


@pytest.mark.parametrize("behind", [0, 1, 2])
@pytest.mark.parametrize("come", [0, 1, 100_000, 299_900])
async def test_bodies_that_come_in_parts(
    served: Served, upstream: Upstream, recognized: list[bool], come: int, behind: int
) -> None:
    """A known head is recognized before its body came; what comes behind the body in one read is another request."""
    connection = await Connection.open(served.port)
    texts = ["x" * 299_900, "y" * 299_900, "z" * 299_900]
    await connection.send(ask(texts[0]))
    assert (await connection.answer()).status == 200
    data = ask(texts[1])
    rest = b"".join(ask(text) for text in texts[2:] * behind)
    await send_in_two(served, connection, data + rest, data.index(b"\r\n\r\n") + 4 + come)
    for _ in range(1 + behind):
        assert (await connection.answer()).status == 200
    await connection.send(ask("the last"))
    assert (await connection.answer()).status == 200
    assert prompts(upstream) == [*texts[:2], *texts[2:] * behind, "the last"]
    assert recognized[:2] == [False, True]
    connection.close()


async def test_a_head_alone_is_learned(served: Served, recognized: list[bool]) -> None:
    """Many clients send head and body apart."""
    connection = await Connection.open(served.port)
    data = ask("hello")
    for _ in range(3):
        await send_in_two(served, connection, data, data.index(b"\r\n\r\n") + 4)
        assert (await connection.answer()).status == 200
    assert recognized == [False, True, True]
    connection.close()


@pytest.mark.parametrize("behind", [False, True])
async def test_a_known_head_inside_another(
    served: Served, upstream: Upstream, recognized: list[bool], behind: bool
) -> None:
    """What looks like a known request is none where the head of another one has begun, behind a request or alone."""
    connection = await Connection.open(served.port)
    await connection.send(ask("hello"))
    assert (await connection.answer()).status == 200
    begun = b"GET /health HTTP/1.1\r\nX: "
    if behind:
        await connection.send(ask("again") + begun)
        assert (await connection.answer()).status == 200
        await connection.send(ask("hidden"))
    else:
        await send_in_two(served, connection, begun + ask("hidden"), len(begun))
    assert (await connection.answer()).json()["status"] == "healthy"
    assert "hidden" not in prompts(upstream)
    connection.close()


async def test_a_known_head_inside_another_once_nothing_more_is_learned(
    served: Served, upstream: Upstream, recognized: list[bool]
) -> None:
    """The same holds for a client whose heads were so many that the last one known just stays."""
    connection = await Connection.open(served.port)
    for number in range(connections._LESSONS):
        await connection.send(ask("hello", Accept=f"text/{number}"))
        assert (await connection.answer()).status == 200
    last = {"Accept": f"text/{connections._LESSONS - 1}"}
    await connection.send(ask("again", **last) + b"GET /health HTTP/1.1\r\nX: ")
    assert (await connection.answer()).status == 200
    await connection.send(ask("hidden", **last))
    assert (await connection.answer()).json()["status"] == "healthy"
    assert "hidden" not in prompts(upstream)
    connection.close()


async def test_another_connection_with_the_same_head(
    served: Served, upstream: Upstream, recognized: list[bool]
) -> None:
    """What one connection learned holds for the next, whoever has it; a head that is other in a byte is parsed."""
    requests = [ask("one"), ask("two"), ask("three", "beta"), ask("four", "beta"), ask("five", "gamma"), ask("six")]
    statuses = []
    for data in requests:
        connection = await Connection.open(served.port)
        await connection.send(data)
        statuses.append((await connection.answer()).status)
        connection.close()
    assert statuses == [200, 200, 200, 200, 401, 200]
    assert recognized == [False, True, False, True, False]
    assert prompts(upstream) == ["one", "two", "three", "four", "six"]


@pytest.mark.parametrize("way", ["silent", "drain", "leave"])
async def test_a_known_head_without_its_body(
    served: Served, upstream: Upstream, recognized: list[bool], way: str
) -> None:
    """A body that is not parsed is watched as any other: its silence, the end of the router, its client's leaving."""
    connection = await Connection.open(served.port)
    await connection.send(ask("hello"))
    assert (await connection.answer()).status == 200
    await connection.send(ask("hello")[:-10])
    (server_side,) = served.runner.server.connections
    await until(server_side._body_is_awaited)
    if way == "leave":
        connection.close()
        await until(lambda: not served.runner.server.connections)
    else:
        if way == "silent":
            server_side.check_clocks(asyncio.get_running_loop().time() + 100, 10.0)
        else:
            served.runner.refuse_unfinished()
        answer = await connection.answer()
        assert answer.error["code"] == {"silent": "request_timeout", "drain": "shutting_down"}[way]
        assert await connection.closed_within(20)
        connection.close()
    assert recognized == [False, True]
    assert len(upstream.exchanges) == 1


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
