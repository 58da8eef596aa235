"""The dispatcher's housekeeping, without upstreams."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from typing import Any, cast

import pytest

from llm_router import shipped
from llm_router.accounting.booking import Booking
from llm_router.config.loading import load
from llm_router.errors import Failure, FailureKind
from llm_router.proxy.attempt import WonWhole
from llm_router.proxy.dispatch import Router
from llm_router.proxy.exchange import Caller
from llm_router.proxy.parts import Memory
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.breaker import Circuits
from llm_router.routing.classify import Roster
from llm_router.routing.plan import Candidate
from llm_router.routing.turns import Turns
from llm_router.wire.chat import parse_chat
from tests.support.waiting import PATIENCE


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


def make_router(**parts: Any) -> Router:
    """A router of the given parts, which does without all others."""
    snapshot = load({"HOME": "/home/u"}, {}, None, "router_config.json")
    memory = Memory(Circuits(snapshot.breaker))
    usual: dict[str, Any] = {"bookkeeper": None, "metrics": None, "config_file": None, "memory": memory}
    return Router(
        snapshot,
        shipped_prices=shipped.prices(),
        brain=shipped.brain(),
        upstream=UpstreamClient(),
        **usual | parts,
    )


async def test_circuits_are_saved_one_after_the_other_and_to_the_last() -> None:
    """On a slow disk what happens while they are being saved is saved next: no save meets another one in the file."""
    file = SlowFile()
    router = make_router(circuit_file=file)

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


class Books:
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.bookings: list[Booking] = []
        self.submit = self.bookings.append

    def enter(self, *about: Any, **more: Any) -> int:
        """Gives the one ticket."""
        return 1


@pytest.mark.parametrize(("place", "status"), [("win", 500), ("send_whole", 200)])
async def test_a_fault_of_ours_is_booked_as_one(place: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record has the status that the client is sent: 500, or that of the answer which had begun."""
    books = Books()
    router = make_router(bookkeeper=books)
    won = WonWhole(b"{}", False, None, {})
    won.candidate = Candidate("openai/a", router.snapshot.providers["openai"], "a", None, ())
    won.committed_at = 1.0

    class Faulty:
        async def win(self) -> WonWhole:
            if place == "win":
                raise ZeroDivisionError
            return won

        def send_whole(self, *what: Any, **how: Any) -> None:
            raise ZeroDivisionError

    monkeypatch.setattr(router, "_contest", lambda *_: Faulty())
    chat = parse_chat(b'{"model": "router", "messages": [{"role": "user", "content": "hello"}]}')
    with pytest.raises(ZeroDivisionError):
        await router.answer(chat, Caller("id"), cast(Any, Faulty()))
    (booking,) = books.bookings
    assert (booking.outcome, booking.status, booking.failure) == ("failed", status, "internal")
    assert router.in_flight == 0


async def test_categories_that_were_changed_are_let_go_of() -> None:
    """At once, without the collector: each set of them is large, and who is classified with one does not keep it."""
    router = make_router(bookkeeper=Books())
    gc.collect()
    gc.disable()
    try:
        before = {id(known) for known in gc.get_objects() if isinstance(known, Roster)} - {id(router.live.roster)}
        for turn in range(3):
            creative = {"creative": {"models": ["openai/m"], "keywords": [f"story {turn}"]}}
            file = json.dumps({"custom_categories": creative}).encode()
            router.apply(load({"HOME": "/home/u"}, {}, file, "router_config.json"))
            assert router.live.classify(Turns(f"tell me story {turn}")).category == "creative"
        rosters = [known for known in gc.get_objects() if isinstance(known, Roster) and id(known) not in before]
    finally:
        gc.enable()
    assert rosters == [router.live.roster]
