"""The documentation is true: what exists is in it, what it shows can be run, and what it links to is there."""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_router.cli import main, make_parser
from llm_router.config import categories, loading, pricelist, providers
from llm_router.config.loading import load
from llm_router.config.settings import SETTINGS, Setting
from llm_router.config.values import BUILTIN_CATEGORIES

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
        providers.OPTIONS,
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
