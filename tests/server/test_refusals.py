"""What was refused leaves a line, a bounded one: whoever looks for the reason of a client's 401 finds it in the log."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from llm_router.errors import ApiError
from llm_router.server.refusals import QUIET_S, Refusals
from tests.server.conftest import CONFIG, StartRouter
from tests.support.client import Connection, chat_body
from tests.support.upstream import Upstream


class From(asyncio.BaseTransport):
    """A transport that knows its peer."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 4711)})


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The refusals in the log since it was last asked, each without its first word; nothing was refused before."""
    caplog.set_level(logging.INFO, "llm_router")
    fresh = Refusals()
    for room in ("chat", "connections", "front"):
        monkeypatch.setattr(f"llm_router.server.{room}.refusals", fresh)

    def lines() -> list[dict[str, str]]:
        found = [record.getMessage() for record in caplog.records if record.getMessage().startswith("refused ")]
        caplog.clear()
        return [dict(field.split("=", 1) for field in line.split()[1:]) for line in found]

    return lines


async def test_whom_why_and_where(serve: StartRouter, told: Any) -> None:
    """A wrong key, a foreign page, a mistake in a body by either way, and a path that is none: one line each."""
    served = await serve(api_keys=("sk-router-1234567890",))
    key = {"Authorization": "Bearer sk-router-1234567890"}
    answer = await served.ask("POST", "/v1/chat/completions", chat_body(), headers={"Authorization": "Bearer no"})
    assert answer.status == 401
    assert told() == [
        {
            "id": answer.header("x-request-id"),
            "status": "401",
            "code": "invalid_api_key",
            "param": "-",
            "peer": "127.0.0.1",
            "method": "POST",
            "path": "/v1/chat/completions",
        }
    ]
    await served.ask("POST", "/v1/chat/completions", chat_body(), headers={**key, "Origin": "https://evil.example"})
    await served.ask("POST", "/chat/completions", {"model": "router", "messages": []}, headers=key)
    await served.ask("GET", "/v1/v1/models", headers=key)
    seen = [(line["status"], line["code"], line["param"], line["path"]) for line in told()]
    assert seen == [
        ("403", "origin_not_allowed", "-", "/v1/chat/completions"),
        ("400", "invalid_request_error", "messages", "/chat/completions"),
        ("404", "unknown_url", "-", "/v1/v1/models"),
    ]


async def test_what_was_admitted_is_told_when_it_is_settled(serve: StartRouter, upstream: Upstream, told: Any) -> None:
    """A request that runs has its line already, whether it is answered, fails, or names a model that nobody has."""
    served = await serve({**CONFIG, "providers": {"a": {"base_url": upstream.url, "api_key_env": "A_KEY"}}})
    for way in ({}, {"Origin": f"http://127.0.0.1:{served.port}"}):
        for model in ("router", "a/m", "nobody/m"):
            await served.ask("POST", "/v1/chat/completions", chat_body(model), headers=way)
    assert told() == []


async def test_a_fault_of_ours_is_no_refusal(serve: StartRouter, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves its own trace in the log, and no line that blames the request."""
    served = await serve()
    monkeypatch.setattr(served.router, "explain", lambda *_: 1 // 0)
    assert (await served.ask("POST", "/v1/explain", chat_body())).status == 500
    assert told() == []


async def test_bad_http_is_told_without_a_word_of_it(serve: StartRouter, told: Any) -> None:
    """What was no request at all leaves its status and its sender, nothing of what was sent."""
    served = await serve()
    connection = await Connection.open(served.port)
    await connection.send(b"GET /secret-word HTTP/9.9\r\nX: secret-word\r\n\r\n")
    await connection.everything()
    connection.close()
    (line,) = told()
    assert (line["status"], line["peer"], line["path"]) == ("400", "127.0.0.1", "-")
    assert "secret" not in json.dumps(line)


def test_one_line_a_minute(told: Any) -> None:
    """The first of a kind is written at once, the next a minute later with how many were like it in between."""
    now = 0.0
    noted = Refusals(lambda: now)
    wrong, mistake = ApiError(401, "no", code="invalid_api_key"), ApiError(400, "no")
    for _ in range(12):
        noted.note(wrong, From("10.0.0.1"))
    noted.note(wrong, From("10.0.0.2"))
    noted.note(mistake, From("10.0.0.1"))
    assert [(line["peer"], line["status"]) for line in told()] == [
        ("10.0.0.1", "401"),
        ("10.0.0.2", "401"),
        ("10.0.0.1", "400"),
    ]
    now = QUIET_S
    noted.note(wrong, From("10.0.0.1"))
    noted.note(wrong, From("10.0.0.2"))
    assert [line.get("like_it") for line in told()] == ["11", None]


def test_very_many_senders_are_one(told: Any) -> None:
    """From a thousand addresses a minute on the others share one line; a minute later there is room again."""
    now = 0.0
    noted = Refusals(lambda: now)
    wrong = ApiError(401, "no", code="invalid_api_key")
    for number in range(3000):
        noted.note(wrong, From(f"10.0.{number // 250}.{number % 250}"))
    lines = told()
    assert len(lines) == 1025
    assert lines[-1]["peer"] == "*"
    now = QUIET_S
    noted.note(wrong, From("10.9.9.9"))
    assert told()[0]["peer"] == "10.9.9.9"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1beta/models", "/v1beta/models"),
        ("/sk-Ab3456/v1/models", "-"),
        ("/v1/requests/req_0123", "-"),
        ("/a\r\nINFO forged", "-"),
        ("/" + "a" * 25, "-"),
        ("/a" * 9, "-"),
    ],
)
def test_only_words_are_shown(told: Any, path: str, shown: str) -> None:
    """Of a path what looks like a key, an id or another line is left out; so is the name of a field that is none."""
    noted = Refusals()
    noted.note(ApiError(404, "no", param="x\ny"), From("::1"), "GE\nT", path)
    (line,) = told()
    assert (line["path"], line["param"], line["method"], line["peer"]) == (shown, "-", "-", "::1")


def test_what_needs_a_hand_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A router that turns connections away is seen with `-p warning`; a client's mistake, and a drain, are not."""
    caplog.set_level(logging.INFO, "llm_router")
    for status, code in ((503, "too_many_connections"), (503, "shutting_down"), (413, "too_large")):
        Refusals().note(ApiError(status, "no", code=code), None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
