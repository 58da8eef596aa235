"""The file on disk: found, read with .env, watched, and changed so that nothing is ever lost or half-written."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router.config.edits import with_category, with_mapping
from llm_router.errors import ApiError, ConfigError
from llm_router.proxy.config_file import ConfigFile, storage, write_new
from llm_router.proxy.config_file.dotenv import read_dotenv

NAME = "router_config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory of its own."""
    here = tmp_path / "work"
    here.mkdir()
    return here


def open_file(folder: Path, environ: dict[str, str] | None = None, **flags: object) -> ConfigFile:
    """The configuration of a router started in `folder`."""
    return ConfigFile({"HOME": str(folder.parent / "home"), **(environ or {})}, flags, folder)


def put(path: Path, content: Any) -> Path:
    """Writes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def adds(name: str, *models: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The change that adds a category."""
    return lambda file: with_category(file, name, list(models) or ["ollama/x"])


# --- finding ----------------------------------------------------------------------------------------------------------


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


# --- .env -------------------------------------------------------------------------------------------------------------


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


# --- reloading --------------------------------------------------------------------------------------------------------


async def test_a_change_on_disk_is_noticed_once(folder: Path) -> None:
    """A changed file is noticed, and not again once it was read, whether it was valid or not."""
    path = put(folder / NAME, {"timeouts": {"idle": 5}})
    config = open_file(folder)
    config.load()
    assert not config.changed()
    put(path, {"timeouts": {"idle": 70}})
    assert config.changed()
    assert (await config.reload()).timeouts.idle == 70
    assert not config.changed()
    path.write_text("{")
    assert config.changed()
    with pytest.raises(ConfigError):
        await config.reload()
    assert not config.changed()


@pytest.mark.parametrize("how", ["reload", "edit"])
async def test_what_nobody_took_over_still_counts_as_changed(folder: Path, how: str) -> None:
    """Where the caller was cancelled before it got the snapshot, watching the file brings it about after all."""
    path = put(folder / NAME, {})
    config = open_file(folder)
    config.load()
    put(path, {"timeouts": {"idle": 70}})
    work = asyncio.ensure_future(config.reload() if how == "reload" else config.edit(adds("c")))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    deadline = time.monotonic() + 20
    while how == "edit" and "c" not in path.read_text():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert config.changed()
    assert (await config.reload()).timeouts.idle == 70


async def test_a_file_that_appears_is_noticed(folder: Path) -> None:
    """A router that started without a file takes over the first one."""
    config = open_file(folder)
    config.load()
    assert not config.changed()
    put(folder / NAME, {"timeouts": {"idle": 7}})
    assert config.changed()
    assert (await config.reload()).timeouts.idle == 7


async def test_a_file_that_is_gone_changes_nothing(folder: Path) -> None:
    """A file that vanishes is no change; a reload and an edit say that it has gone and keep what is in force."""
    path = put(folder / NAME, {"timeouts": {"idle": 5}})
    config = open_file(folder)
    config.load()
    path.unlink()
    assert not config.changed()
    with pytest.raises(ConfigError, match="has gone"):
        await config.reload()
    with pytest.raises(ApiError, match="has gone") as caught:
        await config.edit(adds("c"))
    assert caught.value.status == 500
    assert not path.exists()


async def test_a_dotenv_that_breaks_later_stops_nobody_from_watching(folder: Path) -> None:
    """Where a broken .env leaves open which file it is, none has changed; a reload and an edit say what is wrong."""
    config = open_file(folder)
    config.load()
    (folder / ".env").write_bytes(b"A=\xff\n")
    assert not config.changed()
    with pytest.raises(ConfigError, match="not UTF-8"):
        await config.reload()
    with pytest.raises(ApiError, match="not UTF-8") as caught:
        await config.edit(adds("c"))
    assert (caught.value.status, caught.value.code) == (500, "config_not_saved")
    (folder / ".env").unlink()
    put(folder / NAME, {})
    assert config.changed()


@pytest.mark.parametrize(
    ("guard", "without"),
    [("ROUTER_API_KEY=k\n", ""), ("ROUTER_ALLOW_UNAUTHENTICATED=1\n", "ROUTER_HOST=127.0.0.1\n")],
)
async def test_what_guards_an_open_address_cannot_be_taken_away(folder: Path, guard: str, without: str) -> None:
    """Where other machines reach the router no reload and no edit leaves it without a key, whatever host they name."""
    (folder / ".env").write_text(guard)
    config = open_file(folder)
    config.load()
    config.serve_at("0.0.0.0")
    assert (await config.reload()).access is not None
    (folder / ".env").write_text(without)
    with pytest.raises(ConfigError, match=r"^ROUTER_API_KEY: is not set: refusing to go on at 0\.0\.0\.0"):
        await config.reload()
    with pytest.raises(ApiError, match="ROUTER_API_KEY") as caught:
        await config.edit(adds("c"))
    assert (caught.value.status, caught.value.code) == (500, "config_not_saved")
    (folder / ".env").write_text("ROUTER_API_KEY=other\n")
    assert (await config.reload()).access.api_keys == ("other",)


async def test_on_loopback_a_key_may_go(folder: Path) -> None:
    """A router that only this machine reaches needs no key, so a reload may take it away."""
    (folder / ".env").write_text("ROUTER_API_KEY=k\n")
    config = open_file(folder)
    config.serve_at(config.load().host)
    (folder / ".env").unlink()
    assert (await config.reload()).access.api_keys == ()


# --- editing ----------------------------------------------------------------------------------------------------------


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


# --- what cannot be saved ---------------------------------------------------------------------------------------------


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
