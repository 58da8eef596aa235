"""What a request costs in Python function calls: a figure that does not depend on the machine or its neighbours."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench import pipeline

# A little above what was measured; who needs more calls for every request should know that, and say why.
MOST_CALLS = 90
MOST_CALLS_A_CHUNK = 3


async def _calls(folder: Path, *, stream: bool) -> int:
    router = pipeline.make(folder, stream=stream)
    try:
        return await pipeline.python_calls(router, pipeline.request_body(stream=stream))
    finally:
        await asyncio.to_thread(router.bookkeeper.close, 5.0)


async def test_a_request_costs_a_bounded_number_of_calls(tmp_path: Path) -> None:
    """From the parsed bytes of a plain request to its booking."""
    assert await _calls(tmp_path, stream=False) <= MOST_CALLS


async def test_a_chunk_costs_a_bounded_number_of_calls(tmp_path: Path) -> None:
    """Each read of a stream after the commit point costs a handful of calls, all else being counted above."""
    calls = await _calls(tmp_path, stream=True)
    assert calls <= MOST_CALLS + MOST_CALLS_A_CHUNK * len(pipeline.STREAM)
