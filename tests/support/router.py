"""The router as a process: started with an environment of its own, waited for, measured, killed.

with RouterProcess(tmp, config=chains({"a": a.port})) as router: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.support.client import Answer, Connection, ask, chat_body, request_bytes
from tests.support.colleagues import Colleagues
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
KEYS = {"a": "sk-test-aaaaaaaaaaaaaaaaaaaaaaaa1", "b": "sk-test-bbbbbbbbbbbbbbbbbbbbbbbb2", "c": "sk-test-cccccccc3"}
CHAINS = {
    "tools": ["a/m1", "b/m2"],
    "code": ["a/m1", "b/m2"],
    "reasoning": ["a/m1", "b/m2"],
    "conversation": ["a/m1", "b/m2"],
    "ab": ["a/m1", "b/m2"],
    "abc": ["a/m1", "b/m2", "c/m3"],
    "aab": ["a/m1", "a/m2", "b/m2"],
    "only": ["a/m1"],
}


def free_port() -> int:
    """A port that nobody uses or keeps, and that the kernel does not hand out to outgoing connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def keep_port() -> socket.socket:
    """A free port that stays ours while nobody listens on it: other runs of the suite choose ports too.

    A listener with SO_REUSEADDR may join the socket that is returned; connections are refused until then.
    """
    while True:
        kept = socket.socket()
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            kept.bind(("127.0.0.1", free_port()))
        except OSError:
            kept.close()
            continue
        return kept


def chains(ports: Mapping[str, int], models: Mapping[str, list[str]] | None = None, **more: Any) -> dict[str, Any]:
    """A configuration whose providers listen on `ports` and whose categories have the chains `models`.

    A provider `x` takes its key from `X_KEY`. Categories that are not built in are declared as custom ones.
    """
    wanted = CHAINS if models is None else models
    custom = {name for name in wanted if name not in ("tools", "code", "reasoning", "conversation")}
    providers = {
        name: {"base_url": f"http://127.0.0.1:{port}/v1", "api_key_env": f"{name.upper()}_KEY"}
        for name, port in ports.items()
    }
    return {
        "providers": providers,
        "model_mappings": dict(wanted),
        "custom_categories": {name: {"description": f"the chain {name}", "models": wanted[name]} for name in custom},
        **more,
    }


FAST = {
    "ROUTER_CONNECT_TIMEOUT": "1",
    "ROUTER_FIRST_BYTE_TIMEOUT": "1",
    "ROUTER_IDLE_TIMEOUT": "1",
    "ROUTER_TOTAL_TIMEOUT": "20",
    "ROUTER_HEADER_TIMEOUT": "2",
    "ROUTER_DRAIN_TIMEOUT": "5",
}


def is_alive(pid: int) -> bool:
    """Whether a process has anything left, be it waited for or not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Watch:
    """How long the router takes, of its own time: what other processes take of a busy machine does not count."""

    def __init__(self, router: RouterProcess) -> None:
        self.router = router
        self.cpu, self.at = router.cpu(), time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start: seconds that passed, or those that the router computed where that is less."""
        return min(time.monotonic() - self.at, self.router.cpu() - self.cpu)


class RouterProcess:
    """One `python -m llm_router serve` with its own home, state folder, configuration file and log file.

    `env` is added to a clean environment, which has ROUTER_WORKERS where the suite itself was given it: so the suite
    can be run over several workers. What one of them learned is waited for in the others then: see `agree`. `limits`
    are rlimits of the process (soft and hard alike).
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | bytes | None = None,
        env: Mapping[str, str] | None = None,
        args: Iterable[str] = (),
        port: int | None = None,
        umask: int = -1,
        limits: Mapping[int, int] | None = None,
        command: Iterable[str] = ("serve",),
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.state = folder / "state"
        self.config_file = folder / "router_config.json"
        self.log_file = folder / "router.log"
        self.port = port or free_port()
        self.umask = umask
        self.limits = dict(limits or {})
        self.home.mkdir(parents=True, exist_ok=True)
        if config is not None:
            self.config_file.write_bytes(config if isinstance(config, bytes) else json.dumps(config, indent=2).encode())
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.home),
            "ROUTER_STATE_DIR": str(self.state),
            **{f"{name.upper()}_KEY": key for name, key in KEYS.items()},
            **FAST,
            **{name: value for name, value in os.environ.items() if name == "ROUTER_WORKERS"},
            **(env or {}),
        }
        if config is not None:
            self.env.setdefault("ROUTER_CONFIG_FILE", str(self.config_file))
        self.command = [sys.executable, "-m", "llm_router", *command, "--port", str(self.port), *args]
        self.process: subprocess.Popen[bytes] | None = None
        self.has_workers = "ROUTER_WORKERS" in self.env
        self._colleagues: Colleagues | None = None
        self.started_at = 0.0
        self.ready_at = 0.0

    def start(self, wait: bool = True) -> RouterProcess:
        """Starts the process and, with `wait`, waits until `/health` answers."""
        preexec: Callable[[], None] | None = self._limit if self.limits else None
        self.started_at = time.monotonic()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=self.umask,
                preexec_fn=preexec,
            )
        if wait:
            self.wait_ready()
            self._agree()
        return self

    def _limit(self) -> None:
        for what, value in self.limits.items():
            resource.setrlimit(what, (value, value))
        if resource.RLIMIT_FSIZE in self.limits:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def wait_ready(self, timeout: float = 15.0) -> None:
        """Waits until `/health` answers 200; fails with the log where the process ended before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the router ended with {self.process.returncode}:\n{self.log()}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            try:
                connection.request("GET", "/health")
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            finally:
                connection.close()
            if status == 200:
                self.ready_at = time.monotonic()
                return
            time.sleep(0.02)
        raise AssertionError(f"not ready after {timeout} s:\n{self.log()}")

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        """What the router wrote to stdout and stderr so far."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def signal(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 15.0) -> int:
        """Waits for the end; the exit code."""
        assert self.process is not None
        return self.process.wait(timeout)

    async def ended(self, timeout: float = 15.0) -> int:  # noqa: ASYNC109 - that of `wait`
        """The same, while the loop goes on."""
        return await asyncio.to_thread(self.wait, timeout)

    async def agree(self) -> None:
        """Waits until all workers know what one of them has learned, where the suite runs over several."""
        if self.has_workers:
            await asyncio.to_thread(self._agree)

    def _agree(self) -> None:
        if not self.has_workers or self.process is None or self.process.poll() is not None:
            return
        if self._colleagues is None or self._colleagues.pid != self.pid:
            self._part()
            self._colleagues = Colleagues(self.pid, self.port, self.env.get("ROUTER_API_KEY", ""))
        self._colleagues.agree()

    def _part(self) -> None:
        if self._colleagues is not None:
            self._colleagues.close()
            self._colleagues = None

    def stop(self) -> None:
        """Ends the process, by force where it does not end within two seconds."""
        self._part()
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and waits. Its workers are killed, too: after it, since it would replace them."""
        assert self.process is not None
        self._part()
        others = self.children() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait(10)
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while any(map(is_alive, others)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def watch(self) -> Watch:
        """A watch that starts now."""
        return Watch(self)

    def cpu(self) -> float:
        """Seconds of processor time that it and its workers have used so far."""
        ticks = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):  # a worker may end while we look
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def children(self) -> list[int]:
        """The ids of the processes that it has started: the keeper and the workers."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def processes(self) -> list[int]:
        """The ids of all its processes, its own first."""
        return [self.pid, *self.children()]

    def rss(self) -> int:
        """Resident memory of all its processes in bytes."""
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes()]
        return sum(pages) * resource.getpagesize()

    def descriptors(self) -> int:
        """Open file descriptors of all its processes."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.processes())

    async def ask(self, method: str = "GET", path: str = "/health", body: Any = None, **more: Any) -> Answer:
        """One request on a connection of its own."""
        answer = await ask(self.port, method, path, body, **more)
        if method not in ("GET", "HEAD"):
            await self.agree()
        return answer

    async def chat(
        self,
        model: str = "router/ab",
        stream: bool | None = True,
        headers: Mapping[str, str | None] | None = None,
        patience: float = 15.0,
        until: Callable[[Answer], bool] | None = None,
        path: str = "/v1/chat/completions",
        **fields: Any,
    ) -> Answer:
        """One chat request."""
        body = chat_body(model, stream, **fields)
        answer = await ask(self.port, "POST", path, body, headers, patience, until)
        await self.agree()
        return answer

    async def open_chat(
        self, model: str = "router/ab", stream: bool | None = True, receive_buffer: int | None = None, **fields: Any
    ) -> Connection:
        """A connection on which a chat request was sent and nothing was read yet."""
        connection = await Connection.open(self.port, receive_buffer=receive_buffer)
        await connection.send(request_bytes(body=chat_body(model, stream, **fields)))
        return connection

    def __enter__(self) -> RouterProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
