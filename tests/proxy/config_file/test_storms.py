"""Many edits at once, of several processes, of killed ones, on disks that fail: nothing is lost or half-written."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from llm_router.errors import ApiError
from llm_router.proxy.config_file import storage
from tests.proxy.config_file.conftest import NAME, adds, open_file, put


async def test_sixty_edits_at_once_lose_nothing(folder: Path) -> None:
    """Sixty changes at the same time all end in the file, which is valid JSON at every instant."""
    path = put(folder / NAME, {"_mine": "keep"})
    config = open_file(folder)
    config.load()
    done = asyncio.Event()

    async def keep_reading() -> int:
        reads = 0
        while not done.is_set():
            json.loads(await asyncio.to_thread(path.read_bytes))
            reads += 1
        return reads

    reader = asyncio.ensure_future(keep_reading())
    await asyncio.gather(*(config.edit(adds(f"c{number}")) for number in range(60)))
    done.set()
    assert await reader > 0
    content = json.loads(path.read_bytes())
    assert set(content["model_mappings"]) == {f"c{number}" for number in range(60)}
    assert content["_mine"] == "keep"
    assert os.listdir(folder) == [NAME]


_WRITER = """
import asyncio, sys
from pathlib import Path
from llm_router.config.edits import with_category
from llm_router.proxy.config_file import ConfigFile

async def main(folder, name, count):
    config = ConfigFile({"HOME": folder}, {}, Path(folder))
    for number in range(count):
        await config.edit(lambda file: with_category(file, f"{name}{number}", ["ollama/x"]))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start_writer(folder: Path, name: str, count: int) -> subprocess.Popen[bytes]:
    """Another process that edits the same file."""
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(folder), name, str(count)])


def test_processes_lose_nothing_of_one_another(folder: Path) -> None:
    """Two processes that edit the same file at once lose none of each other's changes."""
    path = put(folder / NAME, {})
    writers = [start_writer(folder, name, 20) for name in ("a", "b")]
    assert [writer.wait(30) for writer in writers] == [0, 0]
    assert len(json.loads(path.read_bytes())["model_mappings"]) == 40


@pytest.mark.slow
def test_a_kill_in_a_storm_leaves_a_whole_file(folder: Path) -> None:
    """SIGKILL at any moment of a storm of edits leaves the old file or the new one, and the next edit works."""
    path = put(folder / NAME, {})
    for delay in (0.0, 0.004, 0.009, 0.015, 0.03):
        before = len(json.loads(path.read_bytes()).get("model_mappings", {}))
        writer = start_writer(folder, f"k{int(delay * 1000)}_", 10_000)
        deadline = time.monotonic() + 20
        while len(json.loads(path.read_bytes()).get("model_mappings", {})) == before:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
        assert len(json.loads(path.read_bytes())["model_mappings"]) > before
    asyncio.run(open_file(folder).edit(adds("after")))
    assert os.listdir(folder) == [NAME]


@pytest.mark.parametrize("step", ["open", "fsync", "rename"])
async def test_a_failing_disk_leaves_everything_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whatever step of the writing fails, the answer is 500, the old file stays, and nothing is left behind."""
    path = put(folder / NAME, {"timeouts": {"idle": 5}})
    config = open_file(folder)
    config.load()
    content = path.read_bytes()
    real = getattr(os, step)

    def fail(*arguments: Any, **options: Any) -> Any:
        if step == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(ApiError) as caught:
        await config.edit(adds("c"))
    monkeypatch.undo()
    assert (caught.value.status, caught.value.code) == (500, "config_not_saved")
    assert "No space left on device" in caught.value.message
    assert path.read_bytes() == content
    assert os.listdir(folder) == [NAME]
    assert "c" in (await config.edit(adds("c"))).categories


def test_a_file_size_limit_is_an_error_and_not_a_death(folder: Path) -> None:
    """With RLIMIT_FSIZE=0 an edit reports 500 and the process, the file and the snapshot live on."""
    path = put(folder / NAME, {"timeouts": {"idle": 5}})
    script = textwrap.dedent(
        f"""
        import asyncio, resource
        from pathlib import Path
        from llm_router.config.edits import with_category
        from llm_router.errors import ApiError
        from llm_router.proxy.config_file import ConfigFile

        config = ConfigFile({{"HOME": "/nowhere"}}, {{}}, Path({str(folder)!r}))
        config.load()
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        try:
            asyncio.run(config.edit(lambda file: with_category(file, "c", ["ollama/x"])))
        except ApiError as error:
            assert (error.status, error.code) == (500, "config_not_saved"), error
        else:
            raise SystemExit("it was saved")
        assert config.load().timeouts.idle == 5
        """
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
    assert os.listdir(folder) == [NAME]
    assert json.loads(path.read_bytes()) == {"timeouts": {"idle": 5}}


async def test_a_lock_that_is_not_let_go_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another program keeps the folder locked the edit gives up, without a change."""
    put(folder / NAME, {})
    monkeypatch.setattr(storage, "_LOCK_PATIENCE_SECONDS", 0.05)
    with storage.locked(folder), pytest.raises(ApiError, match="holds the configuration's folder locked"):
        await open_file(folder).edit(adds("c"))
    assert json.loads((folder / NAME).read_bytes()) == {}


async def test_a_leftover_of_a_crash_does_not_stand_in_the_way(folder: Path) -> None:
    """A temporary file that a killed process left, even a link put there, is replaced and followed nowhere."""
    put(folder / NAME, {})
    victim = folder.parent / "victim"
    victim.write_text("mine")
    (folder / f".{NAME}.tmp").symlink_to(victim)
    await open_file(folder).edit(adds("c"))
    assert victim.read_text() == "mine"
    assert os.listdir(folder) == [NAME]
