"""The configuration under attack: corrupt files, bad bodies, storms of writers, kills, modes and links."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures import Launch, Stage
from tests.support.router import RouterProcess, chains
from tests.support.upstream import healthy, reply
from tests.support.waiting import PATIENCE, until

Own = Callable[..., Awaitable[Stage]]

CORRUPT: dict[str, bytes] = {
    "open_brace": b"{",
    "truncated": b'{"model_mappings": {"code": ["openai/gp',
    "array": b"[]",
    "null": b"null",
    "number": b"7",
    "string": b'"text"',
    "binary": b"\x00\x01\x02\xff\xfe" * 50,
    "utf16": '{"keywords": {}}'.encode("utf-16"),
    "bad_utf8": b'{"keywords": {"code": ["\xff\xfe"]}}',
    "trailing": b'{"keywords": {}} trailing',
    "comment": b'{"keywords": {} // comment\n}',
    "single_quotes": b"{'keywords': {}}",
    "nan": b'{"timeouts": {"idle": NaN}}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
}
WRONG: dict[str, tuple[Any, str]] = {
    "unknown_key": ({"model_mapings": {}}, "model_mapings"),
    "unknown_nested": ({"circuit_breaker": {"treshold": 3}}, "treshold"),
    "mappings_list": ({"model_mappings": []}, "model_mappings"),
    "chain_string": ({"model_mappings": {"code": "openai/gpt-4o"}}, "code"),
    "chain_empty": ({"model_mappings": {"code": []}}, "code"),
    "chain_of_numbers": ({"model_mappings": {"code": [7]}}, "code"),
    "chain_empty_name": ({"model_mappings": {"code": [""]}}, "code"),
    "unknown_provider": ({"model_mappings": {"code": ["nosuch/model"]}}, "nosuch"),
    "category_name": ({"custom_categories": {"a b": {"models": ["openai/gpt-4o"]}}}, "a b"),
    "category_long": ({"custom_categories": {"x" * 65: {"models": ["openai/gpt-4o"]}}}, "xxxxx"),
    "keywords_string": ({"keywords": {"code": "python"}}, "keywords"),
    "keyword_empty": ({"keywords": {"code": [""]}}, "keywords"),
    "threshold_zero": ({"circuit_breaker": {"failure_threshold": 0}}, "failure_threshold"),
    "threshold_string": ({"circuit_breaker": {"failure_threshold": "3"}}, "failure_threshold"),
    "timeout_negative": ({"timeouts": {"idle": -1}}, "idle"),
    "timeout_bool": ({"timeouts": {"idle": True}}, "idle"),
    "provider_without_url": ({"providers": {"x": {"api_key_env": "X"}}}, "base_url"),
    "provider_url": ({"providers": {"x": {"base_url": "ftp://x/"}}}, "base_url"),
    "provider_url_number": ({"providers": {"x": {"base_url": 7}}}, "base_url"),
    "provider_api": ({"providers": {"x": {"base_url": "http://127.0.0.1:1/v1", "api": "soap"}}}, "api"),
    "price_string": ({"prices": {"openai/gpt-4o": {"input": "cheap"}}}, "prices"),
    "price_negative": ({"prices": {"openai/gpt-4o": {"input": -1, "output": 1}}}, "prices"),
}


@pytest.mark.parametrize("name", [*CORRUPT, *WRONG])
async def test_a_corrupt_file_at_the_start(tmp_path: Path, name: str) -> None:
    """A file that cannot be used stops the start; the message names file and place; the file is untouched."""
    content = CORRUPT[name] if name in CORRUPT else json.dumps(WRONG[name][0]).encode()
    router = RouterProcess(tmp_path, content)
    await asyncio.to_thread(router.start, False)
    code = await asyncio.to_thread(router.wait, 15)
    assert code not in (0, -9)
    log = router.log()
    assert str(router.config_file) in log
    assert "Traceback" not in log
    if name in WRONG:
        assert WRONG[name][1] in log
    assert router.config_file.read_bytes() == content


@pytest.mark.parametrize("how", ["post", "hup", "change"])
@pytest.mark.parametrize("name", ["truncated", "binary", "chain_empty", "unknown_key"])
async def test_a_corrupt_file_at_a_reload(own: Own, name: str, how: str) -> None:
    """A reload of a broken file is refused with its place, and the old configuration stays in force."""
    stage = await own()
    content = CORRUPT[name] if name in CORRUPT else json.dumps(WRONG[name][0]).encode()
    before = (await stage.router.ask("GET", "/config")).json()
    told = stage.router.log()
    stage.router.config_file.write_bytes(content)
    if how == "post":
        got = await stage.router.ask("POST", "/config/reload")
        assert 400 <= got.status < 600
        assert got.error["message"]
        if name in WRONG:
            assert WRONG[name][1] in got.error["message"]
    else:
        if how == "hup":
            stage.router.signal(signal.SIGHUP)
        await until(lambda: "router_config.json" in stage.router.log().removeprefix(told))
    assert (await stage.router.ask("GET", "/config")).json() == before
    assert (await stage.chat("router/ab")).text == "Hello from upstream"
    assert stage.router.config_file.read_bytes() == content


@pytest.mark.parametrize("how", ["post", "hup", "change"])
async def test_a_changed_file_is_taken_over(own: Own, how: str) -> None:
    """A changed file, SIGHUP and POST swap the configuration while requests run."""
    stage = await own()
    config = json.loads(stage.router.config_file.read_text())
    config["model_mappings"]["ab"] = ["b/m2"]
    stage.router.config_file.write_text(json.dumps(config))
    if how == "post":
        assert (await stage.router.ask("POST", "/config/reload")).status == 200
    elif how == "hup":
        stage.router.signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE
    while (await stage.chat("router/ab")).header("x-router-model") != "b/m2":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_a_file_that_vanishes(own: Own) -> None:
    """A file that is gone at a reload does not take the configuration with it silently."""
    stage = await own()
    stage.router.config_file.unlink()
    got = await stage.router.ask("POST", "/config/reload")
    assert got.status in (200, 400, 404, 409, 422, 500)
    if got.status != 200:
        assert (await stage.chat("router/ab")).text == "Hello from upstream"


BAD_BODIES: dict[str, tuple[str, Any]] = {
    "no_json": ("/config/category", b"{"),
    "array": ("/config/category", []),
    "null": ("/config/category", b"null"),
    "empty": ("/config/category", b""),
    "no_name": ("/config/category", {"models": ["a/m1"]}),
    "no_models": ("/config/category", {"name": "x"}),
    "name_number": ("/config/category", {"name": 7, "models": ["a/m1"]}),
    "name_empty": ("/config/category", {"name": "", "models": ["a/m1"]}),
    "name_space": ("/config/category", {"name": "a b", "models": ["a/m1"]}),
    "name_path": ("/config/category", {"name": "../../etc", "models": ["a/m1"]}),
    "name_slash": ("/config/category", {"name": "a/b", "models": ["a/m1"]}),
    "name_long": ("/config/category", {"name": "x" * 65, "models": ["a/m1"]}),
    "name_newline": ("/config/category", {"name": "a\n", "models": ["a/m1"]}),
    "name_unicode": ("/config/category", {"name": "käse", "models": ["a/m1"]}),
    "name_nul": ("/config/category", {"name": "a\u0000", "models": ["a/m1"]}),
    "models_string": ("/config/category", {"name": "x", "models": "a/m1"}),
    "models_empty": ("/config/category", {"name": "x", "models": []}),
    "models_numbers": ("/config/category", {"name": "x", "models": [1]}),
    "models_null": ("/config/category", {"name": "x", "models": None}),
    "model_unknown": ("/config/category", {"name": "x", "models": ["nosuch/m"]}),
    "model_blank": ("/config/category", {"name": "x", "models": [" "]}),
    "keywords_string": ("/config/category", {"name": "x", "models": ["a/m1"], "keywords": "k"}),
    "keywords_empty": ("/config/category", {"name": "x", "models": ["a/m1"], "keywords": [""]}),
    "description_number": ("/config/category", {"name": "x", "models": ["a/m1"], "description": 7}),
    "examples_number": ("/config/category", {"name": "x", "models": ["a/m1"], "examples": 7}),
    "unknown_field": ("/config/category", {"name": "x", "models": ["a/m1"], "modles": []}),
    "mapping_no_category": ("/config/model-mapping", {"models": ["a/m1"]}),
    "mapping_no_models": ("/config/model-mapping", {"category": "ab"}),
    "mapping_empty": ("/config/model-mapping", {"category": "ab", "models": []}),
    "mapping_number": ("/config/model-mapping", {"category": 7, "models": ["a/m1"]}),
    "mapping_provider": ("/config/model-mapping", {"category": "ab", "models": ["nosuch/m"]}),
    "surrogate": ("/config/category", b'{"name": "x", "models": ["a/\\ud800"]}'),
    "deep": ("/config/category", b"[" * 100_000),
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bad_bodies_change_nothing(stage: Stage, name: str) -> None:
    """A bad configuration request is a 4xx that says what is wrong, without effect on memory or file."""
    path, body = BAD_BODIES[name]
    before = (await stage.router.ask("GET", "/config")).json()
    content = stage.router.config_file.read_bytes()
    got = await stage.router.ask("POST", path, body)
    assert 400 <= got.status < 500, got.raw
    assert got.error["message"]
    assert (await stage.router.ask("GET", "/config")).json() == before
    assert stage.router.config_file.read_bytes() == content


async def test_unknown_and_built_in_categories(stage: Stage) -> None:
    """An unknown category is 404; one of the four built-in ones cannot be deleted (400)."""
    got = await stage.router.ask("POST", "/config/model-mapping", {"category": "nosuch", "models": ["a/m1"]})
    assert got.status == 404
    assert (await stage.router.ask("DELETE", "/config/category/nosuch")).status == 404
    for name in ("tools", "code", "reasoning", "conversation"):
        assert (await stage.router.ask("DELETE", f"/config/category/{name}")).status == 400
    for name in ("..", "%2e%2e", "a%2fb", "%00", "x" * 3000, "%"):
        assert 400 <= (await stage.router.ask("DELETE", f"/config/category/{name}")).status < 500


async def test_a_category_comes_and_goes(own: Own) -> None:
    """A new category serves at once, stands in the file, survives a restart, and is removed whole."""
    stage = await own()
    body = {
        "name": "poems",
        "models": ["b/m2", "a/m1"],
        "keywords": ["limerick"],
        "description": "verse",
        "examples": ["write a limerick about rain"],
    }
    got = await stage.router.ask("POST", "/config/category", body)
    assert (got.status, type(got.json())) == (200, dict)
    assert (await stage.chat("router/poems")).header("x-router-model") == "b/m2"
    stored = json.loads(stage.router.config_file.read_text())
    assert stored["model_mappings"]["poems"] == ["b/m2", "a/m1"]
    assert stored["custom_categories"]["poems"]["keywords"] == ["limerick"]
    listed = (await stage.router.ask("GET", "/v1/models")).json()["data"]
    assert "router/poems" in [model["id"] for model in listed]
    await asyncio.to_thread(stage.router.kill)
    await asyncio.to_thread(stage.router.start)
    assert (await stage.chat("router/poems")).header("x-router-model") == "b/m2"
    got = await stage.router.ask("POST", "/config/model-mapping", {"category": "poems", "models": ["a/m1"]})
    assert got.status == 200
    assert (await stage.chat("router/poems")).header("x-router-model") == "a/m1"
    assert (await stage.router.ask("DELETE", "/config/category/poems")).status == 200
    assert (await stage.chat("router/poems")).status == 404
    stored = json.loads(stage.router.config_file.read_text())
    assert "poems" not in stored["model_mappings"]
    assert "poems" not in stored.get("custom_categories", {})


async def test_parallel_writers_lose_nothing(own: Own) -> None:
    """Sixty writers at once: the file parses at every instant and holds every category at the end."""
    stage = await own()
    stop = asyncio.Event()
    seen = 0

    async def watch() -> None:
        nonlocal seen
        while not stop.is_set():
            json.loads(stage.router.config_file.read_bytes())
            seen += 1
            await asyncio.sleep(0)

    watcher = asyncio.ensure_future(watch())
    names = [f"cat{number}" for number in range(60)]
    got = await asyncio.gather(
        *(stage.router.ask("POST", "/config/category", {"name": name, "models": ["a/m1"]}) for name in names)
    )
    stop.set()
    await watcher
    assert {one.status for one in got} == {200}
    assert seen > 10
    stored = json.loads(stage.router.config_file.read_text())
    assert set(names) <= set(stored["model_mappings"])
    assert set(names) <= set((await stage.router.ask("GET", "/config")).json()["model_mappings"])
    assert not [path for path in stage.router.folder.iterdir() if "tmp" in path.name]


async def test_a_kill_in_a_storm_leaves_a_whole_file(own: Own) -> None:
    """SIGKILL among writers: the file parses, and what was answered with 200 is in it."""
    stage = await own()
    for turn in range(3):
        answered: list[str] = []

        async def writer(number: int, turn: int = turn, answered: list[str] = answered) -> None:
            name = f"storm{turn}x{number}"
            try:
                got = await stage.router.ask("POST", "/config/category", {"name": name, "models": ["a/m1"]})
            except OSError:
                return
            if got.status == 200:
                answered.append(name)

        writers = asyncio.ensure_future(asyncio.gather(*(writer(number) for number in range(40))))
        await asyncio.sleep(0.05 + 0.03 * turn)
        await asyncio.to_thread(stage.router.kill)
        await writers
        stored = json.loads(stage.router.config_file.read_text())
        assert set(answered) <= set(stored["model_mappings"])
        await asyncio.to_thread(stage.router.start)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664])
async def test_the_files_mode_is_kept(own: Own, mode: int) -> None:
    """A write keeps the mode of the file."""
    stage = await own()
    stage.router.config_file.chmod(mode)
    assert (await stage.router.ask("POST", "/config/category", {"name": "x", "models": ["a/m1"]})).status == 200
    assert stage.router.config_file.stat().st_mode & 0o777 == mode


async def test_a_link_and_the_users_notes_are_kept(launch: Launch, tmp_path: Path) -> None:
    """A write goes through a symbolic link and leaves notes (`_`, `$`) at every level where they were."""
    config = chains({"a": 1, "b": 1}, {"ab": ["a/m1"]})
    config |= {"_note": "keep me", "$schema": "x"}
    config["providers"]["a"]["_why"] = "cheap"
    config["model_mappings"]["_comment"] = "chains"
    real = tmp_path / "elsewhere" / "real.json"
    real.parent.mkdir()
    real.write_text(json.dumps(config))
    router = RouterProcess(tmp_path / "r", config)
    router.config_file.unlink()
    router.config_file.symlink_to(real)
    await asyncio.to_thread(router.start)
    try:
        assert (await router.ask("POST", "/config/category", {"name": "x", "models": ["a/m1"]})).status == 200
    finally:
        await asyncio.to_thread(router.stop)
    assert router.config_file.is_symlink()
    stored = json.loads(real.read_text())
    assert stored["_note"] == "keep me"
    assert stored["$schema"] == "x"
    assert stored["providers"]["a"]["_why"] == "cheap"
    assert stored["model_mappings"]["_comment"] == "chains"
    assert stored["model_mappings"]["x"] == ["a/m1"]


async def test_a_file_that_is_changed_by_hand_meanwhile_is_not_lost(own: Own) -> None:
    """An API write builds on the file as it is now, so a hand edit just before it survives."""
    stage = await own()
    config = json.loads(stage.router.config_file.read_text())
    config["keywords"] = {"code": ["handmade"]}
    stage.router.config_file.write_text(json.dumps(config))
    assert (await stage.router.ask("POST", "/config/category", {"name": "x", "models": ["a/m1"]})).status == 200
    stored = json.loads(stage.router.config_file.read_text())
    assert stored["keywords"] == {"code": ["handmade"]}
    assert stored["model_mappings"]["x"] == ["a/m1"]


async def test_a_request_keeps_its_snapshot(own: Own) -> None:
    """A request that started under the old configuration ends under it."""
    stage = await own()
    stage.a.script = reply(500, b"", delay=0.6)
    running = asyncio.ensure_future(stage.chat("router/ab"))
    await stage.a.wait_for(1)
    got = await stage.router.ask("POST", "/config/model-mapping", {"category": "ab", "models": ["c/m3"]})
    assert got.status == 200
    assert (await running).header("x-router-model") == "b/m2"
    stage.a.script = healthy
    assert (await stage.chat("router/ab")).header("x-router-model") == "c/m3"


async def test_an_unwritable_configuration(own: Own) -> None:
    """Where the file's folder cannot be written a change is 500 with the old configuration in force."""
    if os.getuid() == 0:
        stage = await own()
        target = stage.router.config_file
        content = target.read_bytes()
        target.unlink()
        target.mkdir()
        got = await stage.router.ask("POST", "/config/category", {"name": "x", "models": ["a/m1"]})
        assert got.status >= 400
        assert (await stage.chat("router/x")).status == 404
        target.rmdir()
        target.write_bytes(content)
        return
    stage = await own()
    stage.router.folder.chmod(0o500)
    try:
        got = await stage.router.ask("POST", "/config/category", {"name": "x", "models": ["a/m1"]})
    finally:
        stage.router.folder.chmod(0o700)
    assert got.status == 500
    assert (await stage.chat("router/x")).status == 404


async def test_secrets_in_base_urls_are_not_shown(own: Own) -> None:
    """Credentials in a base URL are in no answer of the monitoring and configuration routes."""
    stage = await own()
    config = json.loads(stage.router.config_file.read_text())
    config["providers"]["p"] = {
        "base_url": "https://user:hunter2secret@127.0.0.1:1/v1?key=hunter3secret",
        "api_key_env": "A_KEY",
    }
    stage.router.config_file.write_text(json.dumps(config))
    reloaded = await stage.router.ask("POST", "/config/reload")
    everything = reloaded.raw
    for path in ("/config", "/providers", "/metrics", "/health", "/v1/models", "/circuit-breaker", "/"):
        everything += (await stage.router.ask("GET", path)).raw
    everything += stage.router.log().encode()
    assert b"hunter2secret" not in everything
    assert b"hunter3secret" not in everything


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROUTER_PORT", "eighty"),
        ("ROUTER_PORT", "99999"),
        ("ROUTER_IDLE_TIMEOUT", "soon"),
        ("ROUTER_IDLE_TIMEOUT", "-1"),
        ("ROUTER_IDLE_TIMEOUT", "nan"),
        ("ROUTER_IDLE_TIMEOUT", "inf"),
        ("ROUTER_CIRCUIT_THRESHOLD", "0"),
        ("ROUTER_CIRCUIT_THRESHOLD", "2.5"),
        ("ROUTER_MAX_BODY_BYTES", "32MB"),
        ("ROUTING_MODE", "magic"),
        ("DEFAULT_PROVIDER", "nosuch"),
        ("ROUTER_LOG_FORMAT", "xml"),
        ("ROUTER_LOG_LEVEL", "shout"),
        ("OPENAI_BASE_URL", "not a url"),
        ("OPENAI_BASE_URL", "file:///etc/passwd"),
        ("ROUTER_ALLOW_UNAUTHENTICATED", "perhaps"),
    ],
)
async def test_a_bad_environment_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    """A variable that cannot be used stops the start with a message that names it."""
    router = RouterProcess(tmp_path, {}, env={name: value})
    if name == "ROUTER_PORT":
        at = router.command.index("--port")
        del router.command[at : at + 2]
    await asyncio.to_thread(router.start, False)
    assert await asyncio.to_thread(router.wait, 15) != 0
    assert name in router.log() or value in router.log()
    assert "Traceback" not in router.log()
