"""The sweep: one timer that watches the idle clocks of all relays."""

from __future__ import annotations

import asyncio

import pytest

from llm_router.proxy.relay import End, Relay
from llm_router.proxy.sweep import IdleSweep
from tests.proxy.relaying import TEXT, Client, make


async def test_a_sweep_with_nothing_left_to_watch_is_the_last() -> None:
    """An idle router has no timer that wakes it."""
    sweep = IdleSweep()
    relay, _ = make()
    sweep.watch(relay)
    assert sweep._timer is not None
    sweep._timer.cancel()
    sweep.forget(relay)
    sweep._sweep()
    assert sweep._timer is None


async def test_the_sweep_watches_and_forgets() -> None:
    """One timer for all relays, none when nothing runs."""
    sweep = IdleSweep()
    relay, _ = make()
    sweep.watch(relay)
    assert len(sweep) == 1
    sweep.forget(relay)
    assert len(sweep) == 0


async def test_the_sweep_notices_silence_in_time() -> None:
    """A stream that is read is left alone; one that falls silent is cut soon after its idle time, at most 2 % late."""
    sweep = IdleSweep()
    relay, response = make()
    relay.body_received(TEXT)
    relay.open(Client())
    sweep.watch(relay)
    ticks = iter(range(10**6))
    for tick in ticks:
        response.last_read = tick / 100
        sweep.look(tick / 100)
        if tick == 2000:  # four times the idle time
            break
    assert relay.end is None
    for tick in ticks:
        sweep.look(tick / 100)
        if relay.end is not None:
            break
    assert 25.0 < tick / 100 <= 25.1 + 0.01
    assert relay.end is End.CUT
    sweep.forget(relay)


async def test_a_relay_that_stumbles_stops_no_other_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while one stream is looked at, the others are looked at again."""
    sweep = IdleSweep()
    relay, response = make()
    relay.body_received(TEXT)
    relay.open(Client())
    sweep.watch(relay)
    response.last_read = -(10**9)
    with monkeypatch.context() as patch:
        patch.setattr(Relay, "check_idle", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sweep._sweep()
    assert sweep._timer is not None
    assert not sweep._timer.cancelled()
    assert sweep._timer.when() > asyncio.get_running_loop().time()
    sweep._timer.cancel()
