"""A router with two workers that can be talked to one by one, and streams that last for as long as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from typing import Any

import psutil

from tests.support.chunks import answer as words
from tests.support.chunks import role, text
from tests.support.client import Answer, Connection, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.router import RouterProcess
from tests.support.upstream import Exchange, PeerGone, Script, reply
from tests.support.waiting import PATIENCE, until

BROKEN = reply(500, {"error": {"message": "broken"}})
# What a test waits for shall happen however busy the machine is; a test that wants a clock to strike sets it.
PATIENT = {
    "ROUTER_CONNECT_TIMEOUT": "20",
    "ROUTER_FIRST_BYTE_TIMEOUT": "60",
    "ROUTER_IDLE_TIMEOUT": "60",
    "ROUTER_TOTAL_TIMEOUT": "120",
    "ROUTER_HEADER_TIMEOUT": "60",
    "ROUTER_DRAIN_TIMEOUT": "60",
}


def workers(router: RouterProcess) -> dict[int, int]:
    """The process of each worker, as the log told it last."""
    return {
        int(number): int(pid) for number, pid in re.findall(r"worker (\d+) is ready \(process (\d+)\)", router.log())
    }


def serves(pid: int, port: int) -> set[int]:
    """The client's ports of the connections that a process serves."""
    return {
        connection.raddr.port
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.raddr and connection.laddr.port == port
    }


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def lasting(release: asyncio.Event) -> Script:
    """A stream that counts until `release` is set, and ends whole then; the router may leave at any time."""

    async def script(exchange: Exchange) -> None:
        with contextlib.suppress(PeerGone):
            await exchange.head()
            await exchange.body(role() + text("0"))
            number = 0
            while not release.is_set():
                await asyncio.sleep(0.05)
                number += 1
                await exchange.body(text(f" {number}"))
            await exchange.body(b"".join(words(" end", preamble=False)))
            await exchange.finish()

    return script


def is_whole(answer: Answer) -> bool:
    """Whether all of a stream that was `lasting` has come."""
    *numbers, end = answer.text.split(" ")
    counted = [str(number) for number in range(len(numbers))]
    return answer.ended == "whole" and answer.done and end == "end" and numbers == counted


class Crew:
    """A stage whose router has workers that can be talked to one by one."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.router = stage.router
        self._connections: dict[int, Connection] = {}
        self._all: list[Connection] = []

    async def open(self) -> Connection:
        """A connection to whichever worker; it is closed at the end of the test."""
        connection = await Connection.open(self.router.port)
        self._all.append(connection)
        return connection

    async def at(self, number: int) -> Connection:
        """A fresh connection to that worker; the kernel decides, so it is tried until it fits."""
        pid = workers(self.router)[number]
        spare = []
        try:
            for _ in range(100):
                connection = await self.open()
                port = connection.sock.getsockname()[1]
                pids = workers(self.router).values()
                await until(lambda port=port, pids=pids: any(port in serves(one, self.router.port) for one in pids))
                if port in serves(pid, self.router.port):
                    return connection
                spare.append(connection)
        finally:
            for connection in spare:
                connection.close()
        raise AssertionError(f"no connection came to worker {number}")

    async def ask(self, number: int, method: str, path: str, body: Any = None, headers: Any = None) -> Answer:
        """One request to that worker."""
        return await self._send(number, request_bytes(method, path, body, headers))

    async def chat(self, number: int, model: str = "router/ab", headers: Any = None, **fields: Any) -> Answer:
        """One chat request to that worker."""
        return await self._send(number, request_bytes(body=chat_body(model, **fields), headers=headers))

    async def _send(self, number: int, data: bytes) -> Answer:
        connection = self._connections.get(number) or await self.at(number)
        self._connections[number] = connection
        await connection.send(data)
        return await connection.answer(patience=60)

    async def begin(self, number: int, name: str) -> Connection:
        """A chat request to that worker on a connection of its own, of which the answer is yet to be read."""
        connection = await self.at(number)
        await connection.send(request_bytes(body=chat_body("router/ab"), headers={"x-request-id": name}))
        return connection

    async def begin_lasting(self, name: str) -> tuple[asyncio.Event, list[asyncio.Future[Answer]]]:
        """A stream by each worker, under `name` and its number, running when this returns: what ends them, and they."""
        end = asyncio.Event()
        self.stage.a.script = lasting(end)
        connections = [await self.begin(number, f"{name}-{number}") for number in (1, 2)]
        running = [asyncio.ensure_future(connection.answer(patience=60)) for connection in connections]
        await self.stage.a.wait_for(2)
        return end, running

    async def fail_until_half_open(self) -> None:
        """Opens the circuit of a/m1 through the first worker; both are ready to probe it when this returns."""
        self.stage.a.script = BROKEN
        for _ in range(3):
            await self.chat(1)
        for number in (1, 2):
            await until(lambda n=number: self.is_in(n, "half-open"))

    async def circuit(self, number: int, model: str = "a/m1") -> Any:
        """What that worker thinks of a circuit."""
        return (await self.ask(number, "GET", "/circuit-breaker")).json()["circuits"][model]

    async def is_in(self, number: int, state: str, model: str = "a/m1") -> bool:
        """Whether that worker thinks so of a circuit."""
        return bool((await self.circuit(number, model))["state"] == state)

    async def served_by(self, number: int, model: str) -> bool:
        """Whether that worker asks this model first."""
        return (await self.chat(number)).header("x-router-model") == model

    async def found(self, number: int, name: str) -> Any:
        """The record of a request as that worker finds it, None while there is none."""
        found = await self.ask(number, "GET", f"/v1/requests/{name}")
        return found.json() if found.status == 200 else None

    async def kill_supervisor(self) -> None:
        """SIGKILL, and waits until the others have let go of the port: nobody of them answers what is asked next."""
        self.router.signal(signal.SIGKILL)
        await asyncio.to_thread(self.router.wait, PATIENCE)
        await until(lambda: refuses(self.router.port))

    def forget(self) -> None:
        """Closes all connections."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._connections.clear()
