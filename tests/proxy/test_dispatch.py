"""The dispatcher's housekeeping, without requests."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

from llm_router.config.loading import load
from llm_router.errors import Failure, FailureKind
from llm_router.proxy.dispatch import Router
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.classify import Brain
from tests.support.waiting import PATIENCE

DATA = Path(__file__).parents[2] / "llm_router" / "data"


class SlowFile:
    """Stands in for the circuits' file; the first save takes as long as the test wants."""

    def __init__(self) -> None:
        self.saved: list[dict[str, Any]] = []
        self.running = 0
        self.most = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def save(self, dump: dict[str, Any]) -> None:
        """Notes what it is given, and how many saves there are at once."""
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        assert self.may_end.wait(PATIENCE)
        self.saved.append(dump)
        self.running -= 1


async def test_circuits_are_saved_one_after_the_other_and_to_the_last() -> None:
    """On a slow disk what happens while they are being saved is saved next: no save meets another one in the file."""
    file = SlowFile()
    prices, weights = ((DATA / name).read_bytes() for name in ("prices.json", "classifier.bin"))
    router = Router(
        load({"HOME": "/home/u"}, {}, None, "router_config.json"),
        shipped_prices=prices,
        brain=Brain.load(weights),
        upstream=UpstreamClient(),
        bookkeeper=cast(Any, None),
        metrics=cast(Any, None),
        config_file=cast(Any, None),
        circuit_file=cast(Any, file),
    )

    def fail(model: str) -> None:
        permit = router.circuits.admit(model, ("key",), 0.0)
        assert permit is not None
        router.circuits.failed(permit, Failure(FailureKind.RATE_LIMITED, "x", 429), 0.0)
        router.circuits_changed()

    fail("openai/a")
    assert await asyncio.to_thread(file.begun.wait, PATIENCE)
    fail("openai/b")
    await asyncio.sleep(0.2)  # longer than changes are gathered for
    file.may_end.set()
    await router.tasks.drain(PATIENCE)
    assert file.most == 1
    assert len(file.saved) == 2
    assert file.saved[-1] == router.circuits.dump()
    assert file.saved[0] != file.saved[-1]
