"""Background work that nobody awaits: kept alive, counted, and finished before the process ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from llm_router.errors import ApiError

log = logging.getLogger("llm_router")


class Tasks:
    """Tracked tasks. A task started here is not reached by the cancellation of the handler that started it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Tasks running={len(self._running)}>"

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Runs `work`; its failure is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name or None)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    def begin(self, work: Coroutine[Any, Any, Any], name: str = "") -> None:
        """As `start`, for work that nobody will wait for."""
        _ = self.start(work, name)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ApiError):
            if error.status >= 500:  # below is the client's mistake, and the client is told
                log.error("%s failed: %s", task.get_name(), error.message)
        elif error is not None:
            log.error("background task %s failed: %r", task.get_name(), error)

    async def drain(self, seconds: float) -> None:
        """Waits up to `seconds` for what is running, then cancels the rest."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        for task in tuple(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=1)
