"""The board of requests in flight: what a dead process was doing, and nothing of a living one."""

import os
import resource
import shutil
import stat
import subprocess
import sys
import textwrap

import pytest

from llm_router.accounting import board
from llm_router.accounting.board import SLOTS, Board, Entry, dead_boards

ONE = Entry("r-1", 1000.25, "c1", "openai/gpt-5")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


def kill_like(one: Board) -> None:
    """Lets go of a board as a killed process does: without clearing, without unlinking."""
    one._view.close()  # it holds a duplicate of the descriptor, and so the lock
    os.close(one._descriptor)


def test_a_dead_process_leaves_its_entries(folder):
    """What was entered and not cleared is found once the owner is gone, each field as it was."""
    mine = Board.create(folder)
    slots = [mine.enter(ONE._replace(request_id=f"r-{number}")) for number in range(5)]
    mine.clear([slots[1]])
    kill_like(mine)
    (dead,) = dead_boards(folder)
    assert sorted(dead.entries) == [ONE._replace(request_id=f"r-{number}") for number in (0, 2, 3, 4)]
    dead.discard()
    assert list(folder.iterdir()) == []


def test_a_living_process_keeps_its_board(folder):
    """A locked board is nobody else's business, in this process or another."""
    mine = Board.create(folder)
    mine.enter(ONE)
    assert list(dead_boards(folder)) == []
    program = "import sys; from pathlib import Path; from llm_router.accounting.board import dead_boards\n"
    program += "assert not list(dead_boards(Path(sys.argv[1])))"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    assert mine.path.exists()
    mine.close()
    assert mine.path.exists()


def test_a_board_whose_folder_is_removed_goes_on_in_a_new_one(folder):
    """What stands on a board that somebody deleted is not forgotten: the next clearing finds a new place for it."""
    mine = Board.create(folder)
    slots = [mine.enter(ONE._replace(request_id=f"r-{number}")) for number in range(3)]
    shutil.rmtree(folder)
    before = len(os.listdir("/dev/fd"))
    mine.clear(slots[:1])
    assert len(os.listdir("/dev/fd")) == before
    mine.enter(ONE._replace(request_id="r-3"))
    kill_like(mine)
    (dead,) = dead_boards(folder)
    assert sorted(entry.request_id for entry in dead.entries) == ["r-1", "r-2", "r-3"]
    dead.discard()


def test_a_board_whose_folder_cannot_come_back_is_kept_in_memory(folder):
    """Where there is no place for a new file requests are entered and cleared as ever."""
    mine = Board.create(folder)
    slots = [mine.enter(ONE), mine.enter(ONE)]
    shutil.rmtree(folder)
    folder.write_text("in the way")
    mine.clear(slots[:1])
    assert mine.enter(ONE) == slots[0]
    folder.unlink()
    mine.clear(slots)
    assert mine.path.exists()
    mine.close()
    assert list(folder.iterdir()) == []


def test_a_board_is_taken_by_one(folder):
    """Two routers that start at once do not both find the same dead board."""
    mine = Board.create(folder)
    mine.enter(ONE)
    kill_like(mine)
    (first,) = dead_boards(folder)
    assert list(dead_boards(folder)) == []
    first.keep()
    (again,) = dead_boards(folder)
    assert again.entries == [ONE]
    again.discard()


def test_an_empty_board_goes_with_its_process(folder):
    """A clean end leaves no file."""
    mine = Board.create(folder)
    mine.clear([mine.enter(ONE)])
    mine.close()
    assert list(folder.iterdir()) == []


def test_texts_are_cut_to_their_room(folder):
    """Long names, other scripts and lone surrogates fit or are cut; nothing runs into the next slot."""
    mine = Board.create(folder)
    long = Entry("é" * 500, 1.0, "\ud800" * 500, "模" * 500)
    mine.enter(long)
    mine.enter(ONE)
    kill_like(mine)
    (dead,) = dead_boards(folder)
    first, second = dead.entries
    assert second == ONE
    assert first.request_id.startswith("é" * 60)
    assert len(first.model.encode()) <= 213
    dead.discard()


def test_slots_are_bounded_and_reused(folder):
    """More requests at once than slots go without one; a cleared slot serves again."""
    mine = Board.create(folder)
    slots = [mine.enter(ONE) for _ in range(SLOTS)]
    assert len(set(slots)) == SLOTS
    assert mine.enter(ONE) == -1
    mine.clear([slots[7]])
    assert mine.enter(ONE) == slots[7]
    mine.clear(slots)
    mine.close()


def test_the_file_is_private_and_whole(folder):
    """0600 whatever the umask, and every block allocated, so that a full disk cannot kill by SIGBUS."""
    before = os.umask(0o777)
    try:
        mine = Board.create(folder)
    finally:
        os.umask(before)
    found = mine.path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_blocks * 512 >= found.st_size
    mine.close()


def test_no_room_means_no_board(folder, caplog):
    """On a full disk, or where the folder is a file, there is no board, one line says so, and nothing is left."""
    folder.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        assert Board.create(folder) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []
    (folder / "file").touch()
    assert Board.create(folder / "file") is None
    assert len(caplog.records) == 2


def test_without_fallocate_zeros_are_written(folder, monkeypatch):
    """Where the system has no posix_fallocate (macOS) the blocks are allocated by writing them."""
    monkeypatch.delattr(board.os, "posix_fallocate")
    mine = Board.create(folder)
    found = mine.path.stat()
    assert found.st_blocks * 512 >= found.st_size > SLOTS * 512
    mine.close()


@pytest.mark.parametrize(
    "content", [b"", b"something else" * 99, b"llm-router board 1\n", b"llm-router board 1\n" + b"\1" * 999]
)
def test_files_that_are_no_boards_are_survived(folder, content):
    """Foreign or cut files of that name neither raise nor give entries that could not be."""
    folder.mkdir()
    path = folder / "inflight-1-1.board"
    path.write_bytes(content)
    for dead in dead_boards(folder):
        dead.keep()
    assert path.read_bytes() == content


def test_kill_9_in_the_middle(folder):
    """A process killed while it enters and clears leaves only whole entries."""
    program = textwrap.dedent(
        """
        import os, sys, threading, time
        from pathlib import Path
        from llm_router.accounting.board import Board, Entry
        mine = Board.create(Path(sys.argv[1]))
        threading.Timer(0.2, lambda: os.kill(os.getpid(), 9)).start()
        n = 0
        held = []
        while True:
            held.append(mine.enter(Entry(f"request-{n:09}", float(n), "client", f"openai/{n:09}")))
            n += 1
            if len(held) > 500:
                mine.clear([held.pop(0)])
        """
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
    (dead,) = dead_boards(folder)
    assert 499 <= len(dead.entries) <= 501
    for entry in dead.entries:
        assert entry.request_id == f"request-{int(entry.started):09}"
        assert entry.model == f"openai/{int(entry.started):09}"
        assert entry.client == "client"
    dead.discard()
