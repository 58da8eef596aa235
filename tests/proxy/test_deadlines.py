"""Deadlines of tasks that share one timer."""

from __future__ import annotations

import asyncio

import pytest

from llm_router.proxy.deadlines import Deadlines
from tests.support.waiting import PATIENCE

FOREVER = 600.0


async def _waits(deadlines: Deadlines, seconds: float) -> bool:
    """Waits for ever within `seconds`; whether these were over. Raises CancelledError where somebody else ended it."""
    task = deadlines.start(seconds)
    try:
        await asyncio.sleep(FOREVER)
    except asyncio.CancelledError:
        if deadlines.stop(task):
            return True
        raise
    raise AssertionError("nobody ended it")


async def test_a_task_is_ended_when_its_time_is_over() -> None:
    """And goes on afterwards as if nobody had wanted it to end."""
    deadlines = Deadlines()
    assert await _waits(deadlines, 0.01)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await _waits(deadlines, 0.01)


async def test_what_is_done_in_time_is_left_alone() -> None:
    """Neither at once nor when the time would have been over."""
    deadlines = Deadlines()
    assert not deadlines.stop(deadlines.start(0.01))
    assert await _waits(deadlines, 0.05)  # the timer has fired in between


async def test_a_shorter_time_is_over_before_a_longer_one() -> None:
    """Whichever was started first; and the longer one is not forgotten when the timer has fired."""
    deadlines = Deadlines()
    longer = asyncio.ensure_future(_waits(deadlines, FOREVER))
    await asyncio.sleep(0)
    assert await _waits(deadlines, 0.01)
    assert not longer.done()
    deadlines._running[longer] = 0.0  # time passes
    assert await _waits(deadlines, 0.01)
    assert await longer


async def test_a_longer_time_does_not_put_off_a_shorter_one() -> None:
    """The timer stays at what is due first, whoever comes later."""
    deadlines = Deadlines()
    shorter = asyncio.ensure_future(_waits(deadlines, 0.05))
    await asyncio.sleep(0)
    longer = deadlines.start(FOREVER)
    async with asyncio.timeout(PATIENCE):
        assert await shorter
    assert not deadlines.stop(longer)


async def test_who_is_ended_by_somebody_else_is_not_late() -> None:
    """A client that leaves ends its request, however much time there was."""
    task = asyncio.ensure_future(_waits(Deadlines(), FOREVER))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_late_and_ended_by_somebody_else_ends() -> None:
    """Both in one turn of the loop: the time that is over must not hide that nobody waits any more."""
    deadlines = Deadlines()
    task = asyncio.ensure_future(_waits(deadlines, FOREVER))
    await asyncio.sleep(0)
    deadlines._fire()  # too early: nothing happens
    assert not task.cancelling()
    deadlines._running[task] = 0.0
    deadlines._fire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_context_ends_as_a_timeout() -> None:
    """Also within a longer one of others, which goes on."""
    outer, inner = Deadlines(), Deadlines()
    with outer.within(FOREVER):
        with pytest.raises(TimeoutError), inner.within(0.01):
            await asyncio.sleep(FOREVER)
        await asyncio.sleep(0)
    assert repr(outer) == repr(inner) == "<Deadlines running=0>"


async def test_two_deadlines_that_are_over_at_once_end_both() -> None:
    """The inner one leaves the word to the outer one."""
    outer, inner = Deadlines(), Deadlines()

    async def wait() -> None:
        with outer.within(FOREVER):
            try:
                with inner.within(FOREVER):
                    await asyncio.sleep(FOREVER)
            except TimeoutError:
                raise AssertionError("the inner one spoke") from None

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    for deadlines in (inner, outer):
        deadlines._running[task] = 0.0
        deadlines._fire()
    with pytest.raises(TimeoutError):
        await task
