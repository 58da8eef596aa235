"""The file on disk: where it is looked for, and what is said of one that cannot be used or that others may write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llm_router.errors import ConfigError
from llm_router.proxy.config_file import ConfigFile, write_new
from tests.proxy.config_file.conftest import NAME, open_file, put


def test_where_the_file_is_looked_for(folder: Path) -> None:
    """Flag, ROUTER_CONFIG_FILE, the working directory, the XDG folder, in this order."""
    home = folder.parent / "home"
    assert open_file(folder).path == home / ".config/llm-router" / NAME
    assert open_file(folder, {"XDG_CONFIG_HOME": "/xdg"}).path == Path("/xdg/llm-router") / NAME
    assert open_file(folder, {"XDG_CONFIG_HOME": "relative"}).path == home / ".config/llm-router" / NAME
    here = put(folder / NAME, {})
    assert open_file(folder).path == here
    assert open_file(folder, {"ROUTER_CONFIG_FILE": "other.json"}).path == folder / "other.json"
    assert open_file(folder, {"ROUTER_CONFIG_FILE": "/etc/r.json"}, config="mine.json").path == folder / "mine.json"
    (folder / ".env").write_text("ROUTER_CONFIG_FILE=from_env.json\n")
    assert open_file(folder).path == folder / "from_env.json"
    assert open_file(folder, {"ROUTER_CONFIG_FILE": "other.json"}).path == folder / "other.json"


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "here"}])
def test_who_has_no_home_is_at_home_in_the_root(
    folder: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user whom the machine does not know gets no folder named ~ in the working directory."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    file = ConfigFile(environ, folder=folder)
    assert file.path == Path("/.config/llm-router") / NAME
    assert file.load().state_dir == "/.local/state/llm-router"


def test_a_missing_file_is_a_fault_only_where_it_was_promised(folder: Path) -> None:
    """Without a file the defaults serve, also where a variable names one to be; its folder must exist."""
    assert open_file(folder).load().config_file == ""
    assert open_file(folder, {"ROUTER_CONFIG_FILE": "later.json"}).load().config_file == ""
    with pytest.raises(ConfigError, match=r"^ROUTER_CONFIG_FILE: names .*nosuch/r\.json, but there is no folder"):
        open_file(folder, {"ROUTER_CONFIG_FILE": "nosuch/r.json"}).load()
    with pytest.raises(ConfigError, match=r"typo\.json: does not exist; `llm-router init`"):
        open_file(folder, None, config="typo.json").load()


def test_what_is_no_file_is_refused(folder: Path) -> None:
    """A folder or a named pipe in the file's place is a message, not a hang."""
    (folder / NAME).mkdir()
    with pytest.raises(ConfigError, match=r"router_config\.json: cannot be read"):
        open_file(folder).load()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ConfigError, match="is not a regular file"):
        open_file(folder, {"ROUTER_CONFIG_FILE": "pipe"}).load()


def test_a_corrupt_file_is_left_untouched(folder: Path) -> None:
    """The message names the file; its bytes stay as they are."""
    path = folder / NAME
    path.write_bytes(b'{"model_mappings": {')
    with pytest.raises(ConfigError, match=f"^{path}, line 1 column 21"):
        open_file(folder).load()
    assert path.read_bytes() == b'{"model_mappings": {'


@pytest.mark.parametrize("mode", [0o646, 0o644, 0o664])
def test_a_file_that_everybody_may_write_is_told(folder: Path, mode: int) -> None:
    """It says where keys are sent; what a group shares is its own affair."""
    path = put(folder / NAME, {})
    path.chmod(mode)
    assert ("every user" in " ".join(open_file(folder).load().warnings)) == (mode == 0o646)


@pytest.mark.parametrize("named", [True, False])
def test_a_file_of_another_user_that_was_only_found_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    """Whoever starts the router in a folder of somebody else's gets that one's configuration, unless it is named."""
    path = put(folder / NAME, {})
    path.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    if path.stat().st_uid == 0:
        os.chown(path, 4712, -1)
    warnings = open_file(folder, config=str(path) if named else None).load().warnings
    assert any("another user" in warning for warning in warnings) == (not named)


def test_a_new_file_never_takes_the_place_of_one(folder: Path) -> None:
    """`write_new` creates a whole private file, or refuses where anything stands, a dangling link included."""
    write_new(folder / "deep" / "new.json", b"{}")
    assert (folder / "deep" / "new.json").read_bytes() == b"{}"
    assert stat.S_IMODE((folder / "deep" / "new.json").stat().st_mode) == 0o600
    (folder / "link").symlink_to(folder / "nowhere")
    for name in ("deep/new.json", "link"):
        with pytest.raises(FileExistsError):
            write_new(folder / name, b"other")
    assert not (folder / "nowhere").exists()
    assert os.listdir(folder / "deep") == ["new.json"]
