"""Pauses of the whole process: it was stopped, its container frozen, or the machine slept and the clock went on.

What came meanwhile waits to be read, and a loop may look at its timers first. So nobody is judged at once then.
"""

from __future__ import annotations

from typing import Final

# A timer that is so late was not merely kept waiting by a busy loop.
LATE_SECONDS: Final = 1.0
# Time to read what waits, and for a machine that woke up to find its network again.
GRACE_SECONDS: Final = 5.0


def judge_from(due: float, now: float) -> float:
    """When clocks that ran meanwhile count again, for a timer that was `due` and fires `now`: at once, usually."""
    return now + GRACE_SECONDS if now - due > LATE_SECONDS else now
