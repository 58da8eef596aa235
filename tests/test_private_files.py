"""Files and folders of the router's own: nobody else reads them, whatever the umask says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_router.private_files import create, make_folder


@pytest.fixture(params=[0o000, 0o022, 0o777])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_umask")
def test_what_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    """0600 in folders of 0700, those above included: whoever may write there could put another one in its place."""
    folder = tmp_path / "a" / "b"
    make_folder(folder)
    os.close(create(folder / "file"))
    assert [mode(path) for path in (folder.parent, folder, folder / "file")] == [0o700, 0o700, 0o600]


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """How open it is was somebody's decision."""
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    make_folder(tmp_path / "own")
    assert (mode(tmp_path), mode(tmp_path / "own")) == (0o755, 0o700)


@pytest.mark.parametrize("below", ["", "deep"])
def test_a_file_in_the_place_of_a_folder_is_said_to_be_one(tmp_path: Path, below: str) -> None:
    """Not that something exists, which who asked for a new file takes for its own."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file" / below)


def test_nothing_is_taken_over(tmp_path: Path) -> None:
    """Neither a file that is there nor a link, wherever it leads."""
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("there", "link"):
        with pytest.raises(FileExistsError):
            create(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()
