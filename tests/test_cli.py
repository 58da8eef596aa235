"""The command line: what each command prints, which exit code it gives, and that no secret is shown."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router import __version__
from llm_router.accounting import report
from llm_router.accounting.pricing import PriceTable
from llm_router.cli import main, make_parser
from llm_router.commands import live, serve, usage
from llm_router.commands.common import DATA, dollars
from llm_router.config.loading import load
from tests.support.router import keep_port
from tests.support.upstream import Upstream, plain, reply

KEY = "sk-proj-0123456789abcdefghij"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder with nothing but the given variables; gives code, output, errors."""
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*argv: str, **environ: str) -> tuple[int, str, str]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        try:
            code = main(argv)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


# --- parsing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "serve", "check", "explain", "usage", "init", "evaluate"])
def test_help_fits_the_terminal(run: Run, command: str) -> None:
    """Eighty columns hold every line of the help, and wide terminals get wide paragraphs."""
    shown = run(*filter(None, [command]), "--help", COLUMNS="80")[1]
    assert max(map(len, shown.splitlines())) <= 80
    assert max(map(len, run(*filter(None, [command]), "--help", COLUMNS="120")[1].splitlines())) > 80


def test_help_and_version_are_quick_and_light() -> None:
    """`--version` and `--help` import nothing heavy."""
    script = (
        "import sys\nfrom llm_router.cli import main\n"
        "try:\n main([sys.argv[1]])\nexcept SystemExit as stop:\n assert not stop.code\n"
        "heavy = {'aiohttp', 'tiktoken', 'orjson', 'prometheus_client', 'tabulate', 'asyncio', 'sqlite3'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    for flag in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", script, flag], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert __version__ in done.stdout or "first steps" in done.stdout


def test_python_dash_m_is_the_same_program() -> None:
    """`python -m llm_router` has the same name and version."""
    done = subprocess.run([sys.executable, "-m", "llm_router", "--version"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"llm-router {__version__}\n")


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        ([], {}),
        (["serve"], {}),
        (["--port", "4000"], {"port": 4000}),
        (["serve", "--host", "::1", "--config", "x.json"], {"host": "::1", "config": "x.json"}),
        (["--demo", "--log-format", "json"], {"demo": True, "log_format": "json"}),
        (["--allow-unauthenticated", "--log-level", "debug"], {"allow_unauthenticated": True, "log_level": "debug"}),
        (["--log-level", "WARN"], {"log_level": "warning"}),
    ],
)
def test_without_a_command_it_serves(
    run: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str], flags: dict[str, Any]
) -> None:
    """Serve's options stand with or without the word; what is not given is not set."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("llm_router.server.app.run", lambda given: seen.append(given) or 69)
    assert run(*argv)[0] == 69
    nothing = dict.fromkeys(serve._FLAGS, None)
    assert seen == [{**nothing, "demo": False, **flags}]


@pytest.mark.parametrize("argv", [["nosuch"], ["serve", "--prot", "1"], ["usage", "--by", "moon"], ["check", "extra"]])
def test_a_command_line_that_is_not_understood(run: Run, argv: list[str]) -> None:
    """It ends with 2 and a message that names what was wrong."""
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert argv[-1].split("=")[0] in err or argv[-2] in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--port", "abc"], "--port: must be a whole number"),
        (["serve", "--port", "65536"], "--port: must be a whole number from 0 to 65535"),
        (["serve", "--workers", "0"], "--workers: must be a whole number from 1 to 64"),
        (["serve", "--host", "http://here"], "--host: must be an address"),
        (["serve", "--log-level", "loud"], "--log-level: must be one of debug"),
    ],
)
def test_a_flag_that_cannot_be_used_is_a_mistake_of_the_command_line(run: Run, argv: list[str], words: str) -> None:
    """A bad flag is 2 with the remedy, while a bad variable is 78."""
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert words in err
    assert run("serve", ROUTER_PORT="abc")[0] == 78


def test_no_option_takes_a_secret() -> None:
    """Keys never come by the command line, where every user of the machine can read them."""
    commands = next(action for action in make_parser()._actions if action.dest == "command")
    options = [option for parser in commands.choices.values() for option in parser._option_string_actions]
    assert options
    assert not [option for option in options if "key" in option or "token" in option or "secret" in option]


# --- check ------------------------------------------------------------------------------------------------------------


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


# --- explain and evaluate ---------------------------------------------------------------------------------------------


def test_explain_shows_category_candidates_and_skipped(run: Run) -> None:
    """A text is classified and planned; nothing is called and nothing is written."""
    Path("router_config.json").write_text(
        '{"model_mappings": {"code": ["openai/gpt-4o", "anthropic/claude-opus-5-5"]}}'
    )
    code, out, err = run("explain", "Fix this Python traceback: KeyError in load()", OPENAI_API_KEY=KEY)
    assert (code, err) == (0, "")
    assert out.startswith("Category    code (mode local, confidence ")
    assert "openai/gpt-4o" in out
    assert "ANTHROPIC_API_KEY" in out
    assert not (Path.cwd().parent / "home").exists()


def test_explain_takes_a_whole_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request from a file or from standard input is explained as it would be routed; JSON on demand."""
    body = {"model": "router/reasoning", "messages": [{"role": "user", "content": "hi"}]}
    Path("request.json").write_text(json.dumps(body))
    code, out, _ = run("explain", "--request", "request.json", "--format", "json", OPENAI_API_KEY=KEY)
    assert code == 0
    assert json.loads(out)["category"] == "reasoning"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(body).encode())))
    assert "Category    reasoning" in run("explain", "--request", "-")[1]


def test_explain_takes_words_without_quotes_and_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words need no quotes around them; a dash alone means what is piped in, as it does for a whole request."""
    quoted = run("explain", "fix this python traceback")
    assert quoted[0] == 0
    assert run("explain", "fix", "this", "python", "traceback") == quoted
    monkeypatch.setattr(sys, "stdin", io.StringIO("fix this python traceback"))
    assert run("explain", "-") == quoted


@pytest.mark.parametrize(
    ("argv", "content", "code", "words"),
    [
        (["explain"], "", 2, "either a text or --request"),
        (["explain", "x", "--request", "f"], "", 2, "either a text or --request"),
        (["explain", "--request", "absent"], "", 1, "absent: No such file"),
        (["explain", "--request", "f"], "{", 1, "f: The request body is not valid JSON"),
        (["explain", "--request", "f"], '{"model": "router"}', 1, "'messages' is missing"),
        (["evaluate", "f"], "\n", 1, "holds no rows"),
        (["evaluate", "f"], "[]", 1, 'f: line 1: must be an object with a "label"'),
        (["evaluate", "f"], '{"label": "code", "text": "x", "accept": "y"}', 1, '"accept" must be a list'),
        (["evaluate", "f"], '{"label": "code"}', 1, 'f: line 1: has neither a "text" nor a "request"'),
        (["evaluate", "f"], '{"label": "code", "text": "x"}\n{', 1, "f: line 2: "),
        (["evaluate", "f"], '{"label": "code", "request": {"messages": []}}', 1, "f: row 1: 'messages' must not be"),
        (["evaluate", "absent"], "", 1, "absent: No such file"),
        (["evaluate", "-"], "", 1, "standard input: holds no rows"),
        (["explain", "--request", "-"], "", 1, "standard input: The request body"),
    ],
)
def test_what_cannot_be_explained_or_evaluated(
    run: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str], content: str, code: int, words: str
) -> None:
    """A request or a row that cannot be read is told with its place."""
    Path("f").write_text(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    found, out, err = run(*argv)
    assert (found, out) == (code, "")
    assert words in err


def test_evaluate_wants_text(run: Run) -> None:
    """Rows that are no text are told as such, not as a codec sees them."""
    Path("rows").write_bytes(b"\xa8\x00")
    assert run("evaluate", "rows")[2] == "llm-router: rows: is not UTF-8 text\n"


def test_a_precision_that_nobody_can_know_is_no_zero(run: Run) -> None:
    """Where no row was given a category, how precisely it is given is unknown: null, and a dash in the table."""
    Path("rows").write_text('{"label": "creative", "accept": ["conversation"], "text": "Good morning! How are you?"}')
    scores = json.loads(run("evaluate", "rows", "--format", "json")[1])["by_label"]["creative"]
    assert scores == {"rows": 1, "precision": None, "recall": 1.0, "f1": None}
    assert ["creative", "1", "-", "100.0%", "-"] in [line.split() for line in run("evaluate", "rows")[1].splitlines()]


def test_evaluate_scores_the_users_own_rows(run: Run) -> None:
    """Accuracy, confusion and cost come from the configuration in force; `accept` counts as right."""
    rows: list[dict[str, Any]] = [
        {"label": "code", "text": "Fix this Python traceback: KeyError in def load(path)"},
        {"label": "conversation", "text": "Good morning! How are you today?"},
        {"label": "creative", "accept": ["code"], "text": "write a python function that reverses a list"},
        {"label": "reasoning", "request": {"messages": [{"role": "user", "content": "Good evening, my friend!"}]}},
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    code, out, _ = run("evaluate", "rows.jsonl", "--format", "json", OPENAI_API_KEY=KEY)
    found = json.loads(out)
    assert code == 0
    assert (found["rows"], found["accuracy"]) == (4, 0.75)
    assert found["confusion"]["reasoning"] == {"conversation": 1}
    assert found["cost"]["code"]["requests"] == 2
    assert found["cost"]["code"]["estimated_cost_usd"] > 0
    assert "4 rows, 75.0% right" in run("evaluate", "rows.jsonl")[1]
    Path("rows.jsonl").write_text(json.dumps(rows[0]))
    assert "1 row, 100.0% right" in run("evaluate", "rows.jsonl")[1]


# --- usage ------------------------------------------------------------------------------------------------------------

ROWS = [
    {"model": "openai/a", "requests": 3, "cost_usd": 0.5, "avg_ms": 100.0},
    {"model": "=evil()", "requests": 1, "cost_usd": None, "avg_ms": 300.0},
]


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float | None]]:
    """A ledger that gives ROWS and keeps what it was asked."""
    asked: list[tuple[str, float | None]] = []

    class Reader:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def usage(self, by: str, since: float | None) -> list[dict[str, Any]]:
            asked.append((by, since))
            return ROWS

    monkeypatch.setattr(usage, "LedgerReader", Reader)
    return asked


def test_usage_as_a_table(run: Run, ledger: list[tuple[str, float | None]]) -> None:
    """A table with a total; an unknown cost is a question mark, never zero."""
    code, out, _ = run("usage", "--since", "24h")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["model", "requests", "cost", "USD", "avg", "ms"]
    assert lines[2] == ["openai/a", "3", "0.50", "100"]
    assert lines[3] == ["=evil()", "1", "?", "300"]
    assert lines[4] == ["total", "4", "0.50", "150"]
    by, since = ledger[0]
    assert by == "model"
    assert since == pytest.approx(time.time() - 86_400, abs=5)


def test_usage_as_json_and_csv(run: Run, ledger: list[tuple[str, float | None]]) -> None:
    """JSON is what the ledger gave; CSV cells never begin like a spreadsheet's formula."""
    assert json.loads(run("usage", "--format", "json")[1]) == ROWS
    cells = list(csv.DictReader(io.StringIO(run("usage", "--format", "csv", "--by", "day")[1])))
    assert [cell["model"] for cell in cells] == ["openai/a", "'=evil()"]
    assert ledger[1] == ("day", None)


def test_usage_without_rows(run: Run, ledger: list[tuple[str, float | None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty ledger is said in words, and stays valid JSON and CSV."""
    monkeypatch.setattr("tests.test_cli.ROWS", [])
    assert run("usage")[1] == "No requests in this time.\n"
    assert json.loads(run("usage", "--format", "json")[1]) == []
    names = run("usage", "--format", "csv", "--by", "client")[1].strip().split(",")
    assert {"client", *usage._COLUMNS} < set(names)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [(["--since", "yesterday"], 2, "--since: 'yesterday' is no time span"), ([], 1, "state folder: ")],
)
def test_usage_that_cannot_be_given(run: Run, argv: list[str], code: int, words: str) -> None:
    """A bad span is a mistake of the command line; a ledger that is none is a failure that says where it looked."""
    Path("ledger.sqlite3").write_text("no database " * 100)
    found, out, err = run("usage", *argv, ROUTER_STATE_DIR=str(Path.cwd()))
    assert (found, out) == (code, "")
    assert words in err


def test_a_table_of_usage_fits_a_terminal() -> None:
    """Each column of the table is one that rows have; a long name beside large sums still fits 120 columns."""
    names = report.usage_columns("model")
    assert set(usage._COLUMNS) < set(names)
    sums = {"model": "anthropic/claude-sonnet-5-5", "input_tokens": 123_456_789, "cost_usd": 1234.567}
    row = dict.fromkeys(names, 12_345) | sums
    with contextlib.redirect_stdout(io.StringIO()) as out:
        usage._print_table([row], "model")
    assert max(map(len, out.getvalue().splitlines())) <= 120


def test_usage_makes_nothing(run: Run) -> None:
    """Asking before the first request leaves no folder behind, and says where it looked."""
    code, out, err = run("usage")
    assert (code, out) == (0, "No requests in this time.\n")
    assert "state folder: " in err
    assert not (Path.cwd().parent / "home").exists()


# --- init -------------------------------------------------------------------------------------------------------------


def test_init_writes_a_private_valid_file(run: Run) -> None:
    """The file has chains of the providers whose keys are set, loads, holds no secret, and is its owner's alone."""
    code, out, err = run("init", ANTHROPIC_API_KEY=KEY)
    path = Path("router_config.json")
    assert (code, err) == (0, "")
    assert "Wrote router_config.json" in out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY not in path.read_text()
    snapshot = load({}, {}, path.read_bytes(), "f")
    assert snapshot.categories["code"].models[0].startswith("anthropic/")
    assert snapshot.categories["creative"].custom
    assert run("check")[0] == 0


def test_init_never_overwrites(run: Run) -> None:
    """A file that exists, a seed project's too, is checked, shown and left as it is."""
    seed = {
        "model_mappings": {
            "code": ["openrouter/z-ai/glm-5", "openai/gpt-4o-mini"],
            "creative": ["openrouter/z-ai/glm-5"],
        },
        "keywords": {"code": ["def ", "import "], "creative": ["poem"]},
        "custom_categories": {"creative": {"description": "Creative writing", "models": ["openrouter/z-ai/glm-5"]}},
    }
    path = Path("mine.json")
    path.write_text(json.dumps(seed))
    code, out, _ = run("init", "--config", "mine.json", OPENROUTER_API_KEY=KEY)
    assert code == 0
    assert "exists and was not changed" in out
    assert "openrouter/z-ai/glm-5" in out
    assert "creative" in out
    assert json.loads(path.read_text()) == seed
    path.write_text("{")
    code, _, err = run("init", "--config", "mine.json")
    assert code == 78
    assert "mine.json, line 1 column 2" in err
    assert path.read_text() == "{"


def test_init_where_nothing_can_be_written(run: Run) -> None:
    """A place that cannot be written is a failure with its reason."""
    code, _, err = run("init", "--config", "/proc/nosuch/router_config.json")
    assert code == 1
    assert "cannot be written" in err


def test_init_goes_where_the_router_will_look(run: Run) -> None:
    """A name in .env counts, and the next steps repeat what was said with --config."""
    Path(".env").write_text("ROUTER_CONFIG_FILE=mine.json\n")
    code, out, _ = run("init", OPENAI_API_KEY=KEY)
    assert (code, sorted(path.name for path in Path.cwd().iterdir())) == (0, [".env", "mine.json"])
    assert "`llm-router check`" in out
    assert '"recovery_timeout_sec": 300\n' in Path("mine.json").read_text()
    assert "`llm-router serve --config 'my own.json'`" in run("init", "--config", "my own.json")[1]


def test_init_without_keys_says_what_to_do(run: Run) -> None:
    """Without any key the file is written all the same, and the next step is told."""
    code, out, _ = run("init")
    assert code == 0
    assert "No provider key is set yet" in out


# --- small things -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (None, "?"),
        (0.0, "0.00"),
        (2.5, "2.50"),
        (1234.5, "1,234.50"),
        (0.105, "0.105"),
        (0.15, "0.15"),
        (3.5e-5, "0.000035"),
        (4e-9, "4e-09"),
    ],
)
def test_dollars(amount: float | None, words: str) -> None:
    """Amounts show the digits that matter; an unknown one is no zero."""
    assert dollars(amount) == words


def test_a_reader_that_leaves_is_no_error() -> None:
    """`llm-router check | head` ends without a stack trace."""
    done = subprocess.run(
        f"{sys.executable} -m llm_router check | head -1", shell=True, capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(streams: str) -> None:
    """A caller that closed the standard streams gets the exit code all the same."""
    done = subprocess.run(
        f"{sys.executable} -m llm_router explain hello {streams}",
        shell=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_locale_without_the_letters_is_no_failure(tmp_path: Path) -> None:
    """A configuration in any language can be checked on a terminal that knows ASCII alone."""
    file = tmp_path / "c.json"
    file.write_text('{"model_mappings": {"code": ["ollama/schlüssel"]}}', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "llm_router", "check", "--config", str(file)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "schl\\xfcssel" in done.stdout
