"""Deadlines of tasks with one timer for all: a timer of its own for each request costs more than the request's plan."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self


class Deadlines:
    """The running deadlines. The timer is set for the earliest that was ever due; it looks again when it fires."""

    def __init__(self) -> None:
        self._running: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<Deadlines running={len(self._running)}>"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all of this runs on. To ask for the running one costs a system call each time."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def within(self, seconds: float) -> Deadline:
        """A context that raises TimeoutError in the current task after `seconds`, as `asyncio.timeout` does."""
        return Deadline(self, seconds)

    def add(self, deadline: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        """From now on until `remove`."""
        self._running[deadline] = None
        if deadline.at < self._due:
            self._arm(deadline.at, loop)

    def remove(self, deadline: Deadline) -> None:
        """It was met, or has passed."""
        self._running.pop(deadline, None)

    def _arm(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = loop.call_at(due, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._due = float("inf")
        now = loop.time()
        for deadline in [deadline for deadline in self._running if deadline.at <= now]:
            del self._running[deadline]
            deadline.expire()
        if self._running:
            self._arm(min(deadline.at for deadline in self._running), loop)


class Deadline:
    """One deadline of one task."""

    __slots__ = ("_all", "_cancelling", "_expired", "_seconds", "_task", "at")

    def __init__(self, everyone: Deadlines, seconds: float) -> None:
        self._all = everyone
        self._seconds = seconds
        self._expired = False
        self.at = 0.0

    def expire(self) -> None:
        """The time is over."""
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> Self:
        loop = self._all.loop
        task = asyncio.current_task(loop)
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self.at = loop.time() + self._seconds
        self._all.add(self, loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._expired:
            self._all.remove(self)
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            # Nobody else wanted the task to end.
            raise TimeoutError from error
