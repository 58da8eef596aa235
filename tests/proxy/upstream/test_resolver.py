"""Name lookups: one per burst, remembered for a moment, nobody's cancellation but their own."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from llm_router.proxy.upstream import resolver as resolving
from llm_router.proxy.upstream.errors import ConnectFailed
from llm_router.proxy.upstream.resolver import MAX_NAMES, Resolver, is_shortage
from tests.support.waiting import PATIENCE

ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]


class Lookups:
    """Stands in for the system's resolver."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, host: str, port: int, **kind: int) -> list[Any]:
        self.asked.append(host)
        await self.answer.wait()
        if self.error is not None:
            raise self.error
        return ANSWER


@pytest.fixture
async def lookups(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    double = Lookups()

    async def look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
        return await double(host, port)

    monkeypatch.setattr("llm_router.proxy.upstream.resolver._look_up", look_up)
    return double


def start(resolver: Resolver, count: int, host: str = "a.test") -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(resolver.resolve(host, 80)) for _ in range(count)]


async def test_a_burst_costs_one_lookup(lookups: Lookups) -> None:
    """Five hundred new streams to one provider ask once, and for seconds after that nobody asks."""
    resolver = Resolver()
    asking = start(resolver, 500)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    lookups.answer.set()
    assert await asyncio.gather(*asking) == [ANSWER] * 500
    assert await resolver.resolve("a.test", 80) == ANSWER
    assert lookups.asked == ["a.test"]


async def test_forgotten_names_are_asked_again(lookups: Lookups) -> None:
    """An address that led nowhere is not believed again."""
    lookups.answer.set()
    resolver = Resolver()
    await resolver.resolve("a.test", 80)
    resolver.forget("a.test", 80)
    await resolver.resolve("a.test", 80)
    assert lookups.asked == ["a.test"] * 2


@pytest.fixture
async def stale(lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """One that has known a name for so long that it has to ask again; the nameserver is silent from now on."""
    monkeypatch.setattr(resolving, "TTL_SECONDS", 0.0)
    monkeypatch.setattr(resolving, "PATIENCE_SECONDS", 0.02)
    resolver = Resolver()
    lookups.answer.set()
    await resolver.resolve("a.test", 80)
    lookups.answer.clear()
    return resolver


async def test_a_silent_nameserver_is_not_waited_for(lookups: Lookups, stale: Resolver) -> None:
    """What it said before holds meanwhile; it is asked on, once, and its answer counts when it comes."""
    assert await asyncio.gather(*start(stale, 3)) == [ANSWER] * 3
    assert await stale.resolve("a.test", 80) == ANSWER
    assert lookups.asked == ["a.test"] * 2
    lookups.answer.set()
    await asyncio.sleep(0.01)
    assert repr(stale) == "<Resolver known=1 asking=0>"


async def test_a_nameserver_that_fails_is_forgiven(lookups: Lookups, stale: Resolver) -> None:
    """Its old answer holds for an hour, unless the name is no more, or the address has led nowhere since."""
    lookups.answer.set()
    lookups.error = socket.gaierror(socket.EAI_AGAIN, "try again")
    assert await stale.resolve("a.test", 80) == ANSWER
    lookups.error = socket.gaierror(socket.EAI_NONAME, "no such name")
    with pytest.raises(ConnectFailed):
        await stale.resolve("a.test", 80)
    lookups.error = socket.gaierror(socket.EAI_AGAIN, "try again")
    stale.forget("a.test", 80)
    with pytest.raises(ConnectFailed):
        await stale.resolve("a.test", 80)


async def test_an_answer_of_long_ago_is_not_believed(
    lookups: Lookups, stale: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a failure is one."""
    monkeypatch.setattr(resolving, "STALE_SECONDS", -1.0)
    lookups.answer.set()
    lookups.error = socket.gaierror(socket.EAI_AGAIN, "try again")
    with pytest.raises(ConnectFailed):
        await stale.resolve("a.test", 80)


async def test_the_preferred_address_goes_first(lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once and after the next lookup; not once it has led nowhere, and not where the name no longer has it."""
    three = [(*ANSWER[0][:4], (f"127.0.0.{number}", 80)) for number in (1, 2, 3)]
    lookups.answer.set()
    resolver = Resolver()

    async def order() -> list[str]:
        return [one[4][0][-1] for one in await resolver.resolve("a.test", 80)]

    monkeypatch.setattr("tests.proxy.upstream.test_resolver.ANSWER", three)
    assert await order() == ["1", "2", "3"]
    resolver.prefer("a.test", 80, "127.0.0.2")
    assert await order() == ["2", "1", "3"]
    monkeypatch.setattr(resolving, "TTL_SECONDS", 0.0)
    resolver._known.clear()
    assert await order() == ["2", "1", "3"]
    monkeypatch.setattr("tests.proxy.upstream.test_resolver.ANSWER", three[2:])
    assert await order() == ["3"]
    monkeypatch.setattr("tests.proxy.upstream.test_resolver.ANSWER", three)
    resolver.forget("a.test", 80)
    assert await order() == ["1", "2", "3"]


async def test_preferences_are_bounded(lookups: Lookups) -> None:
    """Many names do not pile up here either."""
    resolver = Resolver()
    for number in range(2 * MAX_NAMES):
        resolver.prefer(f"{number}.test", 80, "127.0.0.1")
    assert len(resolver._best) <= MAX_NAMES


async def test_who_asked_first_may_leave(lookups: Lookups) -> None:
    """Cancelling one of those who wait leaves the others their answer."""
    resolver = Resolver()
    first, second = start(resolver, 2)
    await asyncio.sleep(0.01)
    first.cancel()
    lookups.answer.set()
    assert await second == ANSWER
    assert first.cancelled()


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
async def test_failure_is_typed_and_not_remembered(lookups: Lookups, error: Exception) -> None:
    """A name that cannot be resolved is a failed connection; the next request asks again."""
    lookups.error = error
    lookups.answer.set()
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(ConnectFailed) as caught:
            await resolver.resolve("a.test", 80)
        assert "a.test" not in str(caught.value)
    assert len(lookups.asked) == 2


async def test_failure_that_nobody_waits_for_is_quiet(lookups: Lookups) -> None:
    """A lookup that outlives everybody who asked leaves no complaint behind."""
    lookups.error = socket.gaierror(-2, "unknown")
    resolver = Resolver()
    (only,) = start(resolver, 1)
    await asyncio.sleep(0.01)
    only.cancel()
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    lookups.answer.set()
    await asyncio.sleep(0.01)
    assert problems == []
    assert repr(resolver) == "<Resolver known=0 asking=0>"


async def test_memory_is_bounded(lookups: Lookups) -> None:
    """Many names do not pile up."""
    lookups.answer.set()
    resolver = Resolver()
    for number in range(2 * MAX_NAMES):
        await resolver.resolve(f"{number}.test", 80)
    assert int(repr(resolver).split("known=")[1].split()[0]) <= MAX_NAMES


async def test_close_gives_up(lookups: Lookups) -> None:
    """Closing cancels the lookups under way."""
    resolver = Resolver()
    (only,) = start(resolver, 1)
    await asyncio.sleep(0.01)
    resolver.close()
    with pytest.raises(ConnectFailed):
        await only


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_literals_need_no_lookup(lookups: Lookups, host: str, family: Callable[..., Any]) -> None:
    """An address is its own answer."""
    (answer,) = await Resolver().resolve(host, 80)
    assert answer[0] == family
    assert answer[4][0] == host
    assert lookups.asked == []


async def test_the_systems_resolver_knows_localhost() -> None:
    """Against the real resolver: a name has addresses."""
    assert await Resolver().resolve("localhost", 80)


async def test_all_can_be_forgotten(lookups: Lookups) -> None:
    """After a sleep every name is asked for again."""
    resolver = Resolver()
    lookups.answer.set()
    await resolver.resolve("a.test", 80)
    resolver.forget_all()
    await resolver.resolve("a.test", 80)
    assert lookups.asked == ["a.test", "a.test"]


async def test_silent_nameservers_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dozens of names that the system waits for leave a thread for the next one."""
    answer = threading.Event()

    def ask(host: str, *about: Any, **kind: Any) -> list[Any]:
        if host != "here.test":
            assert answer.wait(PATIENCE)
        return ANSWER

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    resolver = Resolver()
    waiting = [asyncio.ensure_future(resolver.resolve(f"{number}.silent.test", 80)) for number in range(40)]
    await asyncio.sleep(0.1)
    assert await resolver.resolve("here.test", 80) == ANSWER
    assert not any(one.done() for one in waiting)
    answer.set()
    assert await asyncio.gather(*waiting) == [ANSWER] * 40


async def test_a_lookup_may_outlive_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says after the client was closed troubles nobody."""
    answer, answered = threading.Event(), threading.Event()

    def ask(*about: Any, **kind: Any) -> list[Any]:
        assert answer.wait(PATIENCE)
        answered.set()
        return ANSWER

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    resolver = Resolver()
    (only,) = start(resolver, 1)
    await asyncio.sleep(0.01)
    resolver.close()
    with pytest.raises(ConnectFailed):
        await only
    answer.set()
    assert await asyncio.to_thread(answered.wait, PATIENCE)
    await asyncio.sleep(0.05)
    assert problems == []


@pytest.mark.parametrize(
    ("error", "family", "is_ours"),
    [
        (OSError(errno.EMFILE, "Too many open files"), socket.AF_INET6, True),
        (OSError(errno.EADDRNOTAVAIL, "all ports are in use"), socket.AF_INET, True),
        (OSError(errno.EADDRNOTAVAIL, "there is no IPv6"), socket.AF_INET6, False),
        (OSError(errno.ECONNREFUSED, "Connection refused"), socket.AF_INET, False),
        (socket.gaierror(errno.ENOMEM, "a number of another kind"), socket.AF_INET, False),
        (RuntimeError("closed"), socket.AF_INET, False),
    ],
)
def test_what_this_machine_is_short_of(error: Exception, family: socket.AddressFamily, is_ours: bool) -> None:
    """Descriptors, memory and ports that are used up are no provider's fault; that there is no IPv6 is no shortage."""
    assert is_shortage(error, [(family, socket.SOCK_STREAM, 6, "", ("", 80))]) is is_ours
