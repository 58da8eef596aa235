"""One router for the suite: the built-in providers by variables, a custom one by the file, all of them scripted."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Answer
from tests.support.fixtures import Launch, launch
from tests.support.router import ROOT, RouterProcess, free_port
from tests.support.upstream import Upstream, healthy

__all__ = ["Desk", "Launch", "cli", "desk", "launch", "shared_desk"]

PATHS = {
    "openrouter": "/api/v1",
    "openai": "/v1",
    "anthropic": "/v1",
    "google": "/v1beta",
    "ollama": "",
    "groq": "/openai/v1",
}
BUILT_IN = ("tools", "code", "reasoning", "conversation")


def keys_and_places(ports: Mapping[str, int]) -> dict[str, str]:
    """The variables that make every provider configured and let it listen on its port."""
    env = {"GROQ_API_KEY": "gsk_test_groq_00000000"}
    for name, port in ports.items():
        if name != "groq":
            env[f"{name.upper()}_BASE_URL"] = f"http://127.0.0.1:{port}{PATHS[name]}"
            if name != "ollama":
                env[f"{name.upper()}_API_KEY"] = f"sk-test-{name}-00000000"
    return env


def file_content(ports: Mapping[str, int], **keys: Any) -> dict[str, Any]:
    """A configuration with the custom provider `groq` and a chain of its own for each category."""
    groq = {"base_url": f"http://127.0.0.1:{ports['groq']}/openai/v1", "api_key_env": "GROQ_API_KEY"}
    return {
        "providers": {"groq": {**groq, "api": "openai-completions"}},
        "model_mappings": {name: [f"groq/{name}"] for name in BUILT_IN} | {"pair": ["groq/first", "openai/second"]},
        "prices": {"groq/priced": {"input": 1.0, "output": 2.0, "cached_input": 0.1}},
        **keys,
    }


@dataclass(slots=True)
class Desk:
    """A router, and its upstreams by provider."""

    router: RouterProcess
    ports: dict[str, int]
    up: dict[str, Upstream] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """One request."""
        return await self.router.ask(method, path, body, **more)

    async def chat(self, model: str = "router", stream: bool = False, **more: Any) -> Answer:
        """One chat request, by default not streamed."""
        return await self.router.chat(model, stream, **more)

    async def reset(self) -> None:
        """Every circuit closed."""
        assert (await self.ask("POST", "/circuit-breaker/reset-all")).status == 200

    async def record(self, answer: Answer | str) -> Any:
        """The ledger record of a request, once it is settled."""
        name = answer if isinstance(answer, str) else answer.header("x-request-id")
        deadline = time.monotonic() + 10
        while (found := await self.ask("GET", f"/v1/requests/{name}")).status != 200:
            assert time.monotonic() < deadline, found.body
            await asyncio.sleep(0.05)
        return found.json()

    async def started(self) -> Desk:
        """Fresh healthy upstreams on the known ports."""
        for name, port in self.ports.items():
            self.up[name] = Upstream(port)
            self.up[name].script = healthy
            await self.up[name].start()
        return self

    async def stopped(self) -> None:
        """Ends the upstreams."""
        for upstream in self.up.values():
            await upstream.stop()


@pytest.fixture(scope="session")
def shared_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The router that most tests share."""
    ports = {name: free_port() for name in PATHS}
    folder = tmp_path_factory.mktemp("desk")
    with RouterProcess(folder, file_content(ports), env=keys_and_places(ports)) as router:
        yield Desk(router, ports)


@pytest.fixture
async def desk(shared_desk: Desk) -> AsyncIterator[Desk]:
    """The shared router with fresh upstreams and closed circuits."""
    await shared_desk.started()
    await shared_desk.reset()
    yield shared_desk
    await shared_desk.stopped()


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs a command in a folder of its own: `cli("check", env={...}, files={".env": ...})`."""

    def run(*args: str, env: Mapping[str, str] | None = None, files: Mapping[str, Any] | None = None) -> Any:
        for name, content in (files or {}).items():
            path = tmp_path / name
            path.write_text(content if isinstance(content, str) else json.dumps(content))
            path.chmod(0o600)
        clean = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path / "home"),
            "ROUTER_STATE_DIR": str(tmp_path / "state"),
        }
        return subprocess.run(
            [sys.executable, "-m", "llm_router", *args],
            env=clean | dict(env or {}),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run
