"""How each gateway of the benchmark is started, and what it costs in CPU and memory."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.bodies import chat

PATH = "/v1/chat/completions"
_NGINX = """daemon off; worker_processes 1; pid {work}/nginx.pid; error_log {work}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work};
  uwsgi_temp_path {work}; scgi_temp_path {work}; client_max_body_size 32m; client_body_buffer_size 1m;
  keepalive_requests 1000000;
  upstream provider {{ server 127.0.0.1:{upstream_port}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; }}
  }}
}}
"""
PAIR = "router-2"
_CHAIN = ["openai/gpt-4o-mini"]
_ROUTER = {"model_mappings": dict.fromkeys(("tools", "code", "reasoning", "conversation"), _CHAIN)}


@dataclass(slots=True)
class Gateway:
    """One gateway and its process. In `command`: {port}, {upstream} (with /v1), {upstream_port}, {work}, {python}.

    `scenarios` are those that it takes part in; empty means all, and the plot.
    """

    name: str
    command: str
    model: str = "gpt-4o-mini"
    files: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    work: Path = Path()
    began: float = 0.0
    start_s: float = 0.0
    idle_mib: float = 0.0

    def start(self, folder: Path, upstream_port: int, cores: set[int] | None, patience: float = 60.0) -> None:
        """Starts it, waits until it answers a chat request, and settles. Raises RuntimeError if it does not."""
        self.launch(folder, upstream_port, cores)
        self.wait(self._answers, patience)
        time.sleep(1.0)
        self.idle_mib = memory_mib(self.pid)

    def launch(self, folder: Path, upstream_port: int, cores: set[int] | None) -> None:
        """Starts the process."""
        self.port = free_port()
        self.work = work = folder / self.name
        work.mkdir()
        places = {
            "port": self.port,
            "upstream": f"http://127.0.0.1:{upstream_port}/v1",
            "upstream_port": upstream_port,
            "work": work,
            "python": sys.executable,
        }
        for name, text in self.files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text.format(**places))
        words = [word.format(**places) for word in shlex.split(self.command)]
        environ = {**os.environ, **{name: value.format(**places) for name, value in self.environ.items()}}
        with (work / "log").open("wb") as log:
            self.began = time.monotonic()
            self.process = subprocess.Popen(words, env=environ, stdout=log, stderr=log, start_new_session=True)
        if cores is not None:
            os.sched_setaffinity(self.process.pid, cores)

    def wait(self, condition: Callable[[], bool], patience: float = 60.0) -> None:
        """Until the condition holds, which is noted as its start. Raises RuntimeError if it never does."""
        assert self.process is not None
        while not condition():
            if self.process.poll() is not None or time.monotonic() - self.began > patience:
                self.stop()
                raise RuntimeError(f"{self.name} does not answer: {(self.work / 'log').read_text()[-500:]}")
            time.sleep(0.005)
        self.start_s = time.monotonic() - self.began

    def is_healthy(self) -> bool:
        """Whether `/health` answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _answers(self) -> bool:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{PATH}", chat(500, self.model))
        request.add_header("Content-Type", "application/json")
        for line in self.headers:
            name, _, value = line.partition(": ")
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return b"choices" in answer.read()
        except (OSError, urllib.error.HTTPError):
            return False

    def stop(self) -> None:
        """Ends it and all that it started."""
        if self.process is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(10)
            self.process = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self.process is not None
        return self.process.pid


def known_gateways(router: str) -> dict[str, Gateway]:
    """The gateways that need nothing given; `router` is the command of ours."""
    gateways = [
        Gateway("relay", "{python} -m bench.relay --port {port} --upstream {upstream}/chat/completions"),
        Gateway(
            "router",
            f"{router} serve --port {{port}}",
            model="router",
            files={"router_config.json": json.dumps(_ROUTER).replace("{", "{{").replace("}", "}}")},
            environ={
                "HOME": "{work}",
                "ROUTER_CONFIG_FILE": "{work}/router_config.json",
                "ROUTER_STATE_DIR": "{work}/state",
                "OPENAI_API_KEY": "sk-bench",
                "OPENAI_BASE_URL": "{upstream}",
            },
        ),
    ]
    gateways.append(
        replace(gateways[-1], name=PAIR, command=f"{gateways[-1].command} --workers 2", scenarios=("S1", "S4x"))
    )
    if shutil.which("nginx"):
        gateways.insert(
            1,
            Gateway("nginx", "nginx -p {work} -c {work}/nginx.conf -e {work}/error.log", files={"nginx.conf": _NGINX}),
        )
    return {gateway.name: gateway for gateway in gateways}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process tree, to the nanosecond."""
    total = 0
    for process in processes(pid):
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def memory_mib(pid: int) -> float:
    """Resident memory of a process tree."""
    pages = 0
    for process in processes(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def shared_mib(pid: int) -> float:
    """Memory of a process tree, what processes share counted once (proportional set size)."""
    total = 0
    for process in processes(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


class Peak:
    """The most memory that a process tree had while this was open."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.mib = max(self.mib, memory_mib(self._pid))
