"""A file that changes while the router runs: noticed once, and not lost when it goes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from llm_router.errors import ApiError, ConfigError
from tests.proxy.config_file.conftest import NAME, adds, open_file, put


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
