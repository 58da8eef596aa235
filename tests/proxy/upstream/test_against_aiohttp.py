"""aiohttp's client as the referee: the same raw answers, the same status and body, or both refuse."""

from __future__ import annotations

import gzip
import zlib

import aiohttp
import pytest

from llm_router.proxy.upstream import UpstreamClient, UpstreamError
from tests.proxy.upstream.peers import Peer, Serve, Server, chunk, raw_deflate

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TEXT = b'data: {"a": "b"}\n\n' * 200
SSE = b"".join(chunk(b"data: %d\n\n" % number) for number in range(50))


def sized(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = b"".join(line + b"\r\n" for line in headers)
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), lines, body)


# Each answer is followed by a FIN.
ANSWERS = {
    "length": sized(b"hello"),
    "empty": sized(b""),
    "large": sized(TEXT * 300),
    "status_429": sized(b"{}", b"Retry-After: 7", status=b"429 Too Many Requests"),
    "status_529": sized(b"{}", status=b"529 Overloaded"),
    "status_999": sized(b"{}", status=b"999 Odd"),
    "status_204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "status_304_with_length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "redirect": sized(b"there", b"Location: /x", status=b"302 Found"),
    "no_reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
    "chunked": CHUNKED + SSE + b"0\r\n\r\n",
    "chunked_one": CHUNKED + chunk(b"hello") + b"0\r\n\r\n",
    "chunk_extensions": CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n',
    "chunk_size_blank": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "chunk_size_zeros": CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n",
    "trailers": CHUNKED + chunk(b"hello") + b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"hello"),
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + sized(b"hello"),
    "http10": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "http10_length": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "http10_chunked": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"hello") + b"0\r\n\r\n",
    "until_close": OK + b"\r\nhello",
    "until_close_empty": OK + b"\r\n",
    "until_close_large": OK + b"Connection: close\r\n\r\n" + TEXT * 300,
    "bare_line_feeds": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "head_4_kb": sized(b"hello", b"X-Big: " + b"a" * 4000),
    "many_headers": sized(b"hello", *(b"X-%d: 1" % number for number in range(100))),
    "repeated_headers": sized(b"hello", b"Vary: a", b"Vary: b"),
    "upper_case_names": OK + b"CONTENT-LENGTH: 5\r\n\r\nhello",
    "gzip": sized(gzip.compress(TEXT), b"Content-Encoding: gzip"),
    "x_gzip": sized(gzip.compress(TEXT, mtime=0), b"Content-Encoding: x-gzip"),
    "gzip_chunked": OK
    + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(chunk(bytes([byte])) for byte in gzip.compress(TEXT))
    + b"0\r\n\r\n",
    "gzip_until_close": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(TEXT),
    "gzip_members": sized(gzip.compress(TEXT) + gzip.compress(b"more"), b"Content-Encoding: gzip"),
    "gzip_empty_body": sized(b"", b"Content-Encoding: gzip"),
    "gzip_corrupt": sized(gzip.compress(TEXT)[:20] + bytes(20), b"Content-Encoding: gzip"),
    "gzip_not_at_all": sized(b"hello", b"Content-Encoding: gzip"),
    "gzip_cut": sized(gzip.compress(TEXT)[:-4], b"Content-Encoding: gzip"),
    "deflate": sized(zlib.compress(TEXT), b"Content-Encoding: deflate"),
    "deflate_raw": sized(raw_deflate(TEXT), b"Content-Encoding: deflate"),
    "surplus": sized(b"hello") + b"more",
    "second_answer": sized(b"hello") + sized(b"evil"),
    "nothing": b"",
    "cut_head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut_length": OK + b"Content-Length: 9\r\n\r\nhello",
    "cut_chunk": CHUNKED + b"9\r\nhello",
    "cut_between_chunks": CHUNKED + chunk(b"hello"),
    "cut_last_chunk": CHUNKED + chunk(b"hello") + b"0\r\n",
    "bad_chunk_size": CHUNKED + chunk(b"hello") + b"xyz\r\n",
    "negative_chunk": CHUNKED + b"-1\r\nhello\r\n0\r\n\r\n",
    "chunk_overrun": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "html": b"<html>hello</html>",
    "other_protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "http2": b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "status_letters": b"HTTP/1.1 2OO OK\r\nContent-Length: 5\r\n\r\nhello",
    "two_lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "same_length_twice": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "negative_length": OK + b"Content-Length: -5\r\n\r\nhello",
    "length_and_chunked": OK
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(b"hello")
    + b"0\r\n\r\n",
    "blank_before_colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "nul_in_header": sized(b"hello", b"X-A: a\x00b"),
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    # Where we differ on purpose, see below.
    "head_60_kb": sized(b"hello", b"X-Big: " + b"a" * 60_000),
    "folded_header": sized(b"hello", b"X-A: a\r\n b"),
    "control_in_header": sized(b"hello", b"X-A: a\x01b"),
    "unknown_transfer_coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunk(b"hello") + b"0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhello",
    "unknown_coding": sized(b"hello", b"Content-Encoding: aes"),
}

Outcome = tuple[int, bytes] | str
REFUSED = "refused"


async def ours(server: Server) -> Outcome:
    client = UpstreamClient()
    try:
        response = await client.send(server.call(), connect_timeout=30)
        return response.status, await response.read(10**7)
    except UpstreamError:
        return REFUSED
    finally:
        await client.close()


async def theirs(server: Server) -> Outcome:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        try:
            async with session.post(server.url(), data=b"{}", allow_redirects=False) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, ValueError):
            return REFUSED


# name: (what we make of it, what aiohttp does, why)
HELLO: Outcome = (200, b"hello")
DIFFERENCES: dict[str, tuple[Outcome, Outcome, str]] = {
    "head_60_kb": (HELLO, REFUSED, "a provider's header of 60 KB must be survived; aiohttp stops at 8 KB"),
    "surplus": (HELLO, REFUSED, "the answer was whole; what is behind it only forbids to reuse the connection"),
    "gzip_corrupt": (REFUSED, (200, b""), "a damaged answer must not look complete"),
    "gzip_cut": (REFUSED, (200, TEXT), "a cut answer must not look complete"),
    "x_gzip": ((200, TEXT), (200, gzip.compress(TEXT, mtime=0)), "the old name of gzip; a client cannot read it raw"),
    "unknown_coding": (REFUSED, HELLO, "bytes that nobody can read are no answer"),
    "unknown_transfer_coding": (REFUSED, HELLO, "a coding that is not undone would reach the client as garbage"),
    "switching": (REFUSED, (101, b""), "nobody asked for another protocol"),
    "http2": (REFUSED, HELLO, "HTTP/2 is binary: who claims it in text is not to be trusted with framing"),
    "blank_before_colon": (REFUSED, HELLO, "the classic of smuggling; no provider does it"),
    "folded_header": (REFUSED, HELLO, "obsolete, and another smuggling vehicle"),
    "control_in_header": (REFUSED, HELLO, "no header of ours can carry it on"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_same_as_aiohttp(serve: Serve, name: str) -> None:
    """What aiohttp makes of an answer is what we make of it, but for the differences that are listed with a reason."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ANSWERS[name])

    server = await serve(script)
    found = await ours(server), await theirs(server)
    if name in DIFFERENCES:
        assert found == DIFFERENCES[name][:2]
    else:
        assert found[0] == found[1]
