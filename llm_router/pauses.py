"""Pauses of the whole process: it was stopped, its container frozen, or the machine slept and the clock went on.

What came meanwhile waits to be read, and a loop may look at its timers first. So nobody is judged at once then.
"""

from __future__ import annotations

from typing import Final

# A timer that is so late was not merely kept waiting by a busy loop.
LATE_SECONDS: Final = 1.0
# Time to read what waits, and for a machine that woke up to find its network again.
GRACE_SECONDS: Final = 5.0
# A loop that is late all the time is overloaded, and its clocks must count all the same.
RARELY_SECONDS: Final = 60.0


class Pauses:
    """Tells from how late a timer fires whether the clocks that ran meanwhile may be believed."""

    __slots__ = ("_again", "_judge_from")

    def __init__(self) -> None:
        self._judge_from = self._again = 0.0

    def judge_from(self, due: float, now: float) -> float:
        """When they count again, for a timer that was `due` and fires `now`; usually that is past."""
        if now - due > LATE_SECONDS and now >= self._again:
            self._judge_from = now + GRACE_SECONDS
            self._again = now + RARELY_SECONDS
        return self._judge_from
