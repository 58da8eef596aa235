"""Where settings come from and which one wins, seen from outside."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import ask
from tests.support.fixtures import Launch, Stage
from tests.support.router import RouterProcess, chains
from tests.support.upstream import hang

Own = Callable[..., Awaitable[Stage]]
UNSET = {"ROUTER_FIRST_BYTE_TIMEOUT": ""}


@pytest.mark.parametrize("level", ["file", "provider", "category", "model"])
async def test_first_byte_clocks_of_every_level(own: Own, level: str) -> None:
    """`timeouts` may be given for all, per provider, per category and per model; an empty variable counts as unset."""
    short = {"first_byte": 0.4}
    keys: dict[str, Any] = {"file": {"timeouts": short}, "category": {"categories": {"ab": {"timeouts": short}}}}.get(
        level, {}
    )
    stage = await own(env=UNSET, **keys)
    if level in ("provider", "model"):
        config = json.loads(stage.router.config_file.read_text())
        config["providers"]["a"] |= (
            {"timeouts": short} if level == "provider" else {"models": {"m1": {"timeouts": short}}}
        )
        stage.router.config_file.write_text(json.dumps(config))
        reloaded = await stage.router.ask("POST", "/config/reload")
        if level == "model" and reloaded.status != 200:
            pytest.skip("the contract does not say under which key a model's timeouts stand")
        assert reloaded.status == 200, reloaded.raw
    stage.a.script = hang
    started = time.monotonic()
    got = await stage.chat("router/ab")
    assert got.header("x-router-model") == "b/m2"
    assert time.monotonic() - started > 0.3


async def test_an_explicit_variable_holds_for_every_request(own: Own) -> None:
    """ROUTER_FIRST_BYTE_TIMEOUT set explicitly holds for streams and plain answers alike."""
    stage = await own(env={"ROUTER_FIRST_BYTE_TIMEOUT": "0.5"})
    stage.a.script = hang
    for streamed in (True, False):
        await stage.reset()
        started = time.monotonic()
        assert (await stage.chat("router/ab", streamed)).status == 200
        assert time.monotonic() - started > 0.4


def _with_env_file(tmp_path: Path, content: str, config: Any, **env: str) -> RouterProcess:
    router = RouterProcess(tmp_path, config, env=env)
    (router.home / ".env").write_text(content)
    return router


async def _providers(router: RouterProcess) -> Any:
    return (await router.ask("GET", "/providers")).json()["providers"]


async def test_the_env_file_is_read(tmp_path: Path) -> None:
    """`.env` in the working directory gives settings, quoted or not, without interpolation; the environment wins."""
    content = 'OPENAI_API_KEY="sk-from-file-0000"\nexport ANTHROPIC_API_KEY=sk-$HOME-0\nROUTING_MODE=keywords\n# note\n'
    router = _with_env_file(tmp_path, content, {}, ROUTING_MODE="local")
    await asyncio.to_thread(router.start)
    try:
        found = await _providers(router)
        assert (found["openai"]["configured"], found["anthropic"]["configured"]) == (True, True)
        assert (await router.ask("GET", "/health")).json()["routing_mode"] == "local"
    finally:
        await asyncio.to_thread(router.stop)


async def test_the_env_file_is_not_read_under_systemd(tmp_path: Path) -> None:
    """Under systemd (INVOCATION_ID) the working directory's `.env` is nobody's business."""
    router = _with_env_file(tmp_path, "OPENAI_API_KEY=sk-from-file-0000\n", {}, INVOCATION_ID="abc")
    await asyncio.to_thread(router.start)
    try:
        assert (await _providers(router))["openai"]["configured"] is False
    finally:
        await asyncio.to_thread(router.stop)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
async def test_a_foreign_env_file_is_not_read(tmp_path: Path) -> None:
    """A `.env` that somebody else owns is not read."""
    router = _with_env_file(tmp_path, "OPENAI_API_KEY=sk-from-file-0000\n", {})
    os.chown(router.home / ".env", 12345, 12345)
    await asyncio.to_thread(router.start)
    try:
        assert (await _providers(router))["openai"]["configured"] is False
    finally:
        await asyncio.to_thread(router.stop)


async def test_the_env_file_cannot_redirect_a_key_from_elsewhere(tmp_path: Path) -> None:
    """A `.env` may not send a key of the environment to another address."""
    router = _with_env_file(
        tmp_path, "OPENAI_BASE_URL=http://127.0.0.1:9/v1\n", {}, OPENAI_API_KEY="sk-from-the-environment-0000"
    )
    await asyncio.to_thread(router.start, False)
    try:
        for _ in range(100):
            if router.process is not None and router.process.poll() is not None:
                assert "OPENAI_BASE_URL" in router.log()
                return
            try:
                found = await _providers(router)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            assert found["openai"]["base_url"] == "https://api.openai.com/v1"
            return
    finally:
        await asyncio.to_thread(router.stop)


async def test_the_flag_wins_over_the_variable(launch: Launch) -> None:
    """`--port` wins over ROUTER_PORT."""
    router = await launch(chains({"a": 1, "b": 1}, {"ab": ["a/m1"]}), env={"ROUTER_PORT": "1"})
    assert (await router.ask("GET", "/health")).status == 200


async def test_ipv6_loopback(launch: Launch) -> None:
    """`--host ::1` is loopback: no key is wanted and changes are allowed from there."""
    router = await launch(chains({"a": 1, "b": 1}, {"ab": ["a/m1"]}), args=["--host", "::1"], wait=False)
    headers: dict[str, str | None] = {"Host": f"[::1]:{router.port}"}
    for _ in range(100):
        try:
            got = await ask(router.port, host="::1", headers=headers)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        assert got.status == 200
        break
    got = await ask(router.port, "POST", "/circuit-breaker/reset-all", host="::1", headers=headers)
    assert got.status == 200


@pytest.mark.parametrize("quoted", ['"sk-test-quoted-00000"', "'sk-test-quoted-00000'"])
async def test_keys_that_look_quoted(tmp_path: Path, quoted: str) -> None:
    """`check` names a key that looks quoted, and shows none of it."""
    router = RouterProcess(tmp_path, chains({"a": 1, "b": 1}, {"ab": ["a/m1"]}), env={"A_KEY": quoted})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_router", "check"),
        env=router.env,
        cwd=router.home,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert any("A_KEY" in line and "quot" in line.lower() for line in output.splitlines()), output
    assert "sk-test-quoted-00000" not in output
