"""What a pause of the whole process does to the clocks that ran meanwhile."""

from __future__ import annotations

import asyncio

from llm_router.pauses import GRACE_SECONDS, LATE_SECONDS, Pauses
from llm_router.proxy.deadlines import Deadlines
from llm_router.proxy.relay import End
from llm_router.proxy.sweep import IdleSweep
from tests.proxy.relaying import TEXT, Client, make


def test_a_late_timer_gives_everybody_a_moment() -> None:
    """One that is as late as timers of a busy loop are does not."""
    pauses = Pauses()
    assert pauses.judge_from(10.0, 10.0) <= 10.0
    assert pauses.judge_from(10.0, 10.0 + LATE_SECONDS) <= 10.0
    assert pauses.judge_from(10.0, 70.0) == 70.0 + GRACE_SECONDS
    assert pauses.judge_from(71.0, 71.0) == 70.0 + GRACE_SECONDS


def test_a_loop_that_is_always_late_judges_all_the_same() -> None:
    """An overload is no pause: most of the time its clocks count, or no silence would ever have an end."""
    pauses = Pauses()
    judged = [now >= pauses.judge_from(now - 3.0, now) for now in map(float, range(100, 1000, 4))]
    assert not judged[0]
    assert judged.count(True) > 0.8 * len(judged)


async def test_a_deadline_that_passed_in_a_pause_waits_for_what_came() -> None:
    """Tasks that were due get a moment to read what is there, and end then; the others keep their time."""
    deadlines = Deadlines()
    loop = deadlines.loop

    async def wait(seconds: float) -> None:
        with deadlines.within(seconds):
            await asyncio.sleep(600)

    tasks = [asyncio.ensure_future(wait(seconds)) for seconds in (3600.0, 7200.0)]
    await asyncio.sleep(0)
    assert deadlines._timer is not None
    deadlines._timer.cancel()
    deadlines._next -= 3600.0 + 60.0  # it was due a minute ago
    deadlines._running[tasks[0]] -= 3600.0 + 60.0
    later = deadlines._running[tasks[1]]
    deadlines._fire()
    assert loop.time() + GRACE_SECONDS - 1.0 < deadlines._running[tasks[0]] <= loop.time() + GRACE_SECONDS
    assert deadlines._running[tasks[1]] == later
    await asyncio.sleep(0)
    assert not tasks[0].done()
    deadlines._pauses._judge_from -= GRACE_SECONDS + 1.0
    deadlines._running[tasks[0]] = deadlines._next = loop.time()
    deadlines._fire()
    assert isinstance((await asyncio.gather(tasks[0], return_exceptions=True))[0], TimeoutError)
    tasks[1].cancel()


async def test_a_stream_that_fell_silent_in_a_pause_is_looked_at_later() -> None:
    """Its provider may have sent all the while; where it did not, the stream is cut after all."""
    sweep = IdleSweep()
    relay, response = make()
    relay.body_received(TEXT)
    relay.open(Client())
    loop = asyncio.get_running_loop()
    response.last_read = loop.time() - 2 * relay.idle
    sweep.watch(relay)
    assert sweep._timer is not None
    sweep._timer.cancel()
    sweep._timer = loop.call_at(loop.time() - 60.0, lambda: None)  # the pause
    sweep._sweep()
    assert relay.end is None
    sweep._sweep()
    assert relay.end is None
    sweep._pauses._judge_from -= GRACE_SECONDS + 1.0
    sweep._sweep()
    assert relay.end is End.CUT
    sweep.forget(relay)
