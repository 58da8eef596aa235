"""Deadlines of tasks with one timer for all: a timer of its own for each request costs more than the request's plan."""

from __future__ import annotations

import asyncio
from math import inf
from types import TracebackType
from typing import Any

from llm_router.pauses import Pauses


class Deadlines:
    """The running deadlines, at most one a task. The timer is set for the earliest that was ever due; it looks again
    when it fires.

    `start` and `stop` are for the one place that every request passes, `within` is for all others. Made inside a
    running event loop, which it keeps: to ask for it costs a system call each time.
    """

    __slots__ = ("_next", "_pauses", "_running", "_timer", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[Any], float] = {}
        self._next = inf
        self._pauses = Pauses()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Deadlines running={len(self._running)}>"

    def within(self, seconds: float) -> Within:
        """A context that raises TimeoutError in the current task after `seconds`, as `asyncio.timeout` does."""
        return Within(self, seconds)

    def start(self, seconds: float) -> asyncio.Task[Any]:
        """Cancels the current task after `seconds`. Whoever starts it stops it, with the task that this gives."""
        loop = self.loop
        task = asyncio.current_task(loop)
        assert task is not None
        due = loop.time() + seconds
        self._running[task] = due
        if due < self._next:
            self._arm(due)
        return task

    def stop(self, task: asyncio.Task[Any]) -> bool:
        """Whether the time was over, and nobody else wants the task to end: then its CancelledError goes no further."""
        if task in self._running:
            del self._running[task]
            return False
        return task.uncancel() == 0

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = due
        self._timer = self.loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self.loop.time()
        grace = self._pauses.judge_from(self._next, now)
        self._next = inf
        if grace > now:
            self._running = {task: max(due, grace) for task, due in self._running.items()}
        for task in [task for task, due in self._running.items() if due <= now]:
            del self._running[task]
            task.cancel()
        if self._running:
            self._arm(min(self._running.values()))


class Within:
    """One deadline as a context."""

    __slots__ = ("_deadlines", "_seconds", "_task")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds

    def __enter__(self) -> None:
        self._task = self._deadlines.start(self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._deadlines.stop(self._task) and kind is asyncio.CancelledError:
            raise TimeoutError from error
