"""Compressed bodies: undone in bounded pieces, refused when corrupt."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.proxy.upstream.coding import PIECE_BYTES, Inflater, inflater_for
from llm_router.proxy.upstream.errors import ProtocolError
from tests.proxy.upstream.peers import raw_deflate

TEXT = b"data: hello\n\n" * 50


SQUEEZED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT),
    "GZIP": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "deflate ": raw_deflate(TEXT),
}


def inflater(coding: str) -> Inflater:
    made = inflater_for(coding)
    assert made is not None
    return made


def drain(one: Inflater) -> bytes:
    out = b""
    while piece := one.take():
        assert len(piece) <= PIECE_BYTES
        out += piece
    return out


@pytest.mark.parametrize("coding", [None, "", "identity", " Identity "])
def test_no_coding_needs_no_inflater(coding: str | None) -> None:
    """An uncompressed body takes no detour."""
    assert inflater_for(coding) is None


@pytest.mark.parametrize("coding", SQUEEZED)
def test_split_at_every_byte(coding: str) -> None:
    """Wherever compressed bytes are cut, the text comes out whole; deflate with and without zlib's header."""
    data = SQUEEZED[coding]
    for cut in range(len(data) + 1):
        one = inflater(coding)
        out = b""
        for piece in (data[:cut], data[cut:]):
            if piece:
                one.feed(piece)
                out += drain(one)
        one.end()
        assert out == TEXT


@given(texts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), step=st.integers(1, 50))
def test_members_one_after_another(texts: list[bytes], step: int) -> None:
    """A gzip body may have several members."""
    data = b"".join(gzip.compress(text) for text in texts)
    one = inflater("gzip")
    out = b""
    for at in range(0, len(data), step):
        one.feed(data[at : at + step])
        out += drain(one)
    one.end()
    assert out == b"".join(texts)


def test_flushed_events_come_out_at_once() -> None:
    """A server that flushes its compressor after each event is not held up."""
    squeeze = zlib.compressobj(wbits=31)
    one = inflater("gzip")
    for number in range(20):
        event = b"data: %d\n\n" % number
        one.feed(squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH))
        assert drain(one) == event


def test_bomb_comes_in_bounded_pieces_and_memory() -> None:
    """A small body that inflates to 200 MB is handed out in small pieces; nothing is inflated ahead."""
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(200)) + squeeze.flush()
    one = inflater("gzip")
    tracemalloc.start()
    try:
        one.feed(bomb)
        total = 0
        while piece := one.take():
            assert len(piece) <= PIECE_BYTES
            total += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 200 << 20
    assert peak < 2 << 20


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("data", [b"not compressed", b"\x1f\x8b\x08\x00garbage!!!!!!!!!!!!!!!", b"\xff" * 20])
def test_corrupt_is_a_protocol_error(coding: str, data: bytes) -> None:
    """What does not inflate is an error, not silence."""
    one = inflater(coding)
    one.feed(data)
    with pytest.raises(ProtocolError):  # noqa: PT012 - where it is noticed is the decompressor's business
        drain(one)
        one.end()


def test_flipped_byte_is_noticed() -> None:
    """gzip's checksum is checked."""
    data = bytearray(SQUEEZED["gzip"])
    data[-6] ^= 0xFF
    one = inflater("gzip")
    one.feed(bytes(data))
    with pytest.raises(ProtocolError):
        drain(one)


@pytest.mark.parametrize("coding", SQUEEZED)
def test_cut_is_noticed_at_the_end(coding: str) -> None:
    """A compressed body that stops early is not taken for a whole one."""
    data = SQUEEZED[coding]
    for cut in range(1, len(data)):
        one = inflater(coding)
        one.feed(data[:cut])
        drain(one)
        with pytest.raises(ProtocolError):
            one.end()


def test_bytes_behind_deflate_are_an_error() -> None:
    """Only gzip has members."""
    one = inflater("deflate")
    one.feed(zlib.compress(b"hello") + b"x")
    with pytest.raises(ProtocolError):
        drain(one)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "gzip, gzip", "compress"])
def test_unknown_codings_are_refused(coding: str) -> None:
    """A coding that nobody asked for and we cannot undo is an error as soon as there is a body."""
    one = inflater(coding)
    one.feed(b"x")
    with pytest.raises(ProtocolError):
        one.take()


@pytest.mark.parametrize("coding", ["br", "gzip"])
def test_empty_body_needs_no_decoder(coding: str) -> None:
    """An empty body may be labelled with anything."""
    one = inflater(coding)
    assert one.take() == b""
    one.end()
