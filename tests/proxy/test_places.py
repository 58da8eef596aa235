"""The queue of a full provider: in turn, under a limit that may change, and nobody's place is lost."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from llm_router.proxy.places import Places


async def turns() -> None:
    """Whatever can happen by now has happened."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_in_turn_and_never_more_than_allowed() -> None:
    """Who comes first is let in first; who leaves the queue is passed over."""
    places = Places(1)
    inside: list[int] = []

    async def come(number: int) -> None:
        await places.acquire()
        inside.append(number)

    waiting = [asyncio.ensure_future(come(number)) for number in range(4)]
    await turns()
    assert inside == [0]
    waiting[1].cancel()
    await turns()
    for expected in ([0, 2], [0, 2, 3]):
        places.release()
        await turns()
        assert inside == expected
    places.release()
    assert repr(places) == "<Places 0 of 1 taken, 0 waiting>"


async def test_a_place_given_to_who_has_left_goes_to_the_next() -> None:
    """It may be given and left in the same moment."""
    places = Places(1)
    await places.acquire()
    first, second = asyncio.ensure_future(places.acquire()), asyncio.ensure_future(places.acquire())
    await turns()
    places.release()
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.done()
    assert await second


async def test_a_limit_that_changes_counts_those_who_are_inside() -> None:
    """A larger one lets in more at once; under a smaller one all must leave who are too many."""
    places = Places(2)
    tasks = [asyncio.ensure_future(places.acquire()) for _ in range(5)]
    await turns()
    assert [task.done() for task in tasks] == [True, True, False, False, False]
    places.resize(3)
    await turns()
    assert [task.done() for task in tasks] == [True, True, True, False, False]
    places.resize(1)
    for _ in range(2):
        places.release()
        await turns()
        assert not tasks[3].done()
    places.release()
    await turns()
    assert [task.done() for task in tasks] == [True, True, True, True, False]
    tasks[4].cancel()
    await turns()


@given(st.lists(st.tuples(st.sampled_from(["come", "leave", "end", "resize"]), st.integers(0, 7)), max_size=40))
def test_no_place_is_lost(steps: list[tuple[str, int]]) -> None:
    """Whatever the order in which requests come, leave, end and the limit changes, all places are free at the end."""

    async def play() -> None:
        places = Places(2)
        tasks: list[asyncio.Task[bool]] = []
        for number, (step, which) in enumerate(steps):
            if step == "come":
                tasks.append(asyncio.ensure_future(places.acquire()))
            elif step == "leave" and tasks:
                tasks[which % len(tasks)].cancel()
            elif step == "end" and any(inside := [task for task in tasks if task.done() and not task.cancelled()]):
                tasks.remove(inside[0])
                places.release()
            elif step == "resize":
                places.resize(1 + which % 3)
            if number % 3:
                await turns()
        places.resize(len(tasks) + 1)
        await turns()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
                places.release()
        assert "Places 0 of" in repr(places)
        assert "0 waiting" in repr(places)

    asyncio.run(play())
