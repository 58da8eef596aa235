"""The supervisor's patience with processes that die."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time

import pytest

from llm_router.server.limits import ONE_WISH_S
from llm_router.server.supervisor import HURRY, Events, Post, Supervisor
from llm_router.server.systemd import Notifier

KILLED = signal.SIGKILL  # as a wait status


@pytest.fixture
def post() -> Post:
    """A process that died a moment ago, having been ready."""
    return Post("worker 1", lambda line: 0, pid=os.getpid(), is_ready=True)


@pytest.fixture
def supervisor(post: Post) -> Supervisor:
    """One that has nothing but that process."""
    return Supervisor([post], Notifier(None), Events(bool, bool, bool, float))


def bury(supervisor: Supervisor, post: Post, at: float, *, lived: float, ready: bool = True) -> float:
    """How long it waits before it starts the process again."""
    post.pid, post.started, post.is_ready = 1, at - lived, ready
    supervisor._bury(post, KILLED, at)
    return round(post.start_at - at, 6)


def test_who_dies_again_and_again_is_started_ever_later(supervisor: Supervisor, post: Post) -> None:
    """At once after the first death; then after twice as long each time, five seconds at the most."""
    waits = [bury(supervisor, post, at, lived=1.0) for at in range(100, 109)]
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert not supervisor._stop


def test_who_lived_for_a_while_starts_at_once(supervisor: Supervisor, post: Post) -> None:
    """What went wrong long ago does not delay a process that ran well since."""
    for at in (100.0, 101.0, 102.0):
        bury(supervisor, post, at, lived=1.0)
    assert bury(supervisor, post, 200.0, lived=60.0) == 0.0
    assert bury(supervisor, post, 201.0, lived=1.0) == 0.1


def test_who_is_never_ready_is_given_up(supervisor: Supervisor, post: Post) -> None:
    """Five times in a row without being ready once is a fault that no start mends; being ready starts the row anew."""
    deaths = [False] * 4 + [True] + [False] * 4
    for at, ready in enumerate(deaths):
        bury(supervisor, post, float(at), lived=0.1, ready=ready)
    assert not supervisor._stop
    bury(supervisor, post, 100.0, lived=0.1, ready=False)
    assert (supervisor._stop, supervisor._code) == (True, 1)


def test_one_wish_may_come_as_two_signals(supervisor: Supervisor, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes at once with the first signal is that one, told on another way; a later one is haste."""
    line, worker = socket.socketpair()
    told, wakened = socket.socketpair()
    post.line, post.pid = line, 0
    worker.setblocking(False)
    hasty = []
    for moment in (100.0, 100.0 + ONE_WISH_S / 2, 100.1 + ONE_WISH_S):
        monkeypatch.setattr(time, "monotonic", lambda at=moment: at)
        told.send(bytes([signal.SIGTERM]))
        supervisor._take_signals(wakened)
        with contextlib.suppress(BlockingIOError):
            hasty.append((moment, worker.recv(10)))
    assert hasty == [(100.1 + ONE_WISH_S, HURRY)]
    for end in (line, worker, told, wakened):
        end.close()


# Python 3.12 and newer warn of threads, which a supervisor has none of; other tests may have left some in this process.
@pytest.mark.filterwarnings(r"ignore:.* is multi-threaded, use of fork\(\):DeprecationWarning")
@pytest.mark.parametrize("what", ["fork", "socketpair"])
def test_a_process_for_which_there_is_no_room_is_started_later(
    supervisor: Supervisor, post: Post, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Where the system has neither processes nor files to spare the others run on, and it is tried again."""

    def refuse() -> None:
        raise BlockingIOError(errno.EAGAIN, "no room")

    post.pid = 0
    with monkeypatch.context() as patch:
        patch.setattr(*{"fork": (os, "fork"), "socketpair": (socket, "socketpair")}[what], refuse)
        waits = []
        for at in (100.0, 101.0, 102.0):
            supervisor._start(post, at)
            waits.append(round(post.start_at - at, 6))
    assert (post.pid, post.line, waits) == (0, None, [0.0, 0.1, 0.2])
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM, signal.SIGCHLD}
    supervisor._start(post, 103.0)
    assert os.waitpid(post.pid, 0) == (post.pid, 0)
    supervisor._hang_up(post)
