"""The program: reads the configuration, opens the port, builds the router, and runs it in one process or in several."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from llm_router import __version__, exits, shipped
from llm_router.accounting.books import Books, Figures
from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.metrics import Metrics
from llm_router.accounting.ranks import Encodings
from llm_router.accounting.settle import DEFAULT_ENCODING
from llm_router.config.advice import advice, unguarded
from llm_router.config.values import Snapshot
from llm_router.errors import ConfigError
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.dispatch import Router
from llm_router.proxy.parts import Memory
from llm_router.proxy.state import CircuitFile, prepare_state_folder
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.breaker import Circuits
from llm_router.server import admin, monitor, systemd
from llm_router.server.app_keys import ROUTER
from llm_router.server.bodies import expect_later
from llm_router.server.chat import CHAT_PATHS, chat
from llm_router.server.limits import check_parser, raise_descriptor_limit
from llm_router.server.opening import access_logs, listen, set_up_logging
from llm_router.server.serving import serve
from llm_router.standard_error import complain, tell

log = logging.getLogger("llm_router")

# A router that was killed or told to end may need a moment to let go.
PORT_PATIENCE = 1.0
_REMEDIES = {
    errno.EADDRINUSE: "; another program listens there, perhaps a router: --port chooses another port",
    errno.EADDRNOTAVAIL: "; this machine has no such address: --host chooses another one",
    errno.EACCES: "; ports below 1024 take a right of their own: --port chooses another port",
}
_NO_NAME = "; --host takes an address or a name of this machine"


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
    folder = Path(snapshot.state_dir) if prepare_state_folder(snapshot.state_dir) else None
    metrics = Metrics(__version__)
    encodings = Encodings()
    encodings.build(DEFAULT_ENCODING)
    bookkeeper = Bookkeeper(
        folder,
        find_encoding=encodings.get,
        sinks=[metrics.observe, *access_logs(snapshot)],
        count=snapshot.count,
        when_quiet=encodings.build_wanted,
    )
    bookkeeper.start()
    metrics.watched = bookkeeper
    circuits = Circuits(snapshot.breaker)
    circuit_file = CircuitFile(snapshot.state_dir) if folder is not None else None
    if circuit_file is not None:
        circuit_file.load(circuits, time.time())
    return assemble(snapshot, config_file, environ, bookkeeper, metrics, Memory(circuits), circuit_file)


def assemble(
    snapshot: Snapshot,
    config_file: ConfigFile,
    environ: Mapping[str, str],
    books: Books,
    figures: Figures,
    memory: Memory,
    circuit_file: CircuitFile | None,
) -> Router:
    """A router that keeps its books and remembers where it is told to."""
    return Router(
        snapshot,
        shipped_prices=shipped.prices(),
        brain=shipped.brain(),
        upstream=UpstreamClient(environ=environ),
        bookkeeper=books,
        metrics=figures,
        config_file=config_file,
        memory=memory,
        circuit_file=circuit_file,
    )


def run(flags: Mapping[str, Any]) -> int:
    """Serves until told to stop; the exit code says why it ended."""
    if flags.get("demo"):
        return _in_loop(_demo(flags))
    opened = _open(config_file := ConfigFile(os.environ, flags))
    if isinstance(opened, int):
        return opened
    snapshot, listener = opened
    log.info("configuration file: %s; state folder: %s", snapshot.config_file or "none", snapshot.state_dir)
    if snapshot.workers == 1:
        return _in_loop(_serve_alone(snapshot, config_file, os.environ, listener))
    return _serve_together(snapshot, config_file, os.environ, listener)


def _in_loop(work: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def _demo(flags: Mapping[str, Any]) -> int:
    from llm_router.demo import demo_greeting, start_demo

    if str(flags.get("workers") or 1) != "1":
        tell("--demo runs in one process: --workers is left aside")
    demo = await start_demo(os.environ)
    try:
        # The demo reads neither the user's configuration nor a .env beside it.
        folder = Path(demo.environ["ROUTER_CONFIG_FILE"]).parent
        config_file = ConfigFile(demo.environ, {**flags, "config": None, "workers": None}, folder)
        opened = _open(config_file)
        if isinstance(opened, int):
            return opened
        return await _serve_alone(opened[0], config_file, demo.environ, opened[1], demo_greeting)
    finally:
        await demo.close()


def _open(config_file: ConfigFile) -> tuple[Snapshot, socket.socket] | int:
    """The configuration and the port, or the exit code that says what is wrong with them."""
    try:
        check_parser()
        snapshot = config_file.load()
    except ConfigError as error:
        complain(str(error))
        return exits.CONFIG
    set_up_logging(snapshot)
    for warning in advice(snapshot):
        log.warning("%s", warning)
    raise_descriptor_limit()
    if (problem := unguarded(snapshot)) is not None:
        complain(problem)
        return exits.CONFIG
    try:
        listener = listen(snapshot.host, snapshot.port, PORT_PATIENCE)
    except OSError as error:
        remedy = _NO_NAME if isinstance(error, socket.gaierror) else _REMEDIES.get(error.errno or 0, "")
        complain(f"cannot listen on {snapshot.host}:{snapshot.port}: {error.strerror}{remedy}")
        return exits.PORT
    config_file.serve_at(snapshot.host)
    return snapshot, listener


async def _serve_alone(
    snapshot: Snapshot,
    config_file: ConfigFile,
    environ: Mapping[str, str],
    listener: socket.socket,
    greeting: Callable[[str], str] | None = None,
) -> int:
    router = make_router(snapshot, config_file, environ)

    def announce() -> None:
        address = _address(snapshot, listener)
        log.info("llm-router %s is ready on %s", __version__, address)
        if greeting is not None:
            print(greeting(address), flush=True)

    await serve(router, make_app(router), listener, systemd.Notifier.from_environment(environ), announce)
    return exits.OK


def _serve_together(
    snapshot: Snapshot, config_file: ConfigFile, environ: Mapping[str, str], listener: socket.socket
) -> int:
    # What only several processes need: one can do without the time that this takes.
    from llm_router.server.worker import CannotShare, Colleague, run_workers

    def make(colleague: Colleague) -> tuple[Router, web.Application]:
        router = assemble(
            colleague.snapshot,
            config_file,
            environ,
            colleague.books,
            colleague.books,
            colleague.memory,
            colleague.circuit_file,
        )
        return router, make_app(router)

    notifier = systemd.Notifier.from_environment(environ)
    try:
        return run_workers(snapshot, config_file, listener, notifier, make, _in_loop, _address(snapshot, listener))
    except CannotShare as error:
        complain(str(error))
        return exits.CONFIG


def _address(snapshot: Snapshot, listener: socket.socket) -> str:
    host = f"[{snapshot.host}]" if ":" in snapshot.host else snapshot.host
    return f"http://{host}:{listener.getsockname()[1]}"
