"""Edits through the API: from the file as it stands, private, and in its own place."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from llm_router.config.edits import with_mapping
from llm_router.errors import ApiError
from tests.proxy.config_file.conftest import NAME, adds, open_file, put


async def test_an_edit_is_in_force_and_in_the_file(folder: Path) -> None:
    """The returned snapshot has the change, the file has it too, and watching does not report it as foreign."""
    path = put(folder / NAME, {"_mine": 1, "timeouts": {"idle": 5}})
    config = open_file(folder)
    config.load()
    snapshot = await config.edit(adds("poems", "ollama/y"))
    assert snapshot.categories["poems"].models == ("ollama/y",)
    assert snapshot.timeouts.idle == 5
    assert json.loads(path.read_bytes()) == {
        "_mine": 1,
        "timeouts": {"idle": 5},
        "model_mappings": {"poems": ["ollama/y"]},
        "custom_categories": {"poems": {}},
    }
    assert not config.changed()
    assert open_file(folder).load().categories == snapshot.categories


async def test_an_edit_starts_from_the_file_as_it_stands(folder: Path) -> None:
    """What was changed by hand since the last load is not lost by an edit."""
    path = put(folder / NAME, {})
    config = open_file(folder)
    config.load()
    put(path, {"timeouts": {"idle": 70}})
    assert (await config.edit(adds("c"))).timeouts.idle == 70


async def test_the_first_edit_makes_file_and_folder_private(folder: Path) -> None:
    """A new file is 0600 in a folder of 0700, whatever the umask."""
    former = os.umask(0)
    try:
        config = open_file(folder)
        config.load()
        await config.edit(adds("c"))
    finally:
        os.umask(former)
    path = config.path
    assert path == folder.parent / "home/.config/llm-router" / NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o400])
async def test_an_edit_keeps_the_mode(folder: Path, mode: int) -> None:
    """A file keeps its permissions."""
    path = put(folder / NAME, {})
    path.chmod(mode)
    await open_file(folder).edit(adds("c"))
    assert stat.S_IMODE(path.stat().st_mode) == mode


async def test_an_edit_follows_a_symlink(folder: Path) -> None:
    """The link stays a link; its target is what changes, in its own folder."""
    target = put(folder.parent / "elsewhere" / "real.json", {})
    (folder / "link.json").symlink_to(target)
    (folder / NAME).symlink_to("link.json")
    config = open_file(folder)
    config.load()
    await config.edit(adds("c"))
    assert (folder / NAME).is_symlink()
    assert (folder / "link.json").is_symlink()
    assert "c" in json.loads(target.read_bytes())["model_mappings"]
    assert os.listdir(target.parent) == ["real.json"]
    assert not config.changed()


async def test_a_dangling_symlink_gets_its_target(folder: Path) -> None:
    """A link to a file that is not there yet is filled rather than replaced."""
    (folder / NAME).symlink_to(folder.parent / "later" / "real.json")
    await open_file(folder).edit(adds("c"))
    assert (folder / NAME).is_symlink()
    assert (folder.parent / "later" / "real.json").is_file()


async def test_a_refused_change_leaves_the_file(folder: Path) -> None:
    """A change whose result is not valid is a 400 with the field; the file is not touched."""
    path = put(folder / NAME, {})
    before = path.stat()
    with pytest.raises(ApiError) as caught:
        await open_file(folder).edit(lambda file: with_mapping(file, "code", ["ollama/x", "nosuch/y"]))
    assert (caught.value.status, caught.value.param) == (400, "models[1]")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", ['{"a"', '{"unknown": 1}', '{"keywords": {"a": [], "a": []}}'])
async def test_a_file_that_was_broken_by_hand_is_not_overwritten(folder: Path, content: str) -> None:
    """An edit over a file that is not valid is refused as not saved, naming the place, and leaves it as it is."""
    path = put(folder / NAME, {})
    config = open_file(folder)
    config.load()
    path.write_text(content)
    with pytest.raises(ApiError) as caught:
        await config.edit(adds("c"))
    assert (caught.value.status, caught.value.code) == (500, "config_not_saved")
    assert NAME in caught.value.message
    assert path.read_text() == content
