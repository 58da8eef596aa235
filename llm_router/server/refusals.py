"""The log of what was refused before it became a chat request that runs: those have lines of their own when they end.

Whoever looks for the reason of a client's 401 finds it; whoever sends mistakes without end fills no disk.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Final

from llm_router.errors import ApiError

QUIET_S: Final = 60.0  # between two lines about refusals that are alike
_MOST_KINDS: Final = 1024
# A key that was put into a path by mistake has figures, capitals or great length.
_WORDS = re.compile(r"(?:/(?:v1|v1beta|[a-z._-]{0,24})){1,8}")
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}", re.ASCII)

log = logging.getLogger("llm_router")

Kind = tuple[str, int, str]  # whom, status, code


class Refusals:
    """Writes the first of a kind at once, and then at most one line in `QUIET_S` seconds with how many there were."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[Kind, tuple[float, int]] = {}  # when the last line was written, how many came since

    def note(
        self,
        error: ApiError,
        transport: asyncio.BaseTransport | None,
        method: str = "-",
        path: str = "-",
        request_id: str = "-",
    ) -> None:
        """One refusal of what came over `transport`. Of a request only what holds neither prompts nor keys is told."""
        name = transport.get_extra_info("peername") if transport is not None else None
        peer = str(name[0]) if isinstance(name, tuple) else "-"
        now = self._clock()
        kind = self._room_for((peer, error.status, error.code or error.type), now)
        since, more = self._kinds.get(kind, (-QUIET_S, 0))
        if now - since < QUIET_S:
            self._kinds[kind] = since, more + 1
            return
        self._kinds[kind] = now, 0
        log.log(
            logging.WARNING if error.status == 503 and error.code != "shutting_down" else logging.INFO,
            "refused id=%s status=%d code=%s param=%s peer=%s method=%s path=%s%s",
            request_id,
            error.status,
            kind[2],
            error.param if error.param and _FIELD.fullmatch(error.param) else "-",
            kind[0],
            method if method.isalpha() and method.isascii() and len(method) <= 16 else "-",
            path if _WORDS.fullmatch(path) else "-",
            f" like_it={more}" if more else "",
        )

    def _room_for(self, kind: Kind, now: float) -> Kind:
        """The kind to count by: where very many ask from different addresses, all the others are one."""
        if kind in self._kinds or len(self._kinds) < _MOST_KINDS:
            return kind
        self._kinds = {known: seen for known, seen in self._kinds.items() if now - seen[0] < QUIET_S}
        return kind if len(self._kinds) < _MOST_KINDS else ("*", *kind[1:])


refusals: Final = Refusals()
