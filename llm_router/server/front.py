"""The server as a whole: stands in front of the application, and sweeps over its connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from llm_router.config.values import Snapshot
from llm_router.pauses import Pauses
from llm_router.server.answers import ADMITTED, ERROR, Handler, answer_errors, request_id
from llm_router.server.connections import Connection, Connections
from llm_router.server.guard import make_guard
from llm_router.server.limits import LOOK_EVERY_S, MAX_SWEEP_S, framing_problem
from llm_router.server.refusals import refusals
from llm_router.server.short_way import Direct


class Server(Connections):
    """Makes the connections and watches their clocks; every request to the application `handle` passes the guard."""

    def __init__(
        self,
        handle: Any,
        snapshot: Callable[[], Snapshot],
        draining: Callable[[], bool],
        direct: Direct | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(self._answer, direct, **kwargs)
        self._handle: Handler = handle
        self._guard = make_guard(snapshot)
        self._snapshot = snapshot
        self._draining = draining
        self._sweeper: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._pauses = Pauses()
        self._sweep()

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            answer = await answer_errors(request, self._answer_guarded)
            if (error := answer.get(ERROR)) is not None and ADMITTED not in request and error.status != 500:
                refusals.note(error, request.transport, request.method, request.path, request_id(request))
            if self._draining():
                answer.force_close()
            return answer
        finally:
            if type(connection := request.protocol) is Connection:
                connection.release(self)

    async def _answer_guarded(self, request: web.Request) -> web.StreamResponse:
        refusal = framing_problem(request)
        if refusal is not None:
            raise refusal
        return await self._guard(request, self._handle)

    def refuse_unfinished(self) -> None:
        """The router drains: answers requests whose bodies are still coming, so that nothing begins any more."""
        for connection in tuple(self._connections):
            if isinstance(connection, Connection):
                connection.refuse_unfinished()

    def _sweep(self) -> None:
        limit = self._snapshot().header_timeout
        now = self._loop.time()
        judge_from = self._pauses.judge_from(now if self._sweeper is None else self._sweeper.when(), now)
        # First, since what is wrong with one connection must not stop the clocks of all others.
        self._sweeper = self._loop.call_later(min(MAX_SWEEP_S, limit / 4), self._sweep)
        if now < judge_from:
            return
        if look := now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
        for connection in tuple(self._connections):
            if isinstance(connection, Connection):
                connection.check_clocks(now, limit)
                if look:
                    connection.check_client(now)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's signature
        await super().shutdown(timeout)
        if self._sweeper is not None:
            self._sweeper.cancel()
