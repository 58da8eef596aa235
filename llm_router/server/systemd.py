"""Telling systemd how the service is doing (sd_notify): a datagram to the socket that it names, and nothing more."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

_SECONDS_PER_US = 1e-6

log = logging.getLogger(__name__)


def message(**fields: object) -> bytes:
    """The datagram that reports `fields` (`READY=1`, `STATUS="..."`)."""
    return "\n".join(f"{name}={value}" for name, value in fields.items()).encode()


def address(name: str) -> str | None:
    """The address in `NOTIFY_SOCKET` as the socket call wants it: `@` stands for the abstract namespace."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """How often, in seconds, systemd wants to hear from us: twice within its limit. None if it does not."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    limit = environ.get("WATCHDOG_USEC", "")
    return int(limit) * _SECONDS_PER_US / 2 if limit.isdecimal() and int(limit) > 0 else None


class Notifier:
    """Reports to systemd, or to nobody where there is none. A report that cannot be sent is no reason to stop."""

    alone: Final = True

    def __init__(self, target: str | None, watchdog_s: float | None = None) -> None:
        self._target = target
        self._watchdog_s = watchdog_s
        self._watchdog: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Notifier target={self._target!r} watchdog_s={self._watchdog_s}>"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """For the socket and the watchdog that systemd names in the environment."""
        target = address(environ.get("NOTIFY_SOCKET", ""))
        return cls(target, watchdog_interval(environ, os.getpid()) if target is not None else None)

    def ready(self) -> None:
        """The service answers; also the end of a reload."""
        self._send(READY=1, STATUS="serving")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # Type=notify-reload wants the clock that systemd itself reads
        self._send(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, STATUS="reloading")

    def stopping(self) -> None:
        """The service drains. The watchdog is still fed: draining may take longer than its limit."""
        self._send(STOPPING=1, STATUS="draining")

    @property
    def watchdog_s(self) -> float | None:
        """How often, in seconds, the service manager wants to hear from us; None if it does not."""
        return self._watchdog_s

    def feed_watchdog(self) -> None:
        """All is well."""
        if self._watchdog_s is not None:
            self._send(WATCHDOG=1)

    def start_watchdog(
        self, when_orphaned: Callable[[], object] | None = None, when_hurried: Callable[[], object] | None = None
    ) -> None:
        """Feeds the watchdog from the running event loop, so that a loop that hangs is noticed."""
        if self._watchdog_s is not None:
            self.feed_watchdog()
            self._watchdog = asyncio.get_running_loop().call_later(self._watchdog_s, self.start_watchdog)

    def close(self) -> None:
        """Feeds the watchdog no longer."""
        if self._watchdog is not None:
            self._watchdog.cancel()

    def _send(self, **fields: object) -> None:
        if self._target is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as sender:
                sender.setblocking(False)
                sender.sendto(message(**fields), self._target)
        except OSError as error:
            log.warning("systemd could not be told %s: %s", ", ".join(fields), error)
