"""Promises 2 and 5 and the answers' heads: what counts as nothing, what every chat answer carries."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Desk, Launch
from tests.support.chunks import DONE, completion, event, finish, role, usage
from tests.support.client import Connection, chat_body, request_bytes
from tests.support.upstream import healthy, reply, stream

ROUTER_HEADERS = ("category", "mode", "model", "provider", "attempts")

NOTHING = {
    "no bytes as JSON": reply(200, b""),
    "no bytes as a stream": reply(200, b"", content_type="text/event-stream"),
    "blanks": reply(200, b" \n"),
    "204": reply(204, b""),
}


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_of_no_bytes_is_called_empty(desk: Desk, name: str, streamed: bool) -> None:
    """A 2xx that holds nothing fails over with the kind `empty_completion`, streamed or not."""
    desk.up["groq"].script = NOTHING[name]
    got = await desk.chat("router/pair", streamed)
    assert (got.status, got.header("x-router-model"), got.header("x-router-attempts")) == (200, "openai/second", "2")
    first, second = (await desk.record(got))["attempts"]
    assert (first["kind"], second["kind"]) == ("empty_completion", "ok")


@pytest.mark.parametrize(
    "events", [[DONE], [role(), DONE], [role()], [usage(), DONE]], ids=["done", "role done", "role", "usage"]
)
async def test_a_stream_without_meaning_is_called_empty(desk: Desk, events: list[bytes]) -> None:
    """A stream that ends without content, reason to stop or error is `empty_completion` and fails over."""
    desk.up["groq"].script = stream(events)
    got = await desk.chat("router/pair", True)
    assert got.header("x-router-model") == "openai/second"
    assert (await desk.record(got))["attempts"][0]["kind"] == "empty_completion"


@pytest.mark.parametrize("streamed", [False, True])
async def test_only_an_empty_stop_is_explained_by_the_request(desk: Desk, streamed: bool) -> None:
    """Few output tokens excuse an empty `stop`, not an answer of no bytes: that one counts for the circuit."""
    nothing = stream([DONE]) if streamed else reply(200, b"")
    empty_stop = stream([role(), finish(), DONE]) if streamed else reply(200, completion(""))
    for script, opens in ((empty_stop, False), (nothing, True)):
        await desk.reset()
        desk.up["groq"].script = script
        for _ in range(3):
            await desk.chat("router/pair", streamed, max_tokens=5)
        report = (await desk.ask("GET", "/circuit-breaker")).json()
        assert ("groq/first" in report["open_circuits"]) is opens


REFUSED: dict[str, tuple[str, Any, dict[str, str | None], int]] = {
    "unknown category": ("POST", chat_body("router/nosuch"), {}, 404),
    "unknown provider": ("POST", chat_body("nosuch/model"), {}, 404),
    "no model": ("POST", {"messages": []}, {}, 400),
    "no JSON": ("POST", b"{", {}, 400),
    "a foreign origin": ("POST", chat_body(), {"Origin": "https://evil.example"}, 403),
    "a foreign host": ("POST", chat_body(), {"Host": "evil.example"}, 403),
    "a form of a page": ("POST", chat_body(), {"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, 415),
    "packed": ("POST", chat_body(), {"Content-Encoding": "gzip"}, 415),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
async def test_refused_chats_carry_the_headers_too(desk: Desk, name: str, path: str) -> None:
    """Every chat answer says what happened, also one that was refused before anything was decided."""
    method, body, headers, status = REFUSED[name]
    got = await desk.ask(method, path, body, headers={"x-request-id": "mine-1", **headers})
    assert got.status == status
    assert got.header("x-request-id") == "mine-1"
    for header in ROUTER_HEADERS:
        assert got.header(f"x-router-{header}"), header
    assert got.header("x-router-attempts") == "0"
    assert set(got.error) >= {"message", "type", "param", "code"}
    assert got.body.endswith(b"}\n")


@pytest.mark.parametrize("streamed", [False, True])
async def test_http_1_0_with_keep_alive_gets_an_end(desk: Desk, streamed: bool) -> None:
    """A client of HTTP/1.0 that offers to keep the connection still learns where the answer ends."""
    desk.up["groq"].script = healthy
    connection = await Connection.open(desk.router.port)
    try:
        body = chat_body("router/code", streamed)
        await connection.send(request_bytes(body=body, headers={"Connection": "keep-alive"}, version="1.0"))
        got = await connection.answer(5)
    finally:
        connection.close()
    assert (got.status, got.ended) == (200, "whole")
    assert "upstream" in got.text


@pytest.mark.parametrize("wish", ["1", "true", "Yes", "on"])
async def test_a_dry_run_asks_nobody(desk: Desk, wish: str) -> None:
    """`x-router-dry-run` answers what `/v1/explain` answers, with the headers of a chat answer and no attempt."""
    body = chat_body("router/pair")
    got = await desk.ask("POST", "/v1/chat/completions", body, headers={"x-router-dry-run": wish})
    assert got.json() == (await desk.ask("POST", "/v1/explain", body)).json()
    told = [got.header(f"x-router-{name}") for name in ROUTER_HEADERS]
    assert told == ["pair", "forced", "none", "none", "0"]
    assert not desk.up["groq"].connections


@pytest.mark.parametrize(("wish", "status"), [("2", 400), ("dry", 400), ("0", 200), ("off", 200), ("", 200)])
async def test_only_a_clear_no_to_a_dry_run_is_asked(desk: Desk, wish: str, status: int) -> None:
    """What may have meant a dry run costs nothing: a word that is neither yes nor no is a 400 that names the header."""
    got = await desk.ask("POST", "/v1/chat/completions", chat_body("router/pair"), headers={"x-router-dry-run": wish})
    assert got.status == status
    assert bool(desk.up["groq"].connections) is (status == 200)
    assert status == 200 or got.error["param"] == "x-router-dry-run"


async def test_a_missing_key_is_told_like_every_chat_answer(launch: Launch) -> None:
    """401 on the chat routes names the setting, carries the router's headers, and asks nobody."""
    router = await launch({}, env={"ROUTER_API_KEY": "key-one-1234, key-two-1234"})
    for path in ("/v1/chat/completions", "/chat/completions"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"x-api-key": "key-one-1234"}):
            got = await router.ask("POST", path, chat_body(), headers=headers)
            assert (got.status, got.error["code"]) == (401, "invalid_api_key")
            assert "ROUTER_API_KEY" in got.error["message"]
            assert [got.header(f"x-router-{name}") for name in ROUTER_HEADERS] == ["none"] * 4 + ["0"]
    known = {"Authorization": "bearer key-two-1234"}
    assert (await router.ask("POST", "/v1/explain", chat_body("router"), headers=known)).status == 200


INSIDE_A_200 = {
    "too long": (
        {"code": "context_length_exceeded", "message": "maximum context length is 10 tokens"},
        "context_length_exceeded",
    ),
    "moderated": ({"code": 403, "message": "Input was flagged by moderation"}, "content_policy_violation"),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", INSIDE_A_200)
async def test_a_requests_own_trouble_inside_a_200_blames_nobody(desk: Desk, name: str, streamed: bool) -> None:
    """An overflow or a moderated prompt that is told inside a 200 is 400 with its code, and opens no circuit."""
    error, code = INSIDE_A_200[name]
    desk.up["groq"].script = stream([event({"error": error}), DONE]) if streamed else reply(200, {"error": error})
    for _ in range(4):
        got = await desk.chat("groq/x", streamed)
        assert (got.status, got.error["code"], got.error["message"]) == (400, code, error["message"])
    assert desk.up["groq"].count == 4


@pytest.mark.parametrize("streamed", [False, True])
async def test_other_errors_inside_a_200_fail_over_and_count(desk: Desk, streamed: bool) -> None:
    """Any other error inside a 200 is a failed attempt, whatever its code."""
    error = {"error": {"message": "invalid upstream state", "type": "invalid_request_error", "code": 400}}
    desk.up["groq"].script = stream([event(error), DONE]) if streamed else reply(200, error)
    for _ in range(3):
        assert (await desk.chat("router/pair", streamed)).header("x-router-model") == "openai/second"
    assert "groq/first" in (await desk.ask("GET", "/circuit-breaker")).json()["open_circuits"]
