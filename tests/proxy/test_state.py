"""The circuits' file and the state folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llm_router.config.values import BreakerSettings
from llm_router.errors import Failure, FailureKind
from llm_router.proxy.state import CIRCUIT_FILE, CircuitFile, prepare_state_folder
from llm_router.routing.breaker import Circuits


def opened() -> Circuits:
    """Circuits with one open."""
    circuits = Circuits(BreakerSettings(failure_threshold=1))
    permit = circuits.admit("p/m", ("k",), 0)
    assert permit is not None
    circuits.failed(permit, Failure(FailureKind.SERVER_ERROR, "x"), 0)
    return circuits


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_circuits_survive_a_restart(tmp_path: Path, umask: int) -> None:
    """What was saved is there again, in a file of 0600 in a folder of 0700 whatever the umask."""
    folder = tmp_path / "state"
    old = os.umask(umask)
    try:
        assert prepare_state_folder(str(folder))
        CircuitFile(str(folder)).save(opened().dump())
    finally:
        os.umask(old)
    revived = Circuits(BreakerSettings())
    CircuitFile(str(folder)).load(revived, 1.0)
    assert revived.block("p/m", ("k",), 1.0) is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / CIRCUIT_FILE).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [CIRCUIT_FILE]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"models": 5}', b"\xff"])
def test_a_corrupt_file_is_set_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is kept under another name and told of; circuits start closed."""
    path = tmp_path / CIRCUIT_FILE
    path.write_bytes(content)
    CircuitFile(str(tmp_path)).load(Circuits(BreakerSettings()), 7.0)
    assert not path.exists()
    assert (tmp_path / f"{CIRCUIT_FILE}.corrupt-7").read_bytes() == content
    assert "corrupt" in caplog.text


def test_a_disk_that_refuses_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Saving into a folder that is gone warns once and never raises."""
    file = CircuitFile(str(tmp_path / "gone"))
    for _ in range(3):
        file.save(opened().dump())
    assert caplog.text.count("kept in memory only") == 1


def test_the_state_folder_is_private(tmp_path: Path) -> None:
    """It is made with 0700, and so is what was missing above it: who may write there could put another in its place."""
    folder = tmp_path / "a" / "b" / "state"
    old = os.umask(0)
    try:
        assert prepare_state_folder(str(folder))
    finally:
        os.umask(old)
    for made in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


@pytest.mark.parametrize(("mode", "told"), [(0o777, True), (0o1777, True), (0o775, False), (0o700, False)])
def test_a_state_folder_that_everybody_may_write_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, *, told: bool
) -> None:
    """Others could put their own books and circuits there, or take ours away; its mode is its owner's affair."""
    tmp_path.chmod(mode)
    assert prepare_state_folder(str(tmp_path))
    assert ("every user" in caplog.text) == told


def test_a_folder_that_cannot_be_made_is_no_end(tmp_path: Path) -> None:
    """The router runs on without keeping anything."""
    (tmp_path / "file").write_text("x")
    assert not prepare_state_folder(str(tmp_path / "file" / "state"))


def test_circuits_are_saved_past_what_lies_in_their_way(tmp_path: Path) -> None:
    """A link under the name of the temporary file leads nowhere, and a file there lends nobody its mode."""
    target, temporary = tmp_path / "target", tmp_path / f".{CIRCUIT_FILE}.{os.getpid()}"
    target.write_text("precious")
    for lay in (lambda: temporary.symlink_to(target), lambda: temporary.touch(0o666)):
        lay()
        CircuitFile(str(tmp_path)).save(opened().dump())
        assert target.read_text() == "precious"
        assert stat.S_IMODE((tmp_path / CIRCUIT_FILE).lstat().st_mode) == 0o600
