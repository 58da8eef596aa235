"""Waiting for what must happen, for as long as a busy machine may need; what never happens fails."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 20.0  # seconds


async def until(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Waits until `condition` (also one to be awaited) gives something true, and gives that; fails where it is late."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)


async def until_still(value: Callable[[], Any], seconds: float, patience: float = PATIENCE) -> Any:
    """Waits until `value` has been the same for so many seconds, and gives it."""
    deadline = time.monotonic() + patience
    seen, since = value(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, f"it is still changing: {seen!r}"
        await asyncio.sleep(0.05)
        if (now := value()) != seen:
            seen, since = now, time.monotonic()
    return seen
