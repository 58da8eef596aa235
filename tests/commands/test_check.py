"""`check`: what is in force, where it comes from, and what looks wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import KEY, Run


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


def test_check_looks_at_the_disk(run: Run) -> None:
    """A state folder and certificates that cannot be used are told before the start, and no folder is made."""
    Path("file").write_text("")
    told = run("check", ROUTER_STATE_DIR="file/state", SSL_CERT_FILE="nosuch.pem")[1]
    assert "  - the state folder file/state cannot be written by this user" in told
    assert "  - SSL_CERT_FILE, SSL_CERT_DIR: no certificates could be read" in told
    told = run("check", ROUTER_STATE_DIR="new/state")[1]
    assert "cannot be written" not in told
    assert not Path("new").exists()


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
    through = run("check", HTTPS_PROXY="http://proxy.example:3128", NO_PROXY="api.openai.com:443,api.anthropic.com:80")[
        1
    ]
    assert [line.endswith("3128") for line in through.splitlines() if "api.openai" in line][-1:] == [False]
    assert any(line.endswith("3128") for line in through.splitlines() if "api.anthropic" in line)
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
