"""The answer side of the HTTP machine, without any socket."""

from __future__ import annotations

import gc
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.proxy.attempt import _ALLOWED_HEADERS
from llm_router.proxy.upstream.errors import ConnectionLost, ProtocolError
from llm_router.proxy.upstream.http1 import (
    IDLE_SECONDS,
    MAX_INTERIM_HEADS,
    MAX_OVERHEAD_BYTES,
    UNREAD,
    ResponseReader,
    idle_seconds,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# name: (what is sent, whether it is closed then, status, body, whether the connection may be kept)
ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello", False, 200, b"hello", True),
    "empty": (b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n", False, 429, b"", True),
    "chunked": (CHUNKED + b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n", False, 200, b"hello world", True),
    "upper_case_sizes": (CHUNKED + b"00A\r\n0123456789\r\n0\r\n\r\n", False, 200, b"0123456789", True),
    "extensions": (CHUNKED + b'5;a=b;c="d e"\r\nhello\r\n0;last\r\n\r\n', False, 200, b"hello", True),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Empty:\r\n\r\n", False, 200, b"hello", True),
    "hints": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        *(False, 200, b"hi", True),
    ),
    "no_reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", False, 200, b"hi", True),
    "no_content": (b"HTTP/1.1 204 No Content\r\n\r\n", False, 204, b"", True),
    "not_modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False, 304, b"", True),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", False, 302, b"", True),
    # it may have been meant for the silence before the request, whose answer would be the next one's
    "timeout": (b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", False, 408, b"", False),
    "says_close": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        *(False, 200, b"hi", False),
    ),
    "until_close": (b"HTTP/1.1 200 OK\r\n\r\nhello", True, 200, b"hello", False),
    "identity": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello", True, 200, b"hello", False),
    "http10": (b"HTTP/1.0 200 OK\r\n\r\nhello", True, 200, b"hello", False),
    "http10_length": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", False, 200, b"hi", False),
    "http10_kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        *(False, 200, b"hi", False),
    ),
    "bare_line_feeds": (
        b"HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nhi",
        *(False, 200, b"hi", True),
    ),
}
BROKEN = {
    "not_http": b"<html>hello</html>",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "http2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "status": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "status_letters": b"HTTP/1.1 2OO OK\r\n\r\n",
    "two_lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "negative_length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "signed_length": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "huge_length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
    "length_and_chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_and_length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "identity_and_length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "gzip_transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked_twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "obscured_chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nhello",
    "blank_before_colon": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "nul_in_header": b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "folded_header": b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "no_colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "chunk_size": CHUNKED + b"xyz\r\nhello\r\n",
    "chunk_size_sign": CHUNKED + b"-5\r\nhello\r\n",
    "chunk_size_0x": CHUNKED + b"0x5\r\nhello\r\n",
    "chunk_size_huge": CHUNKED + b"fffffffffffffffff\r\nhello\r\n",
    "chunk_overrun": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
}


def feed(reader: ResponseReader, pieces: list[bytes], *, eof: bool = False) -> bytes:
    body = b""
    for piece in pieces:
        if reader.done:
            break
        body += reader.feed(piece)
    if eof and not reader.done:
        reader.feed_eof()
    return body


@pytest.mark.parametrize("name", ANSWERS)
def test_split_at_every_byte(name: str) -> None:
    """Wherever the network cuts an answer in two, the same status, body and verdict on reuse come out."""
    data, eof, status, body, reusable = ANSWERS[name]
    for cut in range(len(data) + 1):
        reader = ResponseReader()
        assert feed(reader, [data[:cut], data[cut:]] if 0 < cut < len(data) else [data], eof=eof) == body
        assert reader.done
        assert reader.error is None
        assert (reader.status, reader.reusable) == (status, reusable)


@pytest.mark.parametrize("name", ANSWERS)
def test_byte_by_byte(name: str) -> None:
    """A drip of single bytes is read like a flood."""
    data, eof, status, body, reusable = ANSWERS[name]
    reader = ResponseReader()
    assert feed(reader, [bytes([byte]) for byte in data], eof=eof) == body
    assert (reader.done, reader.error, reader.reusable) == (True, None, reusable)
    assert reader.status == status


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    trailer=st.booleans(),
)
def test_split_anywhere(chunks: list[bytes], cuts: list[int], trailer: bool) -> None:
    """Any body in any chunks, cut anywhere: the bytes come out as they went in."""
    framed = b"".join(b"%x;x=1\r\n%s\r\n" % (len(one), one) for one in chunks)
    data = CHUNKED + framed + b"0\r\n" + (b"X-T: 1\r\n" if trailer else b"") + b"\r\n"
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader = ResponseReader()
    body = feed(reader, [data[a:b] for a, b in itertools.pairwise(edges)])
    assert body == b"".join(chunks)
    assert (reader.done, reader.error, reader.reusable) == (True, None, True)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_http_is_a_protocol_error(name: str) -> None:
    """What is not HTTP, or ambiguous about where it ends, is refused wherever it is cut, and never reused."""
    data = BROKEN[name]
    for cut in range(1, len(data)):
        reader = ResponseReader()
        feed(reader, [data[:cut], data[cut:]])
        assert isinstance(reader.error, ProtocolError), cut
        assert reader.done
        assert not reader.reusable


def test_error_texts_do_not_quote_the_upstream() -> None:
    """A refusal may be shown to a client: it repeats nothing of what the upstream sent."""
    for data in BROKEN.values():
        reader = ResponseReader()
        feed(reader, [data.replace(b"hello", b"s3cret"), b"s3cret"])
        assert "s3cret" not in str(reader.error)
        assert "X-A" not in str(reader.error)


def test_body_before_the_break_is_delivered() -> None:
    """Bytes that were well framed are given out before the error behind them is told."""
    reader = ResponseReader()
    assert reader.feed(CHUNKED + b"5\r\nhello\r\nzz\r\n") == b"hello"
    assert isinstance(reader.error, ProtocolError)


@pytest.mark.parametrize("cut", [0, 10, len(CHUNKED), len(CHUNKED) + 5])
@pytest.mark.parametrize("how", ["feed_eof", "lost"])
def test_cut_says_how_far_it_came(cut: int, how: str) -> None:
    """A connection that ends early is lost, and the error says whether anything, and any body, was seen."""
    reader = ResponseReader()
    if cut:
        reader.feed((CHUNKED + b"5\r\nhello\r\n")[:cut])
    getattr(reader, how)()
    assert isinstance(reader.error, ConnectionLost)
    assert (reader.error.started, reader.error.body) == (cut > 0, cut > len(CHUNKED))
    assert not reader.reusable


def test_reset_does_not_end_a_body_without_a_length() -> None:
    """Only an orderly close ends such a body; a reset in it is a cut."""
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhello")
    reader.lost()
    assert isinstance(reader.error, ConnectionLost)


@pytest.mark.parametrize("rest", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"x", b"H", b"0\r\n\r\n"])
@pytest.mark.parametrize("name", ["length", "chunked", "no_content", "says_close", "http10_length"])
def test_bytes_behind_the_end_forbid_reuse(name: str, rest: bytes) -> None:
    """An answer with more behind it is whole, but a second request must never read the rest as its answer."""
    data, _, status, body, _ = ANSWERS[name]
    reader = ResponseReader()
    assert feed(reader, [data + rest]) == body
    assert (reader.done, reader.error, reader.reusable) == (True, None, False)
    assert reader.status == status


def test_headers_are_lower_case_and_joined() -> None:
    """Names come in lower case, repeated ones joined, blanks around values gone, empty values kept."""
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nRetry-After:  7 \t\r\nX-A: a\r\nx-a: b\r\nEmpty:\r\nX-N: \xe9\r\n\r\n")
    assert reader.headers == {"retry-after": "7", "x-a": "a, b", "empty": "", "x-n": "é"}


def test_headers_for_browsers_and_caches_are_left_out() -> None:
    """What nobody here reads is not kept, however it is spelled; what the router goes by is never among it."""
    reader = ResponseReader()
    reader.feed(
        b"HTTP/1.1 200 OK\r\nDate: now\r\nSET-COOKIE: a\r\nset-cookie: b\r\nX-A: a\r\nContent-Length: 0\r\n\r\n"
    )
    assert reader.headers == {"x-a": "a", "content-length": "0"}
    framing = {"content-length", "transfer-encoding", "content-encoding", "content-type", "connection", "keep-alive"}
    assert UNREAD.isdisjoint(framing | {"retry-after", "retry-after-ms", "x-should-retry"})
    assert UNREAD.isdisjoint(_ALLOWED_HEADERS)
    assert all(name == name.lower() for name in UNREAD)


def test_interim_headers_are_not_the_answers() -> None:
    """What a 103 says stays with the 103."""
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert "link" not in reader.headers


def test_interim_flood_is_bounded() -> None:
    """Interim answers may come, but not for ever."""
    reader = ResponseReader()
    feed(reader, [b"HTTP/1.1 102 Processing\r\n\r\n"] * (MAX_INTERIM_HEADS + 1))
    assert isinstance(reader.error, ProtocolError)


@pytest.mark.parametrize("step", [1000, 65536, 10**6])
def test_head_of_60_kb_is_read(step: int) -> None:
    """A provider's header of 60 KB is survived."""
    data = b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n"
    reader = ResponseReader()
    feed(reader, [data[at : at + step] for at in range(0, len(data), step)])
    assert reader.error is None
    assert len(reader.headers["x-big"]) == 60_000


@pytest.mark.parametrize("step", [1000, 65536, 10**6])
@pytest.mark.parametrize("line", [b"X-Big: " + b"a" * 300_000 + b"\r\n", b"X: a\r\n" * 50_000])
def test_head_beyond_256_kb_is_refused(line: bytes, step: int) -> None:
    """A head without end is cut off, in one line or in many, in one read or in many."""
    data = b"HTTP/1.1 200 OK\r\n" + line + b"Content-Length: 0\r\n\r\n"
    reader = ResponseReader()
    feed(reader, [data[at : at + step] for at in range(0, len(data), step)])
    assert isinstance(reader.error, ProtocolError)


@pytest.mark.parametrize(
    "tail", [b"0\r\nX: " + b"a" * 300_000, b"0\r\n" + b"X: a\r\n" * 50_000, b"5;" + b"x" * 300_000]
)
def test_framing_without_content_is_bounded(tail: bytes) -> None:
    """Trailers and chunk extensions carry nothing for us and may not go on for ever."""
    reader = ResponseReader()
    feed(reader, [CHUNKED, *(tail[at : at + 1000] for at in range(0, len(tail), 1000))])
    assert isinstance(reader.error, ProtocolError)


def test_overhead_between_pieces_of_body_does_not_add_up() -> None:
    """The bound is on framing without content: a long stream with an extension on every chunk is fine."""
    reader = ResponseReader()
    reader.feed(CHUNKED)
    for _ in range(3 * MAX_OVERHEAD_BYTES // 1000):
        assert reader.feed(b"1;" + b"x" * 1000) == b""
        assert reader.feed(b"\r\na\r\n") == b"a"
    assert not reader.done


def test_pieces_of_one_read_are_joined() -> None:
    """One read gives one piece of body, however many chunks are in it."""
    reader = ResponseReader()
    reader.feed(CHUNKED)
    assert reader.feed(b"1\r\na\r\n2\r\nbc\r\n3\r\nd") == b"abcd"


REUSABLE = [name for name in ANSWERS if ANSWERS[name][4]]


@pytest.mark.parametrize("second", ANSWERS)
@pytest.mark.parametrize("first", REUSABLE)
def test_one_answer_after_another(first: str, second: str) -> None:
    """A connection's reader reads each answer as if it were the first, however they are cut."""
    reader = ResponseReader()
    once = ResponseReader()
    feed(once, [ANSWERS[second][0]], eof=ANSWERS[second][1])
    for size in (1, 7, 10**6):
        for name in (first, second):
            data, eof, status, body, reusable = ANSWERS[name]
            assert feed(reader, [data[at : at + size] for at in range(0, len(data), size)], eof=eof) == body
            assert (reader.status, reader.error, reader.reusable) == (status, None, reusable)
            if reusable:
                headers = reader.headers
                reader.again()
                assert (reader.status, reader.done, reader.started) == (0, False, False)
        assert headers == once.headers if ANSWERS[second][4] else reader.headers == once.headers
        if not ANSWERS[second][4]:
            reader = ResponseReader()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_after_a_good_one(name: str) -> None:
    """What went well before excuses nothing."""
    reader = ResponseReader()
    feed(reader, [ANSWERS["trailers"][0]])
    reader.again()
    feed(reader, [BROKEN[name]])
    assert isinstance(reader.error, ProtocolError)
    assert (reader.done, reader.reusable) == (True, False)


def test_bounds_are_for_each_answer() -> None:
    """A connection may carry any number of heads, trailers and interim answers, if no answer has too many."""
    reader = ResponseReader()
    answer = b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * MAX_INTERIM_HEADS + CHUNKED
    for _ in range(30):
        feed(reader, [answer, b"0\r\nX-Sum: " + b"a" * 20_000 + b"\r\n\r\n"])
        assert (reader.error, reader.reusable) == (None, True)
        assert reader.headers == {"transfer-encoding": "chunked"}
        reader.again()


def test_names_are_remembered_within_bounds() -> None:
    """Names nobody has heard of are understood as well, however many there are."""
    reader = ResponseReader()
    for turn in range(20):
        lines = b"".join(b"X-%d-%d: %d\r\n" % (turn, number, number) for number in range(100))
        long = b"N" * 1000
        feed(reader, [b"HTTP/1.1 200 OK\r\n" + lines + long + b": n\r\nContent-Length: 0\r\n\r\n"])
        assert reader.headers[f"x-{turn}-99"] == "99"
        assert reader.headers[long.decode().lower()] == "n"
        reader.again()


def test_retired_reader_is_freed_at_once() -> None:
    """A retired reader is freed without the garbage collector: its parser points back at it."""
    reader = ResponseReader()
    reader.feed(ANSWERS["chunked"][0])
    reader.retire()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        del reader
        assert len(gc.get_objects()) < before
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("timeout=5", 4.0), ("max=100, timeout=6", 5.0), ('timeout="5"', 4.0), ("Timeout = 0", 0.0)),
        *((value, IDLE_SECONDS) for value in ("", "max=5", "timeout=x", "xtimeout=5", "timeout=1000")),
    ],
)
def test_keep_alive_header(value: str, seconds: float) -> None:
    """What a server says about its patience shortens ours, less a margin for the way, and never prolongs it."""
    assert idle_seconds(value) == seconds
