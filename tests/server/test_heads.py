"""Heads that come again are not parsed: what is made of them is what the parser would have made of them."""

from __future__ import annotations

import asyncio
import random
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.proxy.outbox import Outbox
from llm_router.server.bodies import await_whole
from llm_router.server.connections import Connection as ServerConnection
from llm_router.server.connections import Connections
from llm_router.server.heads import KnownHead, PlainHead, learn
from llm_router.server.rules import Identity
from tests.support.waiting import until

PLAIN = PlainHead("/v1/chat/completions", "localhost", None, None, "", None, True)
PATH = "/v1/chat/completions"
BEFORE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
AFTER = b"\r\nAccept: */*\r\n\r\n"


def request(size: int, extra: bytes = b"") -> bytes:
    """A request with the known head."""
    return BEFORE + b"%d" % size + AFTER + b"x" * size + extra


def known(size: int = 500) -> KnownHead:
    """The head of a request with a body of `size`."""
    head = learn(BEFORE + b"%d" % size + AFTER, size, PLAIN)
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
    assert learn(head, length, PLAIN) is None


def test_names_may_be_spelled_in_any_case() -> None:
    """Some clients send lower-case names."""
    head = learn(BEFORE.lower() + b"5" + AFTER, 5, PLAIN)
    assert head is not None
    assert head.length_in(BEFORE.lower() + b"7" + AFTER + b"7 bytes") == 7


class Readers:
    """A short way that takes what has a length, and keeps the bodies that came by it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.outbox = Outbox()

    def reads(self, message: Any) -> PlainHead | None:
        """Every request with a length."""
        return PLAIN if "Content-Length" in message.headers else None

    def admits(self, head: PlainHead, length: int) -> Identity | None:
        """Everybody, with a body that is not empty."""
        return Identity("anonymous", "") if length else None

    async def serve(self, connection: Any, head: PlainHead, identity: Identity, body: Any) -> bool:
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
