"""Background work: what fails is told once, in words that its reader can use."""

from __future__ import annotations

import asyncio

import pytest

from llm_router.errors import ApiError
from llm_router.proxy.tasks import Tasks


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (ApiError(500, "the disk is full"), ["edit failed: the disk is full"]),
        (ApiError(400, "no such model"), []),
        (ValueError("odd"), ["background task edit failed: ValueError('odd')"]),
    ],
)
async def test_a_failure_is_logged_in_words(
    error: Exception, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An error that is an answer is logged as its message, the client's own mistake not at all, all else in full."""

    async def work() -> None:
        raise error

    with pytest.raises(type(error)):
        await Tasks().start(work(), "edit")
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == logged
