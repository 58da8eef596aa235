"""The running process: serves a router until it is told to stop, and ends it in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from aiohttp import web

from llm_router.errors import ApiError, Failure, FailureKind
from llm_router.proxy.dispatch import Router
from llm_router.server.chat import DirectChat
from llm_router.server.limits import ONE_WISH_S, prepare_listener
from llm_router.server.opening import BACKLOG
from llm_router.server.runner import Runner, make_runner
from llm_router.server.telling import Outages, take_over

log = logging.getLogger("llm_router")

WATCH_CONFIG_EVERY = 1.0
CLOCK_STEP = 1.0  # seconds; a clock that is put right bit by bit stays below it
LAST_MOMENT = 0.2
HELPERS = 4
BOOKS_S = 5.0


class Reporter(Protocol):
    """Who is told how the process is doing: the service manager, or a supervisor."""

    @property
    def alone(self) -> bool:
        """Whether signals mean this process: a second one is then haste, and not the first one on another way."""
        ...

    def ready(self) -> None:
        """It answers; also the end of a reload."""
        ...

    def reloading(self) -> None:
        """A reload has begun."""
        ...

    def stopping(self) -> None:
        """It drains."""
        ...

    def start_watchdog(self, when_orphaned: Callable[[], object], when_hurried: Callable[[], object]) -> None:
        """From now on a loop that hangs shall be noticed.

        `when_orphaned` is called when nobody listens any more, `when_hurried` when a drain shall not be waited for.
        """
        ...

    def close(self) -> None:
        """Nothing more will be told."""
        ...


class Ending:
    """Whether this process shall end, and how soon: told once it drains, told again it waits no longer."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._patience: asyncio.Timeout | None = None
        self._one_wish_until = 0.0
        self._in_haste = False

    def __repr__(self) -> str:
        return f"<Ending asked={self._asked.is_set()} in_haste={self._in_haste}>"

    def ask(self) -> None:
        """It shall end when what runs has ended."""
        self._asked.set()

    def hurry(self) -> None:
        """It shall end now."""
        if self._in_haste:
            return
        log.warning("told again to stop: requests that still run are cut")
        self._in_haste = True
        self._asked.set()
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())

    def insist(self) -> None:
        """Asks, then hurries."""
        now = asyncio.get_running_loop().time()
        if not self._asked.is_set():
            self._one_wish_until = now + ONE_WISH_S
            self.ask()
        elif now > self._one_wish_until:
            self.hurry()

    async def asked(self) -> None:
        """Until it shall end."""
        await self._asked.wait()

    async def wait_for(self, drained: Awaitable[None], seconds: float) -> None:
        """Until `drained`, unless that takes too long or there is haste."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._in_haste else seconds) as self._patience:
                await drained
        self._patience = None


async def serve(
    router: Router,
    app: web.Application,
    listener: socket.socket,
    reporter: Reporter,
    when_ready: Callable[[], object],
    *,
    aloud: bool = True,
) -> None:
    """From the first request to the last. Of workers one is `aloud`: it logs what they all have in common."""
    runner = make_runner(app, lambda: router.snapshot, lambda: router.draining, DirectChat(router))
    await runner.setup()
    prepare_listener(listener)
    site = web.SockSite(runner, listener, backlog=BACKLOG)
    await site.start()
    ending = Ending()
    _handle_signals(router, ending, reporter, aloud)
    watching = router.tasks.start(_watch(router, aloud), "watch configuration")
    asyncio.get_running_loop().set_default_executor(hire(HELPERS))
    settle_memory()
    reporter.ready()
    reporter.start_watchdog(ending.ask, ending.hurry)
    when_ready()
    await ending.asked()
    reporter.stopping()
    if reporter.alone and router.in_flight:
        log.info("stopping; %d still running, for %g s at most", router.in_flight, router.snapshot.drain_timeout)
    elif reporter.alone:
        log.info("stopping")
    await shut_down(router, runner, site, ending, watching)
    if reporter.alone:
        log.info("stopped")
    reporter.close()


def hire(number: int) -> ThreadPoolExecutor:
    """Threads for what would hold up the loop, as many as the system grants. Raises RuntimeError where it grants none.

    They are there before the first request: a system short of them later would else fail what needs one, and the
    executor carry out at some time what was said to have failed.
    """
    pool, are_all_there = ThreadPoolExecutor(number, "helper"), threading.Event()
    try:
        for _ in range(number):
            pool.submit(are_all_there.wait)
    except RuntimeError:
        if number == 1:
            raise
        pool.shutdown(wait=False, cancel_futures=True)
        return hire(number - 1)
    finally:
        are_all_there.set()
    return pool


def settle_memory() -> None:
    """What exists now lives as long as the process: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _handle_signals(router: Router, ending: Ending, reporter: Reporter, aloud: bool) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ending.insist if reporter.alone else ending.ask)

    async def reload() -> None:
        reporter.reloading()
        with contextlib.suppress(ApiError):
            await refresh(router, aloud=aloud)
        reporter.ready()

    def start_reload() -> None:
        router.tasks.begin(reload(), "reload")

    loop.add_signal_handler(signal.SIGHUP, start_reload)


async def refresh(router: Router, *, aloud: bool = True) -> None:
    """Reads the configuration again; with several workers one of them says what came of it. Raises ApiError."""
    if aloud:
        await take_over(router, router.refresh)
    else:
        await router.refresh()


async def _watch(router: Router, aloud: bool) -> None:
    """Looks after a running router from time to time, and notices a clock that was set, or a machine that slept."""
    loop = asyncio.get_running_loop()
    ahead = router.clock() - loop.time()
    outages = Outages(router) if aloud else None
    trouble = ""
    while True:
        await asyncio.sleep(WATCH_CONFIG_EVERY)
        before, ahead = ahead, router.clock() - loop.time()
        if ahead < before - CLOCK_STEP:
            router.circuits.bound_waits(router.clock())
        elif ahead > before + CLOCK_STEP:
            router.upstream.distrust()  # the loop's own clock stands still while the machine sleeps
        before_that, trouble = trouble, ""
        try:
            await _look_after(router, outages)
        except Exception as error:
            # Whatever it was, it must not be the last look; nor need each one tell of it.
            if (trouble := repr(error)) != before_that:
                log.exception("looking after the router failed")


async def _look_after(router: Router, outages: Outages | None) -> None:
    """Lets idle upstream connections go, tells of outages, takes over a configuration file that was changed."""
    router.upstream.sweep(asyncio.get_running_loop().time())
    if outages is not None:
        outages.look()
    if await asyncio.to_thread(router.config_file.changed):
        # Other workers look by themselves: an announcement would have all of them read it once more.
        with contextlib.suppress(ApiError):
            await refresh(router, aloud=outages is not None)


_UNFINISHED_BOOKS = (
    "the ledger did not take within %g s what ended last: what it lacks is booked by the next start as interrupted"
)
# In words that agents take for a reason to ask again.
_OUT_OF_TIME = Failure(
    FailureKind.SHUTTING_DOWN, "service unavailable: the router was stopped before the answer was finished"
)


async def shut_down(
    router: Router, runner: Runner, site: web.BaseSite, ending: Ending, watching: asyncio.Task[None]
) -> None:
    """Refuses what is new, lets what runs finish within the drain timeout, and books everything."""
    router.draining = True
    runner.refuse_unfinished()
    await site.stop()
    drain, loop = router.snapshot.drain_timeout, asyncio.get_running_loop()
    deadline = loop.time() + drain
    await ending.wait_for(router.drained(drain), drain)
    if router.in_flight:
        log.warning("requests that are cut, since the time to finish is over: %d", router.in_flight)
    router.end_drain(_OUT_OF_TIME)
    # It waits for what is no chat request, or was not yet counted as one.
    await ending.wait_for(runner.cleanup(), max(0.0, deadline - loop.time()) + LAST_MOMENT)
    if runner.server is not None:
        await runner.server.shutdown(LAST_MOMENT)
    await router.upstream.close()
    watching.cancel()  # it would not end by itself
    await router.tasks.drain(5)
    if not await asyncio.to_thread(router.bookkeeper.close, BOOKS_S):
        log.error(_UNFINISHED_BOOKS, BOOKS_S)
