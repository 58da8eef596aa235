"""What the log says while the router runs: outages, and what became of the configuration. One line an event."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from llm_router.errors import ApiError, Failure, FailureKind
from llm_router.proxy.live import accounts_of
from llm_router.server.telling import Outages, take_over
from tests.server.conftest import CONFIG, Served, StartRouter


def fail(served: Served, model: str, kind: FailureKind, times: int = 1) -> None:
    """Books failures of a model of provider `a`."""
    router = served.router
    (account,) = accounts_of(router.snapshot.providers["a"])
    for _ in range(times):
        permit = router.circuits.admit(model, [account], router.clock())
        assert permit is not None
        router.circuits.failed(permit, Failure(kind, "words to it"), router.clock())


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of each line since it was last asked."""
    found = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "llm_router"]
    caplog.clear()
    return found


async def test_an_outage_is_two_lines(serve: StartRouter, caplog: pytest.LogCaptureFixture) -> None:
    """A model that is left out is told once, however often one looks, and once that it is back."""
    caplog.set_level(logging.INFO, "llm_router")
    served = await serve()
    outages = Outages(served.router)
    fail(served, "a/m1", FailureKind.SERVER_ERROR, times=2)
    outages.look()
    assert lines(caplog) == []
    fail(served, "a/m1", FailureKind.SERVER_ERROR)
    for _ in range(3):
        outages.look()
    assert lines(caplog) == [("WARNING", "model a/m1 is left out (server_error); it is tried again in 300 s")]
    served.router.reset_circuit("a/m1")
    for _ in range(3):
        outages.look()
    assert lines(caplog) == [("INFO", "model a/m1 is no longer left out")]


async def test_an_outage_that_has_waited_long_enough(
    serve: StartRouter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A circuit that was open when the router stopped, and whose time is over at the start, is tried next."""
    served = await serve()
    fail(served, "a/m1", FailureKind.SERVER_ERROR, times=3)
    later = served.router.clock() + 1000
    monkeypatch.setattr(served.router, "clock", lambda: later)
    caplog.clear()
    Outages(served.router).look()
    assert lines(caplog) == [("WARNING", "model a/m1 is left out (server_error); the next request tries it")]


async def test_providers_and_keys_are_named(serve: StartRouter, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that cannot be reached is one line for all its models, with the reason; a key is its variable."""
    caplog.set_level(logging.INFO, "llm_router")
    served = await serve()
    outages = Outages(served.router)
    fail(served, "a/m1", FailureKind.CONNECT_ERROR, times=3)
    served.router.circuits.reset("b/other")
    outages.look()
    assert lines(caplog) == [
        ("WARNING", "provider a is left out (connect_error: words to it); it is tried again in 300 s")
    ]
    served.router.reset_all_circuits()
    fail(served, "a/vendor/m2", FailureKind.AUTHENTICATION)
    outages.look()
    assert lines(caplog) == [
        ("WARNING", "the key A_KEY of a is left out (authentication); it is tried again in 300 s"),
        ("INFO", "provider a is no longer left out"),
    ]


async def test_what_clients_name_is_no_outage(serve: StartRouter, caplog: pytest.LogCaptureFixture) -> None:
    """A client cannot fill or forge the log with models that no chain has; a rate limit is in the requests' lines."""
    caplog.set_level(logging.INFO, "llm_router")
    served = await serve()
    outages = Outages(served.router)
    fail(served, "a/made\nup", FailureKind.SERVER_ERROR, times=3)
    fail(served, "a/m1", FailureKind.RATE_LIMITED)
    outages.look()
    assert lines(caplog) == []


async def test_a_reload_tells_what_is_new(serve: StartRouter, caplog: pytest.LogCaptureFixture) -> None:
    """New mistakes and what takes a restart are told once; what was known before is not told again."""
    caplog.set_level(logging.INFO, "llm_router")
    served = await serve({**CONFIG, "server": {"api_key_env": "UNSET_KEY"}})
    content = {**CONFIG, "server": {"api_key_env": "UNSET_KEY", "port": 4000}, "log": {"level": "error"}}
    content["model_mappings"] = {**CONFIG["model_mappings"], "code": ["openai/x"]}
    (served.folder / "router_config.json").write_text(json.dumps(content))
    assert (await served.ask("POST", "/config/reload")).status == 200
    assert lines(caplog) == [
        ("WARNING", "no model of the category code can answer: set OPENAI_API_KEY"),
        ("WARNING", "server.port was changed: that takes a restart"),
        ("INFO", "the configuration was reloaded"),
    ]
    assert (await served.ask("POST", "/config/reload")).status == 200
    assert lines(caplog) == [("INFO", "the configuration was reloaded")]


async def test_a_reload_that_fails_is_told(serve: StartRouter, caplog: pytest.LogCaptureFixture) -> None:
    """The operator reads in the log what the caller of the route reads in the answer."""
    served = await serve()
    (served.folder / "router_config.json").write_text('{"modle_mappings": {}}')
    answer = await served.ask("POST", "/config/reload")
    assert answer.status == 400
    assert lines(caplog) == [("ERROR", answer.json()["error"]["message"])]
    with pytest.raises(ApiError, match="the configuration stays as it was"):
        await take_over(served.router, served.router.refresh)


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", "/config/category", {"name": "odes", "models": ["a/m1"]}, "the chain of the category odes is a/m1"),
        ("POST", "/config/model-mapping", {"category": "code", "models": ["a/m1", "a/m2"]},
         "the chain of the category code is a/m1, a/m2"),
        ("DELETE", "/config/category/creative", None, "the category creative was deleted"),
        ("POST", "/circuit-breaker/reset/a/m1", None, 'the circuit of "a/m1" was reset'),
        ("POST", "/circuit-breaker/reset/a/m%0A1", None, 'the circuit of "a/m\\n1" was reset'),
        ("POST", "/circuit-breaker/reset-all", None, "all circuits were reset"),
    ],
)  # fmt: skip
async def test_changes_through_the_api_are_told(
    serve: StartRouter, caplog: pytest.LogCaptureFixture, method: str, path: str, body: Any, words: str
) -> None:
    """Who looks for what changed last night finds it in the log, in one line that no name can break."""
    caplog.set_level(logging.INFO, "llm_router")
    served = await serve()
    assert (await served.ask(method, path, body)).status == 200
    assert lines(caplog) == [("INFO", f"through the API: {words}")]


async def test_each_setting_that_takes_a_restart_is_told(serve: StartRouter, caplog: pytest.LogCaptureFixture) -> None:
    """Host, port, workers, log and state folder stay as they were started, and the log says so."""
    caplog.set_level(logging.INFO, "llm_router")
    served = await serve()
    router = served.router
    changed = {"host": "::1", "port": 1, "workers": 2, "log_level": "error", "log_format": "json", "state_dir": "/x"}

    async def read() -> Any:
        return router.apply(replace(router.snapshot, **changed))

    await take_over(router, read)
    told = [text for level, text in lines(caplog) if level == "WARNING"]
    keys = ("server.host", "server.port", "server.workers", "log.level", "log.format", "state_dir")
    assert told == [f"{key} was changed: that takes a restart" for key in keys]
