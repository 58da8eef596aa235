"""The running process: builds the router, serves it, and ends it in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from llm_router import __version__
from llm_router.accounting.access_log import AccessLog
from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.metrics import Metrics
from llm_router.accounting.ranks import Encodings
from llm_router.config.values import Snapshot
from llm_router.demo import demo_greeting, start_demo
from llm_router.errors import ApiError, ConfigError
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.dispatch import Router
from llm_router.proxy.parts import Memory
from llm_router.proxy.state import CircuitFile, prepare_folder
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.breaker import Circuits
from llm_router.routing.classify import Brain
from llm_router.server import admin, monitor, systemd
from llm_router.server.bodies import expect_later
from llm_router.server.chat import CHAT_PATHS, DirectChat, chat
from llm_router.server.connections import make_runner
from llm_router.server.keys import ROUTER
from llm_router.server.limits import check_parser, raise_descriptor_limit

log = logging.getLogger("llm_router")

EXIT_OK, EXIT_CONFIG, EXIT_PORT = 0, 78, 69
FIRST_ENCODING = "o200k_base"
DATA = Path(__file__).parent.parent / "data"
WATCH_CONFIG_EVERY = 1.0
BACKLOG = 4096


def make_app(router: Router) -> web.Application:
    """All routes around a router; guard and error answers are the runner's."""
    app = web.Application()
    app[ROUTER] = router
    for path in CHAT_PATHS:
        app.router.add_post(path, chat, expect_handler=expect_later)
    monitor.add_routes(app)
    admin.add_routes(app)
    return app


def make_router(snapshot: Snapshot, config_file: ConfigFile, environ: Mapping[str, str]) -> Router:
    """The live parts, with the encodings built: nothing streams yet, so nobody feels it."""
    folder = Path(snapshot.state_dir) if prepare_folder(snapshot.state_dir) else None
    metrics = Metrics(__version__)
    encodings = Encodings()
    encodings.build(FIRST_ENCODING)
    bookkeeper = Bookkeeper(
        folder,
        find_encoding=encodings.get,
        sinks=[metrics.observe, *access_logs(snapshot)],
        count=snapshot.count,
        when_quiet=encodings.build_wanted,
    )
    bookkeeper.start()
    circuit_file = CircuitFile(snapshot.state_dir) if folder is not None else None
    circuits = Circuits(snapshot.breaker)
    if circuit_file is not None:
        circuit_file.load(circuits, time.time())
    router = Router(
        snapshot,
        shipped_prices=(DATA / "prices.json").read_bytes(),
        brain=Brain.load((DATA / "classifier.bin").read_bytes()),
        upstream=UpstreamClient(environ=environ),
        bookkeeper=bookkeeper,
        metrics=metrics,
        config_file=config_file,
        memory=Memory(circuits),
        circuit_file=circuit_file,
    )
    metrics.watched = bookkeeper
    return router


def access_logs(snapshot: Snapshot) -> list[AccessLog]:
    """The access log on standard error; none where the log level is above info."""
    if snapshot.log_level not in ("debug", "info"):
        return []

    def write(lines: str) -> None:
        sys.stderr.write(lines)
        sys.stderr.flush()

    return [AccessLog(write, snapshot.log_format)]


def run(flags: Mapping[str, Any]) -> int:
    """Serves until told to stop; the exit code says why it ended."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_main(flags))
    return uvloop.run(_main(flags))


async def _main(flags: Mapping[str, Any]) -> int:
    if not flags.get("demo"):
        return await _start(ConfigFile(os.environ, flags), os.environ)
    demo = await start_demo(os.environ)
    try:
        # The demo reads neither the user's configuration nor a .env beside it.
        folder = Path(demo.environ["ROUTER_CONFIG_FILE"]).parent
        flags = {**flags, "config": None}
        return await _start(ConfigFile(demo.environ, flags, folder), demo.environ, demo_greeting)
    finally:
        await demo.close()


async def _start(
    config_file: ConfigFile, environ: Mapping[str, str], greeting: Callable[[str], str] | None = None
) -> int:
    try:
        check_parser()
        snapshot = config_file.load()
    except ConfigError as error:
        print(f"llm-router: {error}", file=sys.stderr)
        return EXIT_CONFIG
    set_up_logging(snapshot)
    for warning in snapshot.warnings:
        log.warning("%s", warning)
    raise_descriptor_limit()
    if (problem := unguarded(snapshot)) is not None:
        print(f"llm-router: {problem}", file=sys.stderr)
        return EXIT_CONFIG
    try:
        listener = listen(snapshot.host, snapshot.port)
    except OSError as error:
        print(f"llm-router: cannot listen on {snapshot.host}:{snapshot.port}: {error.strerror}", file=sys.stderr)
        return EXIT_PORT
    return await serve(snapshot, config_file, environ, listener, greeting)


def unguarded(snapshot: Snapshot) -> str | None:
    """Why this address may not be bound: anybody on the network could spend the keys."""
    access = snapshot.access
    if access.api_keys or is_loopback(snapshot.host):
        return None
    if access.allow_unauthenticated:
        log.warning(
            "serving %s without a key: whoever reaches it can spend yours; publishing it wider needs ROUTER_API_KEY",
            snapshot.host,
        )
        return None
    return (
        f"refusing to bind {snapshot.host}, which is reachable from other machines, without a key: set ROUTER_API_KEY, "
        "or say --allow-unauthenticated (ROUTER_ALLOW_UNAUTHENTICATED=1)"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class JsonLines(logging.Formatter):
    """Log records as one JSON object a line, as the access log's."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def set_up_logging(snapshot: Snapshot) -> None:
    """Everything goes to standard error; level and form are the configuration's."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if snapshot.log_format == "json" else text)
    logging.basicConfig(level=snapshot.log_level.upper(), handlers=[handler])


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket. Raises OSError, also where another process listens on the port."""
    info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(info[0], socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(info[4])
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


async def serve(
    snapshot: Snapshot,
    config_file: ConfigFile,
    environ: Mapping[str, str],
    listener: socket.socket,
    greeting: Callable[[str], str] | None,
) -> int:
    """From the first request to the last."""
    router = make_router(snapshot, config_file, environ)
    runner = make_runner(make_app(router), lambda: router.snapshot, lambda: router.draining, DirectChat(router))
    await runner.setup()
    site = web.SockSite(runner, listener, backlog=BACKLOG)
    await site.start()
    notifier = systemd.Notifier.from_environment(environ)
    stop = asyncio.Event()
    _handle_signals(router, stop, notifier)
    router.tasks.begin(_watch(router), "watch configuration")
    _settle_memory()
    notifier.ready()
    notifier.start_watchdog()
    host = f"[{snapshot.host}]" if ":" in snapshot.host else snapshot.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    log.info("llm-router %s is ready on %s", __version__, address)
    if greeting is not None:
        print(greeting(address), flush=True)
    await stop.wait()
    notifier.stopping()
    await shut_down(router, runner, site, router.snapshot.drain_timeout)
    notifier.close()
    return EXIT_OK


def _settle_memory() -> None:
    # What exists now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _handle_signals(router: Router, stop: asyncio.Event, notifier: systemd.Notifier) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)

    async def reload() -> None:
        notifier.reloading()
        with contextlib.suppress(ApiError):
            await _reload(router)
        notifier.ready()

    def start_reload() -> None:
        router.tasks.begin(reload(), "reload")

    loop.add_signal_handler(signal.SIGHUP, start_reload)


async def _reload(router: Router) -> None:
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
                await _reload(router)


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
