"""Cutting and reading server-sent events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire.sse import (
    EventSplitter,
    EventTooLarge,
    iter_events,
    last_event_end,
    lone_data,
    raw_events,
    unfinished_event,
)

STREAMS = [
    b'data: {"a":1}\n\ndata: [DONE]\n\n',
    b'data: {"a":1}\r\n\r\ndata: [DONE]\r\n\r\n',
    b'data: {"a":1}\r\rdata: [DONE]\r\r',
    b": ping\n\nevent: x\ndata: 1\ndata: 2\n\nid: 7\n\n",
    b"\xef\xbb\xbfdata: \xf0\x9f\x99\x82\n\ndata: caf\xc3\xa9\r\n\n",
]


@pytest.mark.parametrize("stream", STREAMS)
def test_split_anywhere_gives_the_same_bytes_and_whole_events(stream: bytes) -> None:
    """Wherever a stream is cut in two, the pieces handed out join to the stream and each ends with a blank line."""
    for cut in range(len(stream) + 1):
        splitter = EventSplitter()
        pieces = [splitter.feed(stream[:cut]), splitter.feed(stream[cut:])]
        assert b"".join(pieces) + splitter.rest() == stream
        assert all(not piece or last_event_end(piece) == len(piece) for piece in pieces)


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\r\n\n", b"\n\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_an_event_leaves_whole_with_its_last_byte(blank: bytes, size: int) -> None:
    """Neither later nor without the end of its blank line, which clients may insist on, however it dripped in."""
    splitter, event = EventSplitter(), b"data: x" + blank
    for _ in range(2):
        out = [splitter.feed(event[at : at + size]) for at in range(0, len(event), size)]
        assert b"".join(out) == out[-1] == event


@given(st.lists(st.sampled_from([b"data: x", b"\n", b"\r", b"\r\n", b": c", b"\n\n", b"a"]), max_size=30), st.data())
def test_any_drip_equals_the_whole(parts: list[bytes], data: st.DataObject) -> None:
    """However a stream of line ends drips in, no byte is lost, moved or added."""
    stream = b"".join(parts)
    splitter, out, position = EventSplitter(), [], 0
    while position < len(stream):
        size = data.draw(st.integers(1, 5))
        out.append(splitter.feed(stream[position : position + size]))
        position += size
    assert b"".join(out) + splitter.rest() == stream


def test_an_endless_line_is_refused() -> None:
    """An event without an end is cut at the limit, and what came of it is not kept."""
    splitter = EventSplitter(limit=100)
    for piece in (b"data: ", b"x" * 50, b"x" * 44):
        assert splitter.feed(piece) == b""
    with pytest.raises(EventTooLarge):
        splitter.feed(b"x")
    assert splitter.rest() == b""


def test_events_are_read_as_the_standard_says() -> None:
    """Multi-line data joins with LF, one leading space goes, comments and unknown fields are skipped."""
    block = b":c\n\ndata:a\ndata:  b\nfoo: z\n\nevent: e\r\ndata: 1\r\n\r\nevent: only\r\rdata: last"
    assert [(event.name, event.data) for event in iter_events(block)] == [
        (b"", b"a\n b"),
        (b"e", b"1"),
        (b"only", None),
        (b"", b"last"),
    ]


def test_a_line_separator_inside_a_string_is_no_line_end() -> None:
    """U+2028 and U+0085 occur raw inside JSON strings and end nothing."""
    payload = '{"t":"a\u2028b\x85c\x0b"}'.encode()
    assert [event.data for event in iter_events(b"data: " + payload + b"\n\n")] == [payload]


@pytest.mark.parametrize("stream", STREAMS)
def test_raw_events_join_to_the_block(stream: bytes) -> None:
    """Cutting a block into raw events loses nothing, and a CRLF is one line end."""
    pieces = raw_events(stream)
    assert b"".join(pieces) == stream
    assert raw_events(b"data: a\r\ndata: b\r\n\r\n") == [b"data: a\r\ndata: b\r\n\r\n"]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r", b"\r\n", b"\n\r", b"\r\n\r"])
@pytest.mark.parametrize(
    ("event", "half"),
    [(b'data: {"a":1}', b'data: {"a":1'), (b"data: [DONE]", b"data: [DONE"), (b"data: [DONE] ", b"data: [DON")],
)
def test_an_event_without_its_blank_line_gets_one(event: bytes, half: bytes, ending: bytes) -> None:
    """One blank line of the same kind, whatever of it came; half an event is nothing."""
    whole = unfinished_event(event + ending)
    assert whole.startswith(event + ending)
    assert raw_events(whole + b"x") == [whole, b"x"]
    assert unfinished_event(half + ending) == b""


@pytest.mark.parametrize(
    ("block", "data"),
    [
        (b'data: {"a":1}\n\n', b'{"a":1}'),
        (b"data: \n\n", b""),
        (b"data: 1\ndata: 2\n\n", None),
        (b"data: 1\revent: error\n\n", None),
        (b"data: 1\n\r\n\n", None),
        (b"data: 1\n", None),
        (b"data:1\n\n", None),
        (b"event: x\n\n", None),
        (b": ping\n\n", None),
    ],
)
def test_one_line_is_known_for_what_it_is(block: bytes, data: bytes | None) -> None:
    """The short way reads an event of one line alone; whatever else a block may be is left to the long one."""
    assert lone_data(block) == data
    if data is not None:
        assert [event.data for event in iter_events(block)] == [data]
