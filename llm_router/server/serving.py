"""The running process: serves a router until it is told to stop, and ends it in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from llm_router.errors import ApiError
from llm_router.proxy.dispatch import Router
from llm_router.server.chat import DirectChat
from llm_router.server.connections import make_runner
from llm_router.server.opening import BACKLOG

log = logging.getLogger("llm_router")

WATCH_CONFIG_EVERY = 1.0


class Reporter(Protocol):
    """Who is told how the process is doing: the service manager, or a supervisor."""

    def ready(self) -> None:
        """It answers; also the end of a reload."""
        ...

    def reloading(self) -> None:
        """A reload has begun."""
        ...

    def stopping(self) -> None:
        """It drains."""
        ...

    def start_watchdog(self, when_orphaned: Callable[[], object]) -> None:
        """From now on a loop that hangs shall be noticed; `when_orphaned` is called when nobody listens any more."""
        ...

    def close(self) -> None:
        """Nothing more will be told."""
        ...


async def serve(
    router: Router, app: web.Application, listener: socket.socket, reporter: Reporter, when_ready: Callable[[], object]
) -> None:
    """From the first request to the last."""
    runner = make_runner(app, lambda: router.snapshot, lambda: router.draining, DirectChat(router))
    await runner.setup()
    site = web.SockSite(runner, listener, backlog=BACKLOG)
    await site.start()
    stop = asyncio.Event()
    _handle_signals(router, stop, reporter)
    router.tasks.begin(_watch(router), "watch configuration")
    settle_memory()
    reporter.ready()
    reporter.start_watchdog(stop.set)
    when_ready()
    await stop.wait()
    reporter.stopping()
    await shut_down(router, runner, site, router.snapshot.drain_timeout)
    reporter.close()


def settle_memory() -> None:
    """What exists now lives as long as the process: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _handle_signals(router: Router, stop: asyncio.Event, reporter: Reporter) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)

    async def reload() -> None:
        reporter.reloading()
        with contextlib.suppress(ApiError):
            await refresh(router)
        reporter.ready()

    def start_reload() -> None:
        router.tasks.begin(reload(), "reload")

    loop.add_signal_handler(signal.SIGHUP, start_reload)


async def refresh(router: Router) -> None:
    """Reads the configuration again, and says in the log what came of it. Raises ApiError."""
    try:
        await router.refresh()
    except ApiError as error:
        log.error("the configuration was not reloaded: %s", error.message)
        raise
    for warning in router.snapshot.warnings:
        log.warning("%s", warning)
    log.info("the configuration was reloaded")


async def _watch(router: Router) -> None:
    """Takes over a configuration file that was changed, and lets idle upstream connections go."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(WATCH_CONFIG_EVERY)
        router.upstream.sweep(loop.time())
        if await asyncio.to_thread(router.config_file.changed):
            with contextlib.suppress(ApiError):
                await refresh(router)
                # Others need not wait until they look by themselves.
                router.announce_reload()


async def shut_down(router: Router, runner: web.BaseRunner, site: web.BaseSite, drain: float) -> None:
    """Refuses what is new, lets what runs finish within the drain timeout, and books everything."""
    router.draining = True
    await site.stop()
    await router.drained(drain)
    await runner.cleanup()
    await router.upstream.close()
    for task in list(router.tasks.running):
        if task.get_name() == "watch configuration":
            task.cancel()
    await router.tasks.drain(5)
    await asyncio.to_thread(router.bookkeeper.close, 5.0)
