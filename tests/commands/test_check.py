"""`check`: settings with their sources, what looks wrong, and short answers of models; no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_router.accounting.pricing import PriceTable
from llm_router.commands import live
from llm_router.commands.common import DATA
from llm_router.config.loading import load
from tests.commands.conftest import KEY, Run
from tests.support.router import keep_port
from tests.support.upstream import Upstream, plain, reply


def test_check_shows_settings_sources_chains_and_no_secret(run: Run) -> None:
    """Every setting with value and source, providers, chains with prices, models without a price; keys masked."""
    Path("router_config.json").write_text(
        json.dumps(
            {"model_mappings": {"code": ["openai/gpt-4o", "openai/nosuch-9", "openai/o3", "anthropic/claude-opus-5-5"]}}
        )
    )
    code, out, err = run("check", OPENAI_API_KEY=KEY, ROUTER_PORT="4000", ROUTER_API_KEY="client-key-0123456789")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "4000" in rows["server.port"]
    assert "environment" in rows["server.port"]
    assert "ROUTER_PORT" in rows["server.port"]
    assert "****ghij" in rows["providers.openai.api_key_env"]
    assert KEY not in out
    assert "client-key" not in out
    assert "2.50" in next(line for line in out.splitlines() if "openai/gpt-4o " in line)
    assert "skipped: ANTHROPIC_API_KEY is not set" in out
    assert "ready; retired on 2026-12-11" in next(line for line in out.splitlines() if "openai/o3 " in line)
    assert "Models without a price" in out
    assert "  openai/nosuch-9" in out


@pytest.mark.parametrize(
    ("content", "environ", "words"),
    [
        ('{"keywords": ', {}, "router_config.json, line 1 column"),
        ('{"keyword": {}}', {}, 'router_config.json: keyword: unknown key; did you mean "keywords"?'),
        ("{}", {"ROUTER_PORT": "http"}, "ROUTER_PORT: must be a whole number"),
    ],
)
def test_check_of_a_bad_configuration(run: Run, content: str, environ: dict[str, str], words: str) -> None:
    """It ends with 78 and one line that names the place."""
    Path("router_config.json").write_text(content)
    code, out, err = run("check", **environ)
    assert (code, out) == (78, "")
    assert err.startswith("llm-router: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(
    "argv", [["explain", "hi"], ["evaluate", "rows"], ["usage"], ["init"], ["serve", "--port", "0"]]
)
def test_a_bad_configuration_stops_every_command(run: Run, argv: list[str]) -> None:
    """No command goes on with settings that are not valid; each ends with 78 and the same one line."""
    Path("rows").write_text('{"label": "code", "text": "x"}')
    code, out, err = run(*argv, ROUTER_IDLE_TIMEOUT="soon")
    assert (code, out) == (78, "")
    assert "ROUTER_IDLE_TIMEOUT: must be a number of seconds" in err


def test_check_tells_what_looks_wrong(run: Run) -> None:
    """A key in quotation marks is valid and told."""
    code, out, _ = run("check", OPENAI_API_KEY=f"'{KEY}'")
    assert code == 0
    assert "OPENAI_API_KEY begins or ends with a quotation mark" in out


def test_check_for_programs(run: Run) -> None:
    """One JSON object says what the tables say, keys masked; a start that would be refused is 78 here too."""
    chain = ["openai/gpt-4o", "openai/nosuch-9", "anthropic/claude-opus-5-5"]
    Path("router_config.json").write_text(json.dumps({"model_mappings": {"code": chain}}))
    code, out, err = run("check", "--format", "json", OPENAI_API_KEY=KEY, ROUTER_PORT="4000")
    assert (code, err) == (0, "")
    assert KEY not in out
    found = json.loads(out)
    assert found["config_file"] == str(Path.cwd() / "router_config.json")
    port = {"setting": "server.port", "value": "4000", "source": "environment", "variable": "ROUTER_PORT"}
    assert port in found["settings"]
    assert [model["model"] for model in found["chains"]["code"]] == chain
    assert (found["chains"]["code"][0]["input"], found["chains"]["code"][1]["input"]) == (2.5, None)
    assert found["chains"]["code"][2]["missing"] == ["ANTHROPIC_API_KEY"]
    assert found["without_price"] == ["openai/nosuch-9"]
    assert (found["worth_a_look"], found["refusal"], "live" in found) == ([], None, False)
    openai = next(provider for provider in found["providers"] if provider["provider"] == "openai")
    assert (openai["configured"], openai["proxy"]) == (True, None)
    code, out, _ = run("check", "--format", "json", "--live", ROUTER_HOST="0.0.0.0")
    assert (code, json.loads(out)["refusal"][:24]) == (78, "refusing to bind 0.0.0.0")


def test_check_live_for_programs(run: Run) -> None:
    """Each model that was asked is there with its answer or its problem, and nothing but JSON on standard output."""
    chains = {name: ["openai/gpt-4o"] for name in ("tools", "code", "reasoning", "conversation")}
    Path("router_config.json").write_text(json.dumps({"model_mappings": chains}))
    with keep_port() as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        code, out, err = run("check", "--live", "--format", "json", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=address)
    (asked,) = json.loads(out)["live"]
    assert (code, asked["model"], asked["optional"]) == (1, "openai/gpt-4o", False)
    assert asked["problem"].startswith("connect_error")
    assert err == "llm-router: asking 1 model for a short answer ...\n"


def test_check_names_a_file_that_may_come(run: Run) -> None:
    """A file that a variable names and that is not there is neither passed over nor taken for the default."""
    out = run("check", ROUTER_CONFIG_FILE="later.json")[1]
    assert out.startswith(f"Configuration file: {Path.cwd()}/later.json (not there yet)\n")
    assert run("check", ROUTER_CONFIG_FILE="")[1].startswith("Configuration file: none (llm-router init writes one)\n")


def test_check_shows_the_way_through_a_proxy(run: Run) -> None:
    """Who is reached through which proxy, without its password; one that cannot be used says why."""
    assert "through the proxy" not in run("check")[1]
    out = run("check", HTTPS_PROXY="http://user:secret@proxy.example:3128", NO_PROXY="api.openai.com")[1]
    rows = {line.split()[0]: line for line in out[out.index("\nProviders") :].splitlines() if line.strip()}
    assert rows["anthropic"].endswith("  proxy.example:3128")
    assert rows["openai"].endswith("https://api.openai.com/v1")
    assert rows["ollama"].endswith("http://localhost:11434")
    assert "secret" not in out
    assert "it cannot be asked: the proxy's URL must start with http://" in run("check", HTTPS_PROXY="socks5://x:1")[1]


def test_check_suggests_the_model_that_was_meant(run: Run) -> None:
    """Beside a model without a price stands the known one that is written nearly so."""
    Path("router_config.json").write_text('{"model_mappings": {"code": ["openai/gpt-4o-mni", "gpt-4o", "ollama/zzz"]}}')
    out = run("check")[1]
    assert "  openai/gpt-4o-mni  (similar, and known: openai/gpt-4o-mini)\n" in out
    assert "  openrouter/gpt-4o  (similar, and known: openrouter/openai/gpt-4o)\n" in out


def test_check_refuses_what_serve_refuses(run: Run) -> None:
    """An address that the start would not bind is 78 here too, after all that there is to see."""
    code, out, err = run("check", "--live", ROUTER_HOST="0.0.0.0", OPENAI_API_KEY=KEY)
    assert code == 78
    assert "Settings" in out
    assert "asking" not in err
    assert "Short answers" not in out
    assert "refusing to bind 0.0.0.0" in err


async def test_check_live_asks_each_model_once() -> None:
    """Each configured model is asked for a short answer; a failing one is told with its reason, without its key."""
    good, bad = Upstream(), Upstream()
    good.script = plain("pong")
    bad.script = reply(401, {"error": {"message": f"bad key {KEY}"}})
    await good.start()
    await bad.start()
    content = {
        "model_mappings": {
            name: ["a/m1", "b/m2", "openai/x"] for name in ("tools", "code", "reasoning", "conversation")
        },
        "providers": {
            "a": {"base_url": f"http://127.0.0.1:{good.port}/v1"},
            "b": {"base_url": f"http://127.0.0.1:{bad.port}/v1", "api_key_env": "B"},
        },
    }
    snapshot = load({"B": KEY}, {}, json.dumps(content).encode(), "f")
    models = list(live.askable(snapshot))
    prices = PriceTable.parse((DATA / "prices.json").read_bytes(), {})
    try:
        outcomes = await live._ask_all(snapshot, prices, models)
    finally:
        await good.stop()
        await bad.stop()
    assert models == ["a/m1", "b/m2"]
    assert [(each.model, each.answer) for each in outcomes] == [("a/m1", "pong"), ("b/m2", "")]
    assert outcomes[0].result == "ok"
    assert outcomes[1].result.startswith("authentication: ")
    assert KEY not in outcomes[1].result
    assert len(good.exchanges) == len(bad.exchanges) == 1
    assert good.exchanges[0].request.json()["model"] == "m1"


def test_what_a_model_says_drives_no_terminal() -> None:
    """Escapes and marks of direction in an answer or an error are shown as what they are not."""
    assert live._one_line("a\x1b]0;x\x07 \x9b31m\u202eb\nc", 60) == "a?]0;x? ?31m?b c"


def test_check_live_with_nobody_to_ask_is_no_success(run: Run) -> None:
    """A script that waits for a working router does not go on where no model could even be asked."""
    chains = {name: ["openai/gpt-4o"] for name in ("tools", "code", "reasoning", "conversation")}
    Path("router_config.json").write_text(json.dumps({"model_mappings": chains}))
    code, out, _ = run("check", "--live")
    assert code == 1
    assert out.endswith("There is no model to ask: no provider of the chains has a key.\n")


def test_check_live_forgives_an_ollama_that_nobody_named(run: Run) -> None:
    """Ollama as the last resort of default chains may be absent; one that was named may not."""
    default = load({}, {}, None, "f")
    named = load({}, {}, b'{"model_mappings": {"code": ["ollama/mine"]}}', "f")
    placed = load({"OLLAMA_BASE_URL": "http://10.0.0.2:11434"}, {}, None, "f")
    assert live._is_optional(default, default.categories["code"].models[-1])
    assert not live._is_optional(named, "ollama/mine")
    assert not live._is_optional(placed, placed.categories["code"].models[-1])
    assert live.Outcome("ollama/x", 1.0, problem="connect_error", optional=True).result == "connect_error (optional)"
    chains = {name: ["ollama/nosuch-model"] for name in ("tools", "code", "reasoning", "conversation")}
    Path("router_config.json").write_text(json.dumps({"model_mappings": chains}))
    code, out, _ = run("check", "--live", OLLAMA_BASE_URL="http://127.0.0.1:9")
    assert code == 1
    assert "connect_error" in out
