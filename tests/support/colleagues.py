"""Workers that are to be of one mind: what one of them learned may be a second old in the others.

Where the suite runs over several workers (ROUTER_WORKERS) a request may meet any of them. So after each one that may
have changed something this waits until all say the same of circuits and configuration, as a user would who wants to
be sure. A router that is one process always does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.support.waiting import PATIENCE

# Two that were asked one after the other differ by as much in what is left of a wait.
_ALIKE = 0.5
_PAUSE = 0.02
_TRIES = 3


class Colleagues:
    """The workers of the router `pid` on `port`, each on a connection of its own. Blocks; may come from any thread."""

    def __init__(self, pid: int, port: int, key: str) -> None:
        self.pid = pid
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._lock = threading.Lock()
        self._connections: dict[int, http.client.HTTPConnection] = {}

    def agree(self) -> None:
        """Returns once all workers say the same, or once there are no two that answer; fails where they never do."""
        with self._lock:
            deadline = time.monotonic() + PATIENCE
            while len(views := self._views()) > 1 and not _are_alike(views):
                assert time.monotonic() < deadline, f"the workers do not agree: {views}"
                time.sleep(_PAUSE)

    def close(self) -> None:
        """Hangs up."""
        with self._lock:
            self._hang_up()

    def _views(self) -> list[Any]:
        for _ in range(_TRIES):
            # A worker may have been replaced, or have hung up on who was silent for long.
            with contextlib.suppress(OSError, http.client.HTTPException, psutil.Error, ValueError):
                self._meet()
                return [[self._ask(pid, path) for path in ("/circuit-breaker", "/config")] for pid in self._connections]
            self._hang_up()
        # It ends, or does not even listen: there is nobody who would have to know.
        return []

    def _hang_up(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _meet(self) -> None:
        """Gets a connection to each worker; which one it leads to is the kernel's choice."""
        wanted = set(workers_of(self.pid))
        for gone in self._connections.keys() - wanted:
            self._connections.pop(gone).close()
        surplus = []
        while len(wanted) > 1 and wanted - self._connections.keys():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            connection.request("GET", "/health")
            connection.getresponse().read()
            assert connection.sock is not None
            pid = _who_serves(wanted, connection.sock.getsockname()[1], self._port)
            if pid is None or pid in self._connections:
                surplus.append(connection)
            else:
                self._connections[pid] = connection
        for connection in surplus:
            connection.close()

    def _ask(self, pid: int, path: str) -> Any:
        connection = self._connections[pid]
        connection.request("GET", path, headers=self._headers)
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else answer.status


def workers_of(pid: int) -> list[int]:
    """The workers that a supervisor has started; none where a router is one process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if _is_worker(child)]


def _is_worker(pid: str) -> bool:
    with contextlib.suppress(OSError):
        # The kernel keeps fifteen letters of "llm-router: worker 1".
        return Path(f"/proc/{pid}/comm").read_text().startswith("llm-router: wor")
    return False


def _who_serves(pids: set[int], client: int, port: int) -> int | None:
    """Whose connection it is that comes from the port `client`."""
    for pid in pids:
        for connection in psutil.Process(pid).net_connections("tcp"):
            if connection.raddr and connection.raddr.port == client and connection.laddr.port == port:
                return pid
    return None


def _are_alike(views: list[Any]) -> bool:
    first, *others = views
    return all(_is_like(first, other) for other in others)


def _is_like(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_like(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_like, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < _ALIKE
    return bool(one == other)
