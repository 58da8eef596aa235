"""Runs an application behind the server's limits, its guard and its error answers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiohttp import web

from llm_router.config.values import Snapshot
from llm_router.server.front import Server
from llm_router.server.limits import (
    KEEPALIVE_S,
    LINGER_S,
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_LINE_BYTES,
    READ_AHEAD_BYTES,
    check_parser,
)
from llm_router.server.short_way import Direct

logger = logging.getLogger(__name__)


class Runner(web.AppRunner):
    """Runs the application behind its limits, its guard and its error answers."""

    __slots__ = ("_direct", "_draining", "_snapshot")

    def __init__(
        self,
        app: web.Application,
        snapshot: Callable[[], Snapshot],
        draining: Callable[[], bool],
        direct: Direct | None,
    ) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=snapshot().drain_timeout)
        self._direct = direct
        self._snapshot = snapshot
        self._draining = draining

    def refuse_unfinished(self) -> None:
        """Answers the requests whose bodies are still coming: from now on the router drains."""
        if isinstance(self.server, Server):
            self.server.refuse_unfinished()

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return Server(
            plain.request_handler,
            self._snapshot,
            self._draining,
            self._direct,
            request_factory=plain.request_factory,
            handler_cancellation=True,
            access_log=None,
            logger=logger,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            read_bufsize=READ_AHEAD_BYTES,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            auto_decompress=False,
        )


def make_runner(
    app: web.Application,
    snapshot: Callable[[], Snapshot],
    draining: Callable[[], bool] = lambda: False,
    direct: Direct | None = None,
) -> Runner:
    """A runner for `app`; error answers and the guard go around it, so that no route can be reached past them.

    `snapshot` gives the settings in force. While `draining()`, every answer closes its connection. `direct`
    may take requests past the application.
    """
    check_parser()
    return Runner(app, snapshot, draining, direct)
