"""The documentation is true: what exists is in it, what it shows can be run, and what it links to is there."""

from __future__ import annotations

import argparse
import ast
import contextlib
import http.client
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from llm_router.accounting.booking import LedgerRecord
from llm_router.cli import main, make_parser
from llm_router.config import categories, loading, options, pricelist, providers
from llm_router.config.loading import load
from llm_router.config.settings import SETTINGS, Setting
from llm_router.config.values import BUILTIN_CATEGORIES
from llm_router.errors import FailureKind
from llm_router.server.app import make_app
from tests.support.router import RouterProcess

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
CONFIGURATION = (ROOT / "docs/CONFIGURATION.md").read_text()
API = (ROOT / "docs/API.md").read_text()
EVERYTHING = "\n".join(path.read_text() for path in PAGES)
SOURCES = sorted((ROOT / "llm_router").rglob("*.py"))

_VARIABLE = re.compile(
    r"(?:ROUTER|OPENROUTER|OPENAI|ANTHROPIC|GOOGLE|GEMINI|OLLAMA|DEFAULT|ROUTING)_[A-Z][A-Z_]+"
    r"|STATE_DIRECTORY|XDG_[A-Z_]+|HTTPS?_PROXY|NO_PROXY|SSL_CERT_[A-Z]+"
)
_HEADER = re.compile(r"x-[a-z]+(?:-[a-z]+)*")


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def words() -> Iterator[str]:
    """Every text constant of the package, but for docstrings."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def ids(path: Path) -> str:
    return path.name


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_every_setting_has_a_row(setting: Setting) -> None:
    """A setting's row tells its file key, variable, flag and default."""
    row = next((line for line in CONFIGURATION.splitlines() if line.startswith(f"| `{setting.key}` |")), None)
    assert row is not None, f"no row for {setting.key}"
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1] == (f"`{setting.variable}`" if setting.variable else "")
    assert cells[2] == (f"`--{setting.flag.replace('_', '-')}`" if setting.flag else "")
    assert cells[3] in _default_in_words(setting.default)


def _default_in_words(default: Any) -> tuple[str, ...]:
    if default in (None, "", ()):
        return ("none", "see below")
    if isinstance(default, bool):
        return (f"`{str(default).lower()}`",)
    return (f"`{default:g}`",) if isinstance(default, float) else (f"`{default}`",)


@pytest.mark.parametrize("name", providers.BUILTINS)
def test_every_provider_has_a_row(name: str) -> None:
    """A built-in provider's row tells its key, its address variable and its default address."""
    row = next(line for line in CONFIGURATION.splitlines() if line.startswith(f"| `{name}` |"))
    builtin = providers.BUILTINS[name]
    for part in (*builtin.key_variables, f"{name.upper()}_BASE_URL", builtin.base_url):
        assert f"`{part}`" in row


def file_keys() -> list[str]:
    """The names of all keys that the configuration file may have, but for those of settings."""
    known = (
        loading._SECTIONS,
        loading._SERVER_SECRETS,
        categories._OPTION_KEYS,
        categories._CUSTOM_KEYS,
        categories._HEDGE_KEYS,
        providers._PROVIDER_KEYS,
        providers._MODEL_KEYS,
        providers.TIMEOUT_KEYS,
        options.OPTIONS,
        pricelist._KNOWN,
        BUILTIN_CATEGORIES,
    )
    return sorted({key for keys in known for key in keys})


@pytest.mark.parametrize("key", file_keys())
def test_every_file_key_is_explained(key: str) -> None:
    """Each key of the configuration file stands in CONFIGURATION.md as code."""
    code = re.findall(r"`([^`\n]+)`", CONFIGURATION)
    assert any(re.search(rf"(?<![a-z_]){re.escape(key)}(?![a-z_])", text) for text in code)


def test_every_variable_is_named() -> None:
    """Whatever the package reads from the environment stands in the documentation."""
    found = {variable for word in words() if (variable := word.strip()) and _VARIABLE.fullmatch(variable)}
    assert len(found) > 20
    assert {variable for variable in found if f"`{variable}`" not in EVERYTHING} == set()


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_json_examples_are_json(path: Path) -> None:
    """Every JSON block can be pasted; those that are configuration files are accepted as one."""
    for block in blocks(path, "json"):
        content = json.loads(block)
        if isinstance(content, dict) and {"model_mappings", "providers", "categories", "server"} & set(content):
            load({}, {}, block.encode(), "router_config.json")


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_links_lead_somewhere(path: Path) -> None:
    """Each link inside the repository names a file that exists, and a heading that this file has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.is_file(), target
        if anchor:
            assert anchor in _anchors(page), target


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_leads_to_every_guide() -> None:
    """A newcomer finds each page of docs/ from the README."""
    text = README.read_text()
    assert [path.name for path in DOCS if f"(docs/{path.name})" not in text] == []


# --- command line -----------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    """The commands of the command line, and "" for the program itself."""
    parser = make_parser()
    actions = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return ["", *next(actions).choices]


@pytest.mark.parametrize("command", commands())
def test_help_is_current(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """CONFIGURATION.md shows each command's help as it is printed today, but for the places of line breaks."""
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main([*([command] if command else []), "--help"])
    printed = capsys.readouterr().out
    title = f"$ llm-router {command} --help" if command else "$ llm-router --help"
    shown = [block for block in blocks(ROOT / "docs/CONFIGURATION.md", "text") if block.startswith(f"{title}\n")]
    assert len(shown) == 1
    assert shown[0].removeprefix(title).split() == printed.split()


# --- routes, headers, figures, codes ----------------------------------------------------------------------------------


def routes() -> list[tuple[str, str]]:
    """Every method and path that the server answers to."""
    app = make_app(cast(Any, None))
    found = {
        (route.method, re.sub(r":[^}]*}", "}", route.resource.canonical if route.resource else ""))
        for route in app.router.routes()
    }
    return sorted(route for route in found if route[0] in ("GET", "POST", "DELETE", "PUT", "PATCH"))


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_is_listed(method: str, path: str) -> None:
    """API.md names each route with its method."""
    assert f"`{method} {path}`" in API


def test_every_header_is_listed() -> None:
    """API.md names each `x-` header that the router reads or sends."""
    own = {word for path in SOURCES if path.parent.name in ("server", "proxy") for word in _words_of(path)}
    found = {word.lower() for word in own if _HEADER.fullmatch(word.lower())} - _FOREIGN_HEADERS
    assert len(found) > 6
    assert {name for name in found if f"`{name}" not in API} == set()


# What others send or are told by, and what says nothing about the router.
_FOREIGN_HEADERS = {"x-forwarded-for", "x-accel-buffering", "x-content-type-options", "x-frame-options"}


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_kind_of_failure_is_listed(kind: str) -> None:
    """API.md names each kind of failure that attempts, log, metrics and ledger may show."""
    assert f"`{kind}`" in API


def test_every_error_code_is_listed() -> None:
    """API.md names each `code` that an error of our own may carry."""
    found: set[str] = set()
    for path in SOURCES:
        text = path.read_text()
        found |= set(re.findall(r'\bcode="([a-z_]+)"', text))
        found |= set(re.findall(r'\bcode = .*, "([a-z_]+)"$', text, re.MULTILINE))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "ApiError" and len(node.args) > 3:
                code = node.args[3]
                found |= {code.value} if isinstance(code, ast.Constant) and isinstance(code.value, str) else set()
    assert len(found) > 10
    assert {code for code in found if f"`{code}`" not in API} == set()


def _words_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


# --- against a running demo -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    """`llm-router serve --demo`, as the README starts it."""
    router = RouterProcess(tmp_path_factory.mktemp("demo"), args=["--demo"])
    router.start()
    yield router
    router.stop()


def shell_commands(path: Path) -> list[str]:
    """The shell blocks of a page that ask the router at its default address, and do nothing else to the machine."""
    asking = (block for block in blocks(path, "bash") if "http://127.0.0.1:3456" in block)
    return [block for block in asking if not re.search(r"^(sudo|docker) ", block, re.MULTILINE)]


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=f"{path.name}-{i}") for path in PAGES for i, block in enumerate(shell_commands(path))],
)
def test_commands_can_be_pasted(block: str, demo: RouterProcess) -> None:
    """Every curl command of the documentation succeeds against the demo, with an answer."""
    script = block.replace("http://127.0.0.1:3456", f"http://127.0.0.1:{demo.port}").replace("curl ", "curl --fail ")
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_first_answer_streams_and_says_what_happened(demo: RouterProcess) -> None:
    """The README's first command shows the headers it speaks of, a failover, and a made-up answer to its end."""
    block = next(block for block in shell_commands(README) if "curl -iN" in block)
    said = subprocess.run(
        ["bash", "-c", block.replace(":3456", f":{demo.port}")], capture_output=True, text=True, check=True
    ).stdout
    assert "x-router-category: conversation" in said
    assert "x-router-model: healthy/demo-conversation" in said
    assert "made-up" in said
    assert said.rstrip().endswith("data: [DONE]")


def test_python_example_prints_an_answer(demo: RouterProcess) -> None:
    """The README's Python program runs as it is."""
    (program,) = blocks(README, "python")
    program = program.replace(":3456", f":{demo.port}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("This is a made-up answer")


def test_explain_answers_as_shown(demo: RouterProcess) -> None:
    """API.md shows the keys, category and candidates of the answer to the question above it."""
    (shown,) = (json.loads(block) for block in blocks(ROOT / "docs/API.md", "json") if '"candidates"' in block)
    ask = next(block for block in shell_commands(ROOT / "docs/API.md") if "/v1/explain" in block)
    base = f"http://127.0.0.1:{demo.port}"
    reset = f"curl -s -X POST {base}/circuit-breaker/reset-all > /dev/null\n"
    script = reset + ask.replace("http://127.0.0.1:3456", base)
    answer = json.loads(subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout)
    assert list(shown) == list(answer)
    assert set(shown["scores"]) == set(answer["scores"])
    for key in ("category", "mode", "candidates", "skipped"):
        assert shown[key] == answer[key]


def test_a_running_ledger_is_backed_up_as_told(tmp_path: Path) -> None:
    """DEPLOYMENT.md's command copies a database in use, with what is not in its file yet, for nobody else to read."""
    (command,) = (block for block in blocks(ROOT / "docs/DEPLOYMENT.md", "bash") if "backup(" in block)
    with contextlib.closing(sqlite3.connect(tmp_path / "running.sqlite3")) as running:
        running.execute("PRAGMA journal_mode=WAL")
        running.execute("CREATE TABLE t (n)")
        running.execute("INSERT INTO t VALUES (7)")
        running.commit()
        script = command.removeprefix("sudo ").replace("python3", sys.executable)
        script = script.replace("/var/lib/private/llm-router/ledger.sqlite3", str(tmp_path / "running.sqlite3"))
        script = script.replace("/var/backups/llm-router-ledger.sqlite3", str(tmp_path / "copy.sqlite3"))
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.sqlite3")) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(7,)]
    assert (tmp_path / "copy.sqlite3").stat().st_mode & 0o777 == 0o600


def test_every_metric_is_listed(demo: RouterProcess) -> None:
    """API.md names each metric that a scrape shows once there was traffic."""
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=10)
    connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
    text = connection.getresponse().read().decode()
    connection.close()
    names = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert len(names) > 15
    assert {name for name in names if f"`{name}`" not in API} == set()


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """Each metric and label value of the alerts in DEPLOYMENT.md is one that API.md lists."""
    (alerts,) = (block for block in blocks(ROOT / "docs/DEPLOYMENT.md", "yaml") if "alert:" in block)
    names = set(re.findall(r"llm_router_\w+", alerts))
    assert len(names) > 3
    assert {name for name in names if f"| `{name}` |" not in API} == set()
    values = {value for values in re.findall(r'=~?"([^"]+)"', alerts) for value in values.split("|")}
    assert {value for value in values if f"`{value}`" not in API} == set()


def test_every_figure_is_listed(demo: RouterProcess) -> None:
    """API.md names each key of the JSON of /metrics and of a ledger record."""
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=10)
    connection.request("GET", "/metrics")
    figures = json.loads(connection.getresponse().read())
    connection.close()
    keys = {*figures, *figures["requests"], *LedgerRecord._fields} - {"client"}
    assert {key for key in keys if f"`{key}`" not in API} == set()
