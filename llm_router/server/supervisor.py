"""The supervisor: starts processes, starts those again that die, passes signals on, and ends them in order.

It is a plain loop without threads or event loop, so that a fork of it is a clean start at any time: a process that
died is back in some tens of milliseconds, since nothing has to be imported again. It alone speaks to the service
manager. Each process has a line to it (a socket pair): on it come `R` (ready), `L` (a reload is done) and `.` (my
event loop turns). A process whose line ends knows that the supervisor is gone; what is said to it means haste.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from llm_router import exits
from llm_router.server.limits import ONE_WISH_S
from llm_router.server.systemd import Notifier

log = logging.getLogger("llm_router")

HURRY: Final = b"!"
_TICK: Final = 1.0
_STILLBORN_MOST: Final = 5
_STEADY_AFTER: Final = 10.0
_BACK_OFF, _BACK_OFF_MOST = 0.1, 5.0
_RELOAD_PATIENCE: Final = 10.0
_STARTING_PATIENCE: Final = 30.0
# Beyond the drain: background work, and what is left for the books.
_AFTER_DRAIN: Final = 12.0
_LAST_ENDS: Final = 15.0
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(slots=True, eq=False)
class Post:
    """One process that shall run. `work` is its whole life, in the fork: given its line, it gives the exit code.

    Posts that `stay` are ended last, after all others, by the end of their line; the others by SIGTERM.
    """

    name: str
    work: Callable[[socket.socket], int]
    stays: bool = False
    pid: int = 0
    line: socket.socket | None = None
    started: float = 0.0
    heard: float = 0.0
    is_ready: bool = False
    reloading: bool = False
    start_at: float = 0.0
    failures: int = 0
    stillborn: int = 0


@dataclass(slots=True)
class Events:
    """What the owner of a supervisor wants to hear: all are ready, a second has passed, no new requests from now on."""

    ready: Callable[[], object]
    tick: Callable[[], object]
    draining: Callable[[], object]
    drain_timeout: Callable[[], float]


@dataclass(slots=True)
class Supervisor:
    """Keeps `posts` filled until a signal says stop."""

    posts: Sequence[Post]
    notifier: Notifier
    events: Events
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _ready: bool = False
    _stop: bool = False
    _draining: bool = False
    _one_wish_until: float = 0.0
    _kill_at: float = float("inf")
    _reload_until: float = 0.0
    _tick_at: float = 0.0
    _feed_at: float = 0.0
    _code: int = exits.OK

    def run(self) -> int:
        """Until all processes have ended; the exit code."""
        gc.collect()
        gc.freeze()
        waker, wakened = socket.socketpair()
        for end in (waker, wakened):
            end.setblocking(False)
        self._selector.register(wakened, selectors.EVENT_READ, None)
        former = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in _PASSED_ON}
        try:
            while self._turn():
                for key, _ in self._selector.select(self._seconds()):
                    if key.data is None:
                        self._take_signals(wakened)
                    else:
                        self._hear(key.data)
        finally:
            signal.set_wakeup_fd(former)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for end in (waker, wakened):
                end.close()
            self._selector.close()
        log.info("stopped")
        return self._code

    def _turn(self) -> bool:
        """Does what is due; False once nothing runs any more."""
        now = time.monotonic()
        self._reap(now)
        if self._stop:
            return self._go_down(now)
        for post in self.posts:
            if not post.pid and now >= post.start_at:
                self._start(post, now)
        if now >= self._tick_at:
            self._tick_at = now + _TICK
            self.events.tick()
            self._look_for_hung(now)
        self._look_for_reloaded(now)
        self._feed(now)
        return True

    def _seconds(self) -> float:
        now = time.monotonic()
        due = [now + _TICK, self._kill_at]
        if self.notifier.watchdog_s is not None:
            due.append(self._feed_at)
        due += [post.start_at for post in self.posts if not post.pid and not self._stop]
        return max(0.0, min(due) - now)

    # --- processes --------------------------------------------------------------------------------------------------

    def _start(self, post: Post, now: float) -> None:
        """A new process at its post; where the system has no room for one, that is tried again later."""
        try:
            pid, line = self._fork(post)
        except OSError as error:
            post.failures += 1
            delay = _delay(post)
            post.start_at = now + delay
            log.error("%s cannot be started (%s): tried again in %.1f s", post.name, error, delay)
            return
        line.setblocking(False)
        post.pid, post.line, post.is_ready, post.reloading = pid, line, False, False
        post.started = post.heard = now
        self._selector.register(line, selectors.EVENT_READ, post)

    def _fork(self, post: Post) -> tuple[int, socket.socket]:
        """The new process's id, and our end of its line. Raises OSError."""
        ours, theirs = socket.socketpair()
        for stream in (sys.stderr, sys.stdout):
            # A log on a full disk: whoever died is started again all the same.
            with contextlib.suppress(OSError):
                stream.flush()
        # A signal between fork and the child's own handlers would reach the parent's.
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(post, ours, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
            theirs.close()
        return pid, ours

    def _become(self, post: Post, ours: socket.socket, theirs: socket.socket) -> None:
        """The child: never returns."""
        code = exits.FAILED
        try:
            signal.set_wakeup_fd(-1)
            for number in _PASSED_ON:
                signal.signal(number, signal.SIG_DFL)
            # A reload before it listens to signals is one that it need not be told of.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
            ours.close()
            for other in self.posts:
                if other.line is not None:
                    other.line.close()
            self._selector.close()
            with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
                comm.write(f"llm-router: {post.name}"[:15])
            code = post.work(theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self, now: float) -> None:
        for post in self.posts:
            if not post.pid:
                continue
            pid, status = os.waitpid(post.pid, os.WNOHANG)
            if pid:
                self._bury(post, status, now)

    def _bury(self, post: Post, status: int, now: float) -> None:
        self._hang_up(post)
        pid, lived, was_ready = post.pid, now - post.started, post.is_ready
        post.pid, post.is_ready, post.reloading = 0, False, False
        if self._stop:
            post.start_at = now + _BACK_OFF_MOST / 10
            return
        how = _how_it_ended(status)
        post.stillborn = 0 if was_ready else post.stillborn + 1
        post.failures = 1 if lived > _STEADY_AFTER else post.failures + 1
        if post.stillborn >= _STILLBORN_MOST:
            log.critical(
                "%s (last one %s) ended %d times before it was ready: giving up", post.name, how, _STILLBORN_MOST
            )
            self._begin_to_stop(exits.FAILED)
            return
        delay = _delay(post)
        post.start_at = now + delay
        log.error("%s (process %d) ended (%s); another one starts in %.1f s", post.name, pid, how, delay)

    def _hang_up(self, post: Post) -> None:
        if post.line is not None:
            self._selector.unregister(post.line)
            post.line.close()
            post.line = None

    def _look_for_hung(self, now: float) -> None:
        """What the service manager would do to us, we do to a process whose event loop stands still."""
        limit = self.notifier.watchdog_s
        if limit is None:
            return
        for post in self.posts:
            patience = 2 * limit if post.is_ready else max(2 * limit, _STARTING_PATIENCE)
            if post.pid and now - post.heard > patience:
                log.error(
                    "%s (process %d) has not been heard of for %.0f s: it is ended", post.name, post.pid, patience
                )
                os.kill(post.pid, signal.SIGKILL)

    def _feed(self, now: float) -> None:
        interval = self.notifier.watchdog_s
        if interval is not None and now >= self._feed_at:
            self._feed_at = now + interval
            self.notifier.feed_watchdog()

    def _hear(self, post: Post) -> None:
        try:
            words = post.line.recv(4096) if post.line is not None else b""
        except OSError:
            return
        if not words:
            self._hang_up(post)
            return
        post.heard = time.monotonic()
        if b"R" in words and not post.is_ready:
            post.is_ready = True
            log.info("%s is ready (process %d)", post.name, post.pid)
        if b"L" in words:
            post.reloading = False
        if not self._ready and all(other.is_ready for other in self.posts):
            self._ready = True
            self.notifier.ready()
            self.events.ready()

    # --- signals ----------------------------------------------------------------------------------------------------

    def _take_signals(self, wakened: socket.socket) -> None:
        numbers = set(wakened.recv(4096))
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            now = time.monotonic()
            if not self._stop:
                self._one_wish_until = now + ONE_WISH_S
                self._begin_to_stop(exits.OK)
            elif now > self._one_wish_until:
                self._hurry()
        elif signal.SIGHUP in numbers and not self._stop:
            self.notifier.reloading()
            self._reload_until = time.monotonic() + _RELOAD_PATIENCE
            for post in self.posts:
                if post.pid and post.is_ready and not post.stays:
                    post.reloading = True
                    os.kill(post.pid, signal.SIGHUP)

    def _look_for_reloaded(self, now: float) -> None:
        if self._reload_until and (now > self._reload_until or not any(post.reloading for post in self.posts)):
            self._reload_until = 0.0
            self.notifier.ready()

    def _begin_to_stop(self, code: int) -> None:
        if self._stop:
            return
        self._stop, self._code = True, code
        log.info("stopping; what still runs has %g s at most", self.events.drain_timeout())
        self.notifier.stopping()
        self.events.draining()
        self._kill_at = time.monotonic() + self.events.drain_timeout() + _AFTER_DRAIN
        for post in self.posts:
            if post.pid and not post.stays:
                os.kill(post.pid, signal.SIGTERM)

    def _hurry(self) -> None:
        """Told again to stop: those that drain are to wait no longer."""
        if self._draining:
            return
        self._kill_at = min(self._kill_at, time.monotonic() + _AFTER_DRAIN)
        for post in self.posts:
            if post.line is not None and not post.stays:
                with contextlib.suppress(OSError):
                    post.line.send(HURRY)

    def _go_down(self, now: float) -> bool:
        self._feed(now)
        running = [post for post in self.posts if post.pid]
        leaving = [post for post in running if not post.stays]
        for post in self.posts if leaving else ():
            if post.stays and not post.pid and now >= post.start_at:
                self._start(post, now)
        if not leaving and not self._draining:
            # Those that stay see the end of their line, finish what the others left them, and go.
            self._draining = True
            self._kill_at = now + _LAST_ENDS
            for post in running:
                if post.line is not None:
                    post.line.shutdown(socket.SHUT_WR)
        if now >= self._kill_at:
            self._kill_at = now + _LAST_ENDS
            for post in leaving or running:
                log.error("%s (process %d) did not end in time: it is killed", post.name, post.pid)
                os.kill(post.pid, signal.SIGKILL)
        return bool(running)


def _delay(post: Post) -> float:
    """How long to wait before a process is started again that failed so many times."""
    return 0.0 if post.failures == 1 else min(_BACK_OFF * 2 ** min(post.failures - 2, 10), _BACK_OFF_MOST)


def _how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
