"""What the kernel is told and asked about peers that vanish."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from llm_router.vanished import ASK_EVERY_SECONDS, ASK_TIMES, GONE_SECONDS, QUIET_SECONDS, unheard_for, watch
from tests.support.vanishing import linux_alone, vanish

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The two ends of a connection, ours first; what it accepts has its listener's options."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        watch(listener)
        with socket.create_connection(listener.getsockname()) as theirs, listener.accept()[0] as ours:
            yield ours, theirs


@linux_alone
def test_silent_peers_are_asked_for(pair: Pair) -> None:
    """What a listener was told holds for what it accepts: NATs are kept awake within a minute, the dead are found."""
    ours, _ = pair
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    told = [ours.getsockopt(socket.IPPROTO_TCP, option) for option in options]
    assert told == [QUIET_SECONDS, ASK_EVERY_SECONDS, ASK_TIMES]
    assert QUIET_SECONDS < 30 < GONE_SECONDS == 40


@linux_alone
def test_a_peer_that_vanished_owes_an_acknowledgement(pair: Pair) -> None:
    """For as long as what was sent has gone unacknowledged, however long the silence was before."""
    ours, theirs = pair
    time.sleep(1.0)
    vanish(theirs)
    ours.send(b"x")
    began = time.monotonic()
    while not (unheard := unheard_for(ours)) and time.monotonic() - began < 20:
        time.sleep(0.01)
    assert unheard <= time.monotonic() - began + 0.1
    while unheard_for(ours) < 0.8 and time.monotonic() - began < 20:
        time.sleep(0.01)
    assert 0.5 < time.monotonic() - began < 20


@linux_alone
def test_a_peer_that_does_not_read_is_there(pair: Pair) -> None:
    """It acknowledges, and says that it has no room: who pauses an answer for a while does not lose it."""
    ours, _ = pair
    ours.setblocking(False)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        try:
            ours.send(bytes(65536))
        except BlockingIOError:
            time.sleep(0.01)
        assert unheard_for(ours) == 0


def test_a_closed_socket_owes_nothing(pair: Pair) -> None:
    """Asking comes too late now and then, and is no error; nor is telling."""
    ours, _ = pair
    ours.close()
    watch(ours)
    assert unheard_for(ours) == 0
