"""The heads of chat answers: made once a second, and remembered within bounds."""

from __future__ import annotations

import pytest

from llm_router.server import sending
from llm_router.server.sending import Openings

TOLD = ("code", "local", "a/m", "a", "1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that is told; the test sets it."""
    now = [1_800_000_000.5]
    monkeypatch.setattr(sending, "time", lambda: now[0])
    return now


def test_a_head_has_the_time_of_its_second(clock: list[float]) -> None:
    """Within a second it is the same one; a clock that goes on, or is set back, is followed at once."""
    openings = Openings(b"Date: ")
    first = openings.now(TOLD)
    assert first.startswith(b"Date: Fri, 15 Jan 2027 08:00:00 GMT\r\nx-router-category: code\r\n")
    clock[0] += 0.49
    assert openings.now(TOLD) is first
    clock[0] += 0.01
    assert b"08:00:01" in openings.now(TOLD)
    clock[0] -= 3600
    assert b"07:00:01" in openings.now(TOLD)


def test_what_clients_name_is_not_remembered_for_ever(clock: list[float]) -> None:
    """Whoever asks for ever new models fills no memory, and each answer tells its own."""
    openings = Openings(b"Date: ")
    for number in range(3000):
        assert f"a/m{number}\r\n".encode() in openings.now((*TOLD[:2], f"a/m{number}", *TOLD[3:]))
    assert len(openings._known) <= 1024
    assert len(sending._told) <= 1024
