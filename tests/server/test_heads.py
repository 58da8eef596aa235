"""Heads that come again are not parsed: what is made of them is what the parser would have made of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.server import connections
from llm_router.server.bodies import await_whole
from llm_router.server.chat import DirectChat
from llm_router.server.connections import Connection as ServerConnection
from llm_router.server.connections import Connections
from llm_router.server.heads import Asked, KnownHead, learn
from llm_router.server.rules import Identity
from tests.server.conftest import CONFIG, Served, StartRouter
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.upstream import Upstream
from tests.support.waiting import until

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
    """The length of a request that differs in its length and its body alone is found, also before the body came."""
    head = known()
    for data in (request(size), request(size)[: head.size], request(size, b"P"), request(size, request(500))):
        assert head.length_in(data) == size
        assert data[head.size : head.size + size] == b"x" * (len(data[head.size :]) and size)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request(0),
        request(9),
        request(99),
        request(1000),
        request(500)[:-501],
        request(500).replace(b"localhost", b"localhosT"),
        request(500).replace(b"500", b"+50"),
        request(500).replace(b"500", b"5e2"),
        request(500).replace(b": 500", b":  500"),
        request(500).replace(b"500", b"0500"),
        request(500).replace(b"500", b"5_0"),
        request(500).replace(b"500", b" 50"),
        request(500).replace(b"500", "５0".encode()[:3]),
        request(500).replace(b"*/*", b"*/."),
        BEFORE + b"-50" + AFTER,
        b"\r\n" + request(500),
    ],
)
def test_anything_else_is_left_to_the_parser(data: bytes) -> None:
    """A byte more, less or other in the head, or a part of it, is not recognized."""
    assert known().length_in(data) is None


@given(st.binary(max_size=1500), st.integers(1, 4000))
def test_what_is_recognized_is_framed_as_it_says(tail: bytes, size: int) -> None:
    """Whatever follows the known beginning: what is recognized says the length that was found."""
    data = BEFORE + tail
    head = known(size)
    length = head.length_in(data)
    assert length is None or data[: head.size] == BEFORE + b"%0*d" % (len(str(size)), length) + AFTER
    assert head.length_in(request(size)) == size


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
    assert head.length_in(BEFORE.lower() + b"7" + AFTER + b"7 bytes") == 7


class Readers:
    """A short way that takes what has a length, and keeps the bodies that came by it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def reads(self, message: Any) -> Asked | None:
        """Every request with a length."""
        return ASKED if "Content-Length" in message.headers else None

    def admits(self, asked: Asked, length: int) -> Identity | None:
        """Everybody, with a body that is not empty."""
        return Identity("anonymous", "") if length else None

    async def serve(self, connection: Any, asked: Asked, identity: Identity, body: Any) -> bool:
        """Waits for the body."""
        self.bodies.append(body if isinstance(body, bytes) else await await_whole(connection, body))
        return True


class Sink(asyncio.Transport):
    """A transport that takes whatever is written."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def test_however_requests_are_cut() -> None:
    """Requests with two heads, sent in pieces of any size at any moments: every body arrives once, whole, in order."""
    for seed in range(300):
        send_in_pieces(random.Random(seed))


def send_in_pieces(chance: random.Random) -> None:
    """Some requests, cut mostly where something begins or ends."""
    requests = [(chance.choice((10, 50, 90, 99, 2000)), chance.choice((0, 0, 0, 1))) for _ in range(8)]
    bodies = [bytes([97 + number]) * size for number, (size, _) in enumerate(requests)]
    ends = (AFTER, AFTER.replace(b"*", b"+"))
    heads = [BEFORE + b"%d" % size + ends[other] for size, other in requests]
    parts = [part for pair in zip(heads, bodies, strict=True) for part in pair]
    stream = b"".join(parts)
    marks = [place + near for place in accumulate(map(len, parts)) for near in (0, 0, 0, -1, 1, 9)]
    cuts = sorted({*chance.sample(marks, chance.randint(0, len(marks) // 2)), len(stream)})

    async def send() -> list[bytes]:
        readers = Readers()
        connections = Connections(None, readers)
        connection = ServerConnection(connections, loop=asyncio.get_running_loop())
        connection.connection_made(Sink())
        for start, end in pairwise([0, *cuts]):
            if stream[start:end]:
                connection.data_received(stream[start:end])
            for _ in range(chance.choice([0, 1, 5, 5, 5])):
                await asyncio.sleep(0)
        await until(lambda: len(readers.bodies) == len(bodies) and connection.idle)
        connection.connection_lost(None)
        return readers.bodies

    assert asyncio.run(send()) == bodies


# Over sockets, with a provider that answers with what it was sent.


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

    def watched_reads(self: DirectChat, message: Any) -> Asked | None:
        parsed.append(message)
        return reads(self, message)

    async def watched_serve(self: DirectChat, connection: Any, asked: Asked, identity: Any, body: Any) -> bool:
        seen.append(not parsed)
        parsed.clear()
        return await serve(self, connection, asked, identity, body)

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
