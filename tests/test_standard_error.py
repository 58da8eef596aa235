"""The log's way out: it waits for a reader for a while, and for none for ever."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator

import pytest

from llm_router.standard_error import PatientStream
from tests.support.waiting import PATIENCE

LINE = "x" * 99 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, PatientStream]]:
    """The reading end of a pipe, and a log that goes into it and loses patience quickly."""
    reader, writer = os.pipe()
    with open(writer, "w") as stream:
        log = PatientStream(stream, "{} are missing".format)
        log.patience = 0.05
        yield reader, log
    os.close(reader)


def read(reader: int) -> str:
    """All that is in the pipe."""
    os.set_blocking(reader, False)
    parts = []
    while True:
        try:
            parts.append(os.read(reader, 65_536))
        except BlockingIOError:
            return b"".join(parts).decode()


@pytest.mark.timeout(PATIENCE)
def test_nobody_waits_for_a_reader_that_has_stopped(pipe: tuple[int, PatientStream]) -> None:
    """What does not fit is lost in whole lines; once somebody reads, their number stands in their place."""
    reader, log = pipe
    for _ in range(4):
        log.write(LINE * 1000)
    found = read(reader)
    assert set(found.splitlines(keepends=True)) == {LINE}
    log.write("again\n")
    assert read(reader) == f"{4000 - len(found) // 100} are missing\nagain\n"
    log.write("and on\n")
    assert read(reader) == "and on\n"


@pytest.mark.parametrize("letter", ["x", "\U0001f642"])
@pytest.mark.timeout(PATIENCE)
def test_a_reader_that_is_slow_misses_nothing(pipe: tuple[int, PatientStream], letter: str) -> None:
    """Lines of any length arrive whole while somebody reads, however much is written at a time."""
    reader, log = pipe
    log.patience = PATIENCE
    text = "".join(letter * length + "\n" for length in (0, 1, 98, 4095, 4096, 20_000)) * 9
    got: list[bytes] = []

    def take() -> None:
        while sum(map(len, got)) < len(text.encode()):
            got.append(os.read(reader, 3000))

    thread = threading.Thread(target=take)
    thread.start()
    log.write(text)
    thread.join()
    assert b"".join(got).decode() == text


def test_a_reader_that_has_left_is_an_error() -> None:
    """Who writes learns that nobody ever will read it, as with any stream."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w")  # noqa: SIM115 - it cannot be closed without an error
    with pytest.raises(BrokenPipeError):
        PatientStream(stream, str).write(LINE)
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_what_is_no_file_takes_everything() -> None:
    """A stream in memory is never full."""
    stream = io.StringIO()
    PatientStream(stream, str).write(LINE * 1000)
    assert stream.getvalue() == LINE * 1000
