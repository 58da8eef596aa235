"""`.env`: read where that is safe and meant, and told of where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_router.errors import ConfigError
from llm_router.proxy.config_file.dotenv import read_dotenv
from tests.proxy.config_file.conftest import open_file


def test_dotenv_is_read_without_interpolation(folder: Path) -> None:
    """Values are taken as they stand; comments, quotes and `export` are understood."""
    (folder / ".env").write_text(
        "# mine\nexport OPENAI_API_KEY='sk-$HOME-${X}' # note\nROUTER_PORT=4000\n"
        'ROUTER_NAME="My Router"\nEMPTY=\nNOVALUE\n'
    )
    snapshot = open_file(folder, {"ROUTER_PORT": "5000"}).load()
    assert [key.value for key in snapshot.providers["openai"].keys] == ["sk-$HOME-${X}"]
    assert (snapshot.port, snapshot.router_name) == (5000, "My Router")
    assert snapshot.sources["providers.openai.api_key"] == ".env"
    assert "OPENAI_API_KEY" not in os.environ


@pytest.mark.parametrize("variable", ["INVOCATION_ID", "LLM_ROUTER_IMAGE"])
def test_dotenv_is_not_read_under_systemd_or_in_the_image(folder: Path, variable: str) -> None:
    """A service has its settings from its unit or its image alone."""
    (folder / ".env").write_text("ROUTER_PORT=4000\n")
    assert open_file(folder, {variable: "1"}).load().port == 3456


def test_the_dotenv_of_another_user_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the user's own .env counts; that one was passed over is said."""
    (folder / ".env").write_text("ROUTER_PORT=4000\n")
    monkeypatch.setattr(os, "geteuid", lambda: (folder / ".env").stat().st_uid + 1)
    snapshot = open_file(folder).load()
    assert snapshot.port == 3456
    assert "belongs to another user" in snapshot.warnings[0]


def test_a_dotenv_that_is_exchanged_while_it_is_read_is_judged_by_what_was_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can write to the folder could show one file to the check and another one to the reader."""
    (folder / ".env").write_text("ROUTER_PORT=4000\n")
    mine = (folder / ".env").stat()
    monkeypatch.setattr(os, "geteuid", lambda: mine.st_uid)
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result((*mine[:4], mine.st_uid + 1, *mine[5:])))
    assert read_dotenv(folder, {}).variables == {}


@pytest.mark.parametrize(
    ("content", "place"), [(b"A=1\nB=\xff\n", ".env, line 2: is not UTF-8"), (b"#" * (2**20 + 1), ".env: is larger")]
)
def test_a_broken_dotenv_is_named(folder: Path, content: bytes, place: str) -> None:
    """A .env that is no text stops the load with its place."""
    (folder / ".env").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        open_file(folder).load()
    assert place in str(caught.value)


def test_a_line_of_dotenv_that_is_not_understood_is_told(folder: Path) -> None:
    """The other lines count, and the warning names the line without its content."""
    (folder / ".env").write_text("ROUTER_PORT=4000\nOPENAI_API_KEY='sk-unfinished\n")
    snapshot = open_file(folder).load()
    assert snapshot.port == 4000
    assert ".env, line 2 is not understood" in snapshot.warnings[0]
    assert "unfinished" not in snapshot.warnings[0]


def test_a_dotenv_that_is_a_folder_or_a_pipe_is_told(folder: Path) -> None:
    """Odd things named .env neither hang nor stop the start."""
    os.mkfifo(folder / ".env")
    assert "is not read: is not a regular file" in open_file(folder).load().warnings[0]
