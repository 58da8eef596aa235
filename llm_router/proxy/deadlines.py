"""Deadlines of tasks with one timer for all: a timer of its own for each request costs more than the request's plan."""

from __future__ import annotations

import asyncio
from functools import cached_property
from types import TracebackType
from typing import Any, Self


class Deadlines:
    """The running deadlines. The timer is set for the earliest that was ever due; it looks again when it fires."""

    def __init__(self) -> None:
        self.running: dict[Deadline, None] = {}
        self.due = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Deadlines running={len(self.running)}>"

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all of this runs on. To ask for the running one costs a system call each time."""
        return asyncio.get_running_loop()

    def within(self, seconds: float) -> Deadline:
        """A context that raises TimeoutError in the current task after `seconds`, as `asyncio.timeout` does."""
        return Deadline(self, seconds)

    def arm(self, due: float) -> None:
        """Sees to it that somebody looks at `due`."""
        if self._timer is not None:
            self._timer.cancel()
        self.due = due
        self._timer = self.loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self.due = float("inf")
        now = self.loop.time()
        for deadline in [deadline for deadline in self.running if deadline.at <= now]:
            del self.running[deadline]
            deadline.expire()
        if self.running:
            self.arm(min(deadline.at for deadline in self.running))


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
        everyone = self._all
        loop = everyone.loop
        task = asyncio.current_task(loop)
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self.at = at = loop.time() + self._seconds
        everyone.running[self] = None
        if at < everyone.due:
            everyone.arm(at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._expired:
            del self._all.running[self]
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            # Nobody else wanted the task to end.
            raise TimeoutError from error
