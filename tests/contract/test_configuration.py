"""Section 3 from outside: where settings come from, what is refused and by which name, what the API writes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.contract.conftest import Cli, Desk, Launch, file_content, keys_and_places
from tests.support.router import free_port
from tests.support.upstream import Upstream, healthy

KEY = "sk-dotenv-0123456789"


@pytest.mark.parametrize(
    ("env", "dotenv", "line"),
    [
        ({}, f"OPENAI_API_KEY={KEY}", "OPENAI_API_KEY=****6789 .env"),
        ({"OPENAI_API_KEY": ""}, f"OPENAI_API_KEY={KEY}", "OPENAI_API_KEY=****6789 .env"),
        ({"INVOCATION_ID": "1"}, f"OPENAI_API_KEY={KEY}", "providers.openai.api_key_env -"),
        ({"ROUTER_PORT": "4000"}, "ROUTER_PORT=5000", "server.port 4000 environment"),
        ({}, "ROUTER_PORT=5000", "server.port 5000 .env"),
        ({}, "ROUTER_NAME=a${HOME}b", "attribution.name a${HOME}b .env"),
        ({}, f"OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL=http://mine/v1", "openai.base_url http://mine/v1 .env"),
        (
            {"OPENAI_API_KEY": KEY},
            "OPENAI_BASE_URL=http://mine/v1",
            "openai.base_url https://api.openai.com/v1",
        ),
        ({"GEMINI_API_KEY": KEY}, "GOOGLE_BASE_URL=http://mine/v1", "google.base_url https://generativelanguage"),
        ({"ROUTING_MODE": ""}, "", "routing_mode keywords file"),
        ({"ROUTING_MODE": "hybrid"}, "", "routing_mode hybrid environment"),
        ({}, "ROUTING_MODE=ollama", "routing_mode ollama .env"),
    ],
)
def test_where_a_setting_comes_from(cli: Cli, env: dict[str, str], dotenv: str, line: str) -> None:
    """Environment, `.env`, file, default; an empty variable is unset; `.env` redirects no key that is not its own."""
    got = cli("check", env=env, files={".env": dotenv + "\n", "router_config.json": {"routing_mode": "keywords"}})
    assert got.returncode == 0, got.stderr
    assert line in " ".join(got.stdout.split())
    assert KEY not in got.stdout


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"nope": 1}, "nope"),
        ({"circuit_breaker": {"foo": 1}}, "circuit_breaker.foo"),
        ({"providers": {"g": {"base_url": "http://x", "wat": 1}}}, "providers.g.wat"),
        ({"providers": {"g": {"base_url": "http://x", "api": "zzz"}}}, "providers.g.api"),
        ({"model_mappings": {"code": []}}, "model_mappings.code"),
        ({"model_mappings": {"code": "openai/x"}}, "model_mappings.code"),
        ({"model_mappings": {"code": ["openai/x", "nope/y"]}}, "model_mappings.code[1]"),
        ({"custom_categories": {"c": {"models": ["nope/y"]}}}, "custom_categories.c.models[0]"),
        ({"custom_categories": {"c": {"models": ["openai/x"], "keywords": [""]}}}, "custom_categories.c.keywords[0]"),
        ({"keywords": {"code": [1]}}, "keywords.code[0]"),
        ({"categories": {"zzz": {"order": "price"}}}, "categories.zzz"),
        ({"categories": {"code": {"order": "zzz"}}}, "categories.code.order"),
        ({"prices": {"openai/x": {"input": -1}}}, "prices.openai/x.input"),
        ({"timeouts": {"idle": "120"}}, "timeouts.idle"),
        ({"timeouts": {"idle": True}}, "timeouts.idle"),
        ([], "router_config.json"),
    ],
)
def test_a_bad_file_is_refused_by_its_place(cli: Cli, config: Any, place: str) -> None:
    """Unknown keys, wrong types, empty chains and unknown providers end a command with the file and the key's path."""
    got = cli("check", files={"router_config.json": config})
    assert got.returncode == 78
    assert "router_config.json" in got.stderr
    assert place in got.stderr
    assert "Traceback" not in got.stderr


def test_notes_are_ignored_at_every_level(cli: Cli) -> None:
    """Keys that begin with `_` or `$` are the user's, wherever they stand."""
    note = {"_note": 1, "$schema": []}
    config = {
        **note,
        "model_mappings": {**note, "code": ["openai/gpt-4o"]},
        "keywords": {**note, "code": ["python"]},
        "custom_categories": {**note, "c": {**note, "models": ["openai/gpt-4o"]}},
        "categories": {**note, "code": {**note, "timeouts": {**note, "first_byte": 9}}},
        "circuit_breaker": {**note, "failure_threshold": 4},
        "providers": {**note, "groq": {**note, "base_url": "https://api.groq.com/openai/v1"}},
        "prices": {**note, "groq/x": {**note, "input": 1, "output": 2}},
        "timeouts": {**note, "idle": 33},
    }
    got = cli("check", files={"router_config.json": config})
    assert got.returncode == 0, got.stderr


def test_init_never_overwrites(cli: Cli) -> None:
    """`init` writes a file for the keys that are set, which `check` accepts, and leaves an existing one alone."""
    env = {"OPENAI_API_KEY": "sk-0123456789"}
    assert cli("init", env=env).returncode == 0
    assert cli("check", env=env).returncode == 0
    again = cli("init", env={"ANTHROPIC_API_KEY": "sk-ant-0123456789"})
    assert "was not changed" in again.stdout
    explained = cli("explain", "hello", env=env)
    assert "openai/" in explained.stdout
    assert "anthropic/" not in explained.stdout


async def test_credentials_in_a_base_url_are_used_and_not_shown(launch: Launch) -> None:
    """A base URL may hold credentials: they are the provider's, and nobody sees them."""
    upstream = Upstream()
    upstream.script = healthy
    await upstream.start()
    config = {"providers": {"p": {"base_url": f"http://me:hunter2secret@127.0.0.1:{upstream.port}/v1"}}}
    router = await launch(config)
    try:
        assert (await router.chat("p/x", False)).status == 200
        assert upstream.last.request.header("authorization") == "Basic bWU6aHVudGVyMnNlY3JldA=="
        for path in ("/providers", "/config", "/metrics", "/health", "/v1/models"):
            assert b"hunter2secret" not in (await router.ask("GET", path)).raw
        assert "hunter2secret" not in router.log()
    finally:
        await upstream.stop()


async def test_a_category_comes_and_goes_whole(launch: Launch) -> None:
    """`model_mappings` wins over `custom_categories`; DELETE removes the category from every place that names it."""
    ports = {"groq": free_port()}
    config = file_content(
        ports,
        model_mappings={"c": ["groq/mapped"]},
        custom_categories={"c": {"models": ["groq/custom"], "keywords": ["zork"]}},
        keywords={"c": ["more"]},
        categories={"c": {"order": "price"}},
    )
    router = await launch(config, env=keys_and_places(ports))
    assert (await router.ask("GET", "/config")).json()["model_mappings"]["c"] == ["groq/mapped"]
    new = {"name": "poems", "models": ["groq/p"], "keywords": ["ode"], "description": "d", "examples": ["an ode"]}
    assert (await router.ask("POST", "/config/category", new)).status == 200
    written = json.loads(router.config_file.read_text())
    assert written["model_mappings"]["poems"] == ["groq/p"]
    assert written["custom_categories"]["poems"] == {"keywords": ["ode"], "description": "d", "examples": ["an ode"]}
    for name in ("c", "poems"):
        assert (await router.ask("DELETE", f"/config/category/{name}")).status == 200
        assert (await router.ask("DELETE", f"/config/category/{name}")).status == 404
        assert (await router.chat(f"router/{name}", False)).status == 404
    written = json.loads(router.config_file.read_text())
    assert not any("c" in written.get(place, {}) for place in ("model_mappings", "custom_categories", "keywords"))
    assert (await router.ask("POST", "/config/reload")).status == 200
    told = router.log()
    assert " WARNING " not in told, "a client's mistake is no trouble of ours"
    assert " ERROR " not in told


@pytest.mark.parametrize("name", ["tools", "code", "reasoning", "conversation"])
async def test_the_four_stay(desk: Desk, name: str) -> None:
    """A built-in category cannot be deleted: 400."""
    got = await desk.ask("DELETE", f"/config/category/{name}")
    assert (got.status, got.error["param"]) == (400, "name")


async def test_what_is_not_there_is_told_in_json(desk: Desk) -> None:
    """Unknown routes and wrong methods are told in JSON, with a newline, and say what there is."""
    for method, path, status, words in (
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("POST", "/v1/responses", 404, "not offered"),
        ("POST", "/v1/messages?beta=true", 404, "not offered"),
        ("POST", "/v1/embeddings", 404, "not offered"),
        ("POST", "/config/model-mapping", 404, "nosuch"),
        ("GET", "/nosuch", 404, "/nosuch"),
    ):
        body = {"category": "nosuch", "models": ["groq/x"]} if method == "POST" else None
        got = await desk.ask(method, path, body)
        assert got.status == status, path
        assert words in got.error["message"]
        assert got.body.endswith(b"}\n")


@pytest.mark.parametrize(
    ("style", "out"),
    [
        ("json", r"\[\]\n"),
        ("csv", r"day,requests,[a-z_,]*,cost_usd,[a-z_,]*\n"),
        ("table", r"No requests in this time\.\n"),
    ],
)
def test_usage_before_the_first_request(cli: Cli, style: str, out: str) -> None:
    """`usage` without a ledger is an empty report in the form that was asked for, and says where it looked."""
    got = cli("usage", "--by", "day", "--format", style)
    assert got.returncode == 0
    assert re.fullmatch(out, got.stdout)
    assert "no request has been booked yet" in got.stderr
