"""The image and the compose file: who may reach it, who runs it, and how it tells that it is healthy."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
COMPOSE = (ROOT / "deploy/docker/compose.yaml").read_text()


@asynccontextmanager
async def health_server(status: int) -> AsyncIterator[int]:
    """A server whose /health answers with `status`; gives its port."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/health", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def run_healthcheck(port: int, **environ: str) -> int:
    command = re.search(r"HEALTHCHECK .*?CMD (\[.*?\])\n", DOCKERFILE, re.DOTALL)
    assert command is not None
    arguments = json.loads(command[1])
    assert arguments[0] == "python3"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments[1:],
        env={"PATH": os.environ["PATH"], "ROUTER_PORT": str(port), **environ},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


async def test_healthcheck_passes_a_healthy_router() -> None:
    """A 200 from /health is exit status 0, whatever proxy the container is told to use."""
    async with health_server(200) as port:
        assert await run_healthcheck(port, http_proxy="http://127.0.0.1:1") == 0


async def test_healthcheck_fails_a_sick_one() -> None:
    """Another status, or nobody there, is a failure."""
    async with health_server(503) as port:
        assert await run_healthcheck(port) != 0
    assert await run_healthcheck(port) != 0


def test_image_runs_without_root() -> None:
    """The image names a user by number, so that a platform can tell that it is not root."""
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0


def test_image_keeps_what_changes_in_its_volume() -> None:
    """Configuration and state lie in the volume, since everything else is gone with the container."""
    volume = re.search(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)
    assert volume is not None
    assert f"ROUTER_STATE_DIR={volume[1]} " in DOCKERFILE
    assert f"ROUTER_CONFIG_FILE={volume[1]}/router_config.json" in DOCKERFILE
    assert f":{volume[1]}\n" in COMPOSE


def test_image_is_marked_and_open_inside_only() -> None:
    """The image says what it is (no .env there), and listens beyond its own loopback without a key."""
    for setting in ("LLM_ROUTER_IMAGE=1", "ROUTER_HOST=0.0.0.0", "ROUTER_ALLOW_UNAUTHENTICATED=1"):
        assert setting in DOCKERFILE
    assert not re.search(r"_API_KEY=", DOCKERFILE)


def test_compose_publishes_on_this_machine_alone() -> None:
    """Every published port of the compose file is bound to 127.0.0.1."""
    published = re.findall(r'^ +- "([\d.:]+)"$', COMPOSE.split("ports:")[1].split("environment:")[0], re.MULTILINE)
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_base_images_are_the_same() -> None:
    """Both stages start from one base, or the virtual environment's interpreter would be missing."""
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
