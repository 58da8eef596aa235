"""What is a request and what is not: framing, versions, expectations, over raw sockets."""

from __future__ import annotations

import asyncio
import logging
import random
import re

import pytest

from tests.server.conftest import Small, StartSmall
from tests.server.raw import CHUNKED, HEAD, HIDDEN, HOST

BROKEN: dict[str, bytes] = {
    "length and coding": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "coding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two equal lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "list of lengths": HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "negative length": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "hex length": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "length with _": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "empty length": HEAD + b"Content-Length: \r\n\r\n",
    "64-bit length": HEAD + b"Content-Length: 18446744073709551615\r\n\r\nabc",
    "huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "arabic digits": HEAD + "Content-Length: ٣\r\n\r\nabc".encode(),
    "coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked, chunked": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "gzip, chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ", chunked": HEAD + b"Transfer-Encoding: ,chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked,": HEAD + b"Transfer-Encoding: chunked,\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "quoted coding": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    "empty coding": HEAD + b"Transfer-Encoding:\r\n\r\n",
    "empty coding and length": HEAD + b"Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc",
    "coding after a fold": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "chunk in words": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk with space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "chunk without size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "huge chunk": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunk too short": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "chunk lines end in LF": CHUNKED + b"3\nabc\n0\n\n",
    "CR in chunk extension": CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "bad trailer": CHUNKED + b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
    "length in trailer": CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
    "LF only": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "LF once": b"GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "CR only": b"GET / HTTP/1.1\rHost: localhost\r\r",
    "bare CR": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "folded host": b"GET / HTTP/1.1\r\nHost: local\r\n host\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nHost: localhost\r\nfoo\r\n\r\n",
    "header without name": b"GET / HTTP/1.1\r\nHost: localhost\r\n: v\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "other host in target": b"GET http://evil.com/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "connect": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/1.1.1": b"GET / HTTP/1.1.1\r\n" + HOST + b"\r\n",
    "space in target": b"GET /x y HTTP/1.1\r\n" + HOST + b"\r\n",
    "target without /": b"GET x HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_framing_is_refused(small: Small, name: str) -> None:
    """What two servers could read in two ways is one 400 in JSON and the end of the connection."""
    data, end = await small.raw(BROKEN[name] + HIDDEN)
    assert end == "eof"
    assert data.startswith(b"HTTP/1.1 400 ") or (name == "HTTP/0.9" and data.startswith(b"HTTP/"))
    assert data.count(b"HTTP/") == 1
    assert b"application/json" in data
    assert data.endswith(b"}\n")
    assert b"aiohttp" not in data
    assert b"Server: llm-router\r\n" in data


@pytest.mark.parametrize("name", ["negative chunk", "chunk too short", "bad trailer", "huge chunk"])
@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_framing_that_breaks_late_is_refused_at_once(small: Small, name: str, pause: float) -> None:
    """A body whose framing breaks while it is being read is 400 now, not when a clock runs out."""
    connection = await small.open()
    await connection.send(CHUNKED + b"3\r\nabc\r\n")
    await asyncio.sleep(pause)
    await connection.send(BROKEN[name].removeprefix(CHUNKED))
    data = await connection.everything()
    assert connection.at_end == "eof"
    assert data.startswith(b"HTTP/1.1 400 ")
    assert data.count(b"HTTP/") == 1
    connection.close()


GOOD: dict[str, bytes] = {
    "length": HEAD + b"Content-Length: 3\r\n\r\nabc",
    "leading zero": HEAD + b"Content-Length: 003\r\n\r\nabc",
    "chunked": CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    "chunks": CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
    "chunk extension": CHUNKED + b"3;name=value\r\nabc\r\n0\r\n\r\n",
    "trailer": CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    "CHUNKED": HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "blank lines first": b"\r\n\r\n" + HEAD + b"Content-Length: 3\r\n\r\nabc",
    "absolute target": b"POST http://localhost/ HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc",
    "upgrade": HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    "long header": HEAD + b"X: " + b"a" * 8000 + b"\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("cut", [0, 1])
async def test_good_framing_is_read(small: Small, name: str, cut: int) -> None:
    """Every sound framing of the same body gives the same body, whole or byte by byte, twice on one connection."""
    connection = await small.open()
    for _ in range(2):
        if cut and len(GOOD[name]) < 500:
            for index in range(len(GOOD[name])):
                await connection.send(GOOD[name][index : index + 1])
                await asyncio.sleep(0)
        else:
            await connection.send(GOOD[name])
        answer = await connection.answer()
        assert answer.status == 200
        assert (answer.json()["size"], answer.json()["head"]) == (3, "abc")
    connection.close()


async def test_http_1_0(small: Small) -> None:
    """HTTP/1.0 works: without a Host, with a length, closed afterwards unless keep-alive was asked for."""
    data, end = await small.raw(b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
    assert end == "eof"
    assert b'"size": 3' in data
    connection = await small.open()
    for _ in range(2):
        await connection.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await connection.answer()).status == 200
    connection.close()


async def test_pipelining(small: Small) -> None:
    """Requests sent without waiting are answered in order."""
    one = b"".join(HEAD + b"Content-Length: %d\r\n\r\n%b" % (size, b"x" * size) for size in range(1, 60))
    connection = await small.open()
    await connection.send(one)
    assert [(await connection.answer()).json()["size"] for _ in range(1, 60)] == list(range(1, 60))
    connection.close()


async def test_expect_continue(small: Small) -> None:
    """`Expect: 100-continue` is answered before the body is sent; the answer itself follows."""
    connection = await small.open()
    await connection.send(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert await connection.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await connection.send(b"abc")
    assert (await connection.answer()).json()["size"] == 3
    connection.close()


async def test_expect_continue_is_not_said_to_what_is_refused(start: StartSmall) -> None:
    """A body that would be refused anyway (too long, foreign host) is never invited."""
    small = await start(max_body_bytes=1000)
    for head, status in ((HEAD, b"413"), (b"POST / HTTP/1.1\r\nHost: evil.com\r\n", b"403")):
        connection = await small.open()
        await connection.send(head + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        assert (await connection.receive())[9:12] == status
        connection.close()


async def test_unknown_expectations(small: Small) -> None:
    """An expectation other than 100-continue is 417 in JSON, with the code that the guide lists."""
    answer = await small.ask("POST", "/", b"abc", headers={"Expect": "miracles"})
    assert (answer.status, answer.error["code"]) == (417, "expectation_failed")


@pytest.mark.parametrize(
    ("flood", "statuses"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", (400, 431)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n", (431,)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X" * 70_000 + b": a\r\n\r\n", (431,)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: a\r\n" % i for i in range(1000)) + b"\r\n", (431,)),
        (b"GET / HTTP/1.1\r\n" + HOST + (b"X: " + b"a" * 9000 + b"\r\n") * 30, (431,)),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 4_000_000, (431,)),
        (b"\r\n" * 100_000, (431, 400)),
    ],
    ids=["target", "value", "name", "many", "large head", "endless value", "blank lines"],
)
async def test_floods_in_the_head(small: Small, flood: bytes, statuses: tuple[int, ...]) -> None:
    """Too long lines, too many headers and too large heads are 4xx, told to the client before the connection ends."""
    connection = await small.open()
    sending = asyncio.ensure_future(connection.send(flood))
    answer = await connection.answer()
    assert answer.status in statuses
    assert answer.header("connection") == "close"
    sending.cancel()  # what nobody will read any more
    await asyncio.wait([sending])
    connection.close()


def mutations(count: int) -> list[bytes]:
    """Requests with something wrong: bytes changed, left out, doubled, cut."""
    dice = random.Random(20261123)
    found = []
    for _ in range(count):
        data = bytearray(dice.choice([*GOOD.values(), *BROKEN.values()]))
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(data) or 1)
            match dice.randrange(4):
                case 0:
                    data[place : place + 1] = bytes([dice.choice(b"\r\n\t :;,\x00\x7f\xff0aZ")])
                case 1:
                    del data[place : place + dice.randint(1, 9)]
                case 2:
                    data[place:place] = data[place : place + dice.randint(1, 30)]
                case 3:
                    del data[place:]
        found.append(bytes(data))
    return found


async def test_mutated_requests_never_break_the_server(start: StartSmall, caplog: pytest.LogCaptureFixture) -> None:
    """Four hundred damaged requests bring 2xx or 4xx answers, no 5xx, no exception, no connection left behind."""
    small = await start(header_timeout=0.2)
    statuses: set[bytes] = set()
    requests = mutations(400)
    for first in range(0, 400, 100):
        for data, _ in await asyncio.gather(*(small.raw(request, 1.0) for request in requests[first : first + 100])):
            statuses.update(re.findall(rb"HTTP/\d\.\d (\d)\d\d ", data))
    assert statuses == {b"2", b"4"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    await asyncio.sleep(0.2)
    assert not [each for each in small.runner.server.connections if not each.idle]


@pytest.mark.parametrize(
    "broken",
    [
        HEAD + b"Authorization: Bearer key-in-a-line\x01\r\n\r\n",
        HEAD + b"Authorization : Bearer key-in-a-line\r\n\r\n",
        HEAD + b"X: '\0' Bearer key-in-a-line\r\n\r\n",
        HEAD + b"Content-Length: key-in-a-line\r\n\r\n",
        HEAD + b"X: " + b"key-in-a-line" * 5000 + b"\r\n\r\n",
        b"GET /?key=key-in-a-line\0 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://me:key-in-a-line@localhost:99999/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://[key-in-a-line/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"OPTIONS *key-in-a-line HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1 key-in-a-line\r\n" + HOST + b"\r\n",
        CHUNKED + b"key-in-a-line\r\n",
    ],
)
async def test_nothing_of_a_malformed_request_is_logged(
    small: Small, caplog: pytest.LogCaptureFixture, broken: bytes
) -> None:
    """Not at the level debug either: the line that the parser stumbles over may hold a key, or words of a prompt."""
    caplog.set_level(logging.DEBUG)
    assert (await small.raw(broken))[0].startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert "key-in-a-line" not in caplog.text
    told = [record.getMessage() for record in caplog.records if "malformed" in record.getMessage()]
    assert all("\n" not in line for line in told)
