"""The idle clocks of all relays, watched by one coarse timer: one for each read would cost as much as passing it on."""

from __future__ import annotations

import asyncio

from llm_router.errors import Failure
from llm_router.pauses import Pauses
from llm_router.proxy.relay import Relay

SWEEP_EVERY = 0.25  # seconds
# A stream need not be looked at at every sweep: silence is noticed later by up to two such parts of the idle time.
_LATE = 1 / 100


class IdleSweep:
    """Watches the idle clocks of all running relays with one timer."""

    def __init__(self) -> None:
        self._relays: set[Relay] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pauses = Pauses()

    def __len__(self) -> int:
        return len(self._relays)

    def watch(self, relay: Relay) -> None:
        """From now on until `forget`."""
        self._relays.add(relay)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_EVERY, self._sweep)

    def forget(self, relay: Relay) -> None:
        """The relay has ended."""
        self._relays.discard(relay)

    def stop_all(self, failure: Failure) -> None:
        """Ends every answer that still runs."""
        for relay in tuple(self._relays):
            relay.stop(failure)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        assert self._timer is not None
        judge_from = self._pauses.judge_from(self._timer.when(), now)
        # First, since what is wrong with one relay must not stop the clocks of all others.
        self._timer = loop.call_later(SWEEP_EVERY, self._sweep) if self._relays else None
        if now >= judge_from:
            self.look(now)

    def look(self, now: float) -> None:
        """Ends what has been silent for too long; `now` is the loop's clock."""
        for relay in tuple(self._relays):
            if now >= relay.look_at:  # few are worth a look, and fewer a call
                relay.look_at = now + relay.idle * _LATE
                if now - relay.response.last_read > relay.idle:
                    relay.check_idle(now)
