"""Whose fault a refusal is: what fails over, what goes to the client in which words, and what waits how long."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tests.support.chunks import error
from tests.support.client import Answer
from tests.support.fixtures import Stage
from tests.support.router import KEYS
from tests.support.upstream import hang, raw, reply

Own = Callable[..., Awaitable[Stage]]


def assert_error(got: Answer, status: int, code: str | None = None, words: str = "") -> dict[str, Any]:
    """An OpenAI-shaped error answer in JSON with a newline at its end."""
    assert got.status == status, got.raw
    assert "application/json" in (got.header("content-type") or "")
    assert got.body.endswith(b"\n")
    problem: dict[str, Any] = got.error
    assert set(problem) >= {"message", "type", "param", "code"}
    assert isinstance(problem["message"], str)
    assert problem["message"]
    assert problem["code"] is None or isinstance(problem["code"], str)
    if code is not None:
        assert problem["code"] == code
    assert words in problem["message"]
    return problem


WORDS = "Invalid value for 'messages[0]': the provider's own words"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", ["a/m1", "router/ab"])
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_the_requests_fault_goes_to_the_client(stage: Stage, status: int, model: str, streamed: bool) -> None:
    """400, 413 and 422 about the request itself: the provider's words, no failover, no blame however often."""
    stage.a.script = reply(status, error(WORDS, "invalid_value"))
    for _ in range(5):
        problem = assert_error(await stage.chat(model, streamed), status, words=WORDS)
        assert problem["code"] == "invalid_value"
    assert (stage.a.count, stage.b.count) == (5, 0)


UNSUPPORTED = {
    "unsupported_parameter": error("Unsupported parameter: 'temperature' is not supported.", "unsupported_parameter"),
    "unsupported_value": error("'temperature' does not support 0.7 with this model.", "unsupported_value"),
    "unknown_parameter": error("Unknown parameter: 'reasoning_effort'.", "unknown_parameter"),
    "no_tools": error("registry.ollama.ai/library/gemma:2b does not support tools"),
    "no_tool_endpoints": error("No endpoints found that support tool use"),
    "no_images": error("This model does not support image input"),
    "no_schema": error("This model does not support response_format json_schema"),
    "output_limit": error("max_tokens is too large: 100000. This model supports at most 4096 completion tokens"),
}


@pytest.mark.parametrize("status", [400, 404, 422])
@pytest.mark.parametrize("name", UNSUPPORTED)
async def test_what_this_model_cannot_take_moves_on(stage: Stage, name: str, status: int) -> None:
    """Where the router chose the model, a refusal that is about the model moves on without blame."""
    stage.a.script = reply(status, UNSUPPORTED[name])
    for _ in range(4):
        got = await stage.chat("router/ab")
        assert (got.status, got.header("x-router-model")) == (200, "b/m2")
    assert stage.a.count == 4


@pytest.mark.parametrize("name", UNSUPPORTED)
async def test_it_is_the_answer_if_all_refuse(stage: Stage, name: str) -> None:
    """If every model refuses so, the client gets the provider's words and status."""
    stage.a.script = stage.b.script = reply(400, UNSUPPORTED[name])
    words = json.loads(UNSUPPORTED[name])["error"]["message"]
    assert_error(await stage.chat("router/ab"), 400, words=words)
    assert (stage.a.count, stage.b.count) == (1, 1)


@pytest.mark.parametrize("name", UNSUPPORTED)
async def test_an_explicit_model_keeps_its_refusal(stage: Stage, name: str) -> None:
    """An explicit model is never replaced: its refusal goes to the client as it is."""
    stage.a.script = reply(400, UNSUPPORTED[name])
    assert_error(await stage.chat("a/m1"), 400, words=json.loads(UNSUPPORTED[name])["error"]["message"])
    assert stage.b.count == 0


CONTEXT = [
    error("This model's maximum context length is 8192 tokens.", "context_length_exceeded"),
    error("This model's maximum context length is 128000 tokens. However, your messages resulted in 150000 tokens."),
    error("prompt is too long: 250000 tokens > 200000 maximum"),
    error("The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."),
    error("x", 400, metadata={"error_type": "context_length_exceeded"}),
]


@pytest.mark.parametrize("body", CONTEXT, ids=["code", "openai", "anthropic", "google", "metadata"])
async def test_context_overflow_moves_on(stage: Stage, body: bytes) -> None:
    """An overflow moves on to a model whose window is larger or unknown, and never counts."""
    stage.a.script = reply(400, body)
    for _ in range(4):
        got = await stage.chat("router/ab")
        assert (got.status, got.header("x-router-model")) == (200, "b/m2")
    assert stage.a.count == 4


@pytest.mark.parametrize("body", CONTEXT[:4], ids=["code", "openai", "anthropic", "google"])
@pytest.mark.parametrize("model", ["a/m1", "router/ab"])
async def test_context_overflow_of_all(stage: Stage, body: bytes, model: str) -> None:
    """Without a larger window the answer is 400 with the code and the provider's words."""
    stage.a.script = stage.b.script = reply(400, body)
    words = json.loads(body)["error"]["message"]
    assert_error(await stage.chat(model), 400, "context_length_exceeded", words)


@pytest.mark.parametrize("body", [CONTEXT[0], UNSUPPORTED["unsupported_parameter"]], ids=["overflow", "unsupported"])
async def test_a_retired_model_hides_no_refusal(stage: Stage, body: bytes) -> None:
    """Beside a model that is gone the refusal is the answer, the first time and once its circuit is open."""
    stage.a.script, stage.b.script = reply(400, body), reply(404, error("The model does not exist", "model_not_found"))
    words = json.loads(body)["error"]["message"]
    for _ in range(3):
        assert_error(await stage.chat("router/ab"), 400, words=words)
    assert (stage.a.count, stage.b.count) == (3, 1)


async def test_overflow_skips_smaller_windows(own: Own) -> None:
    """A model whose known window is not larger than the one that overflowed is not asked."""
    prices = {
        "a/m1": {"input": 1, "output": 1, "context": 100_000},
        "b/m2": {"input": 1, "output": 1, "context": 50_000},
        "c/m3": {"input": 1, "output": 1, "context": 200_000},
    }
    stage = await own(prices=prices)
    stage.a.script = reply(400, CONTEXT[0])
    got = await stage.chat("router/abc")
    assert (got.status, got.header("x-router-model"), stage.b.count) == (200, "c/m3", 0)
    got = await stage.chat("router/ab")
    assert_error(got, 400, "context_length_exceeded", "maximum context length")
    assert stage.b.count == 0


POLICY = [
    error("Your input was flagged by moderation", 403, metadata={"reasons": ["violence"], "flagged_input": "x"}),
    error("Request blocked by guardrail", 403),
    error("This request violates our content policy", "content_policy_violation"),
]


@pytest.mark.parametrize("body", POLICY, ids=["moderation", "guardrail", "policy"])
@pytest.mark.parametrize("model", ["a/m1", "router/ab"])
async def test_a_refused_content_is_the_clients(stage: Stage, body: bytes, model: str) -> None:
    """A 403 about the content is 400 `content_policy_violation` for its client, and no blame for anybody."""
    stage.a.script = reply(403, body)
    for _ in range(4):
        assert_error(await stage.chat(model), 400, "content_policy_violation", json.loads(body)["error"]["message"])
    assert (stage.a.count, stage.b.count) == (4, 0)
    stage.a.script = reply(403, POLICY[0])
    await stage.chat(model)
    assert stage.a.count == 5


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("status", [401, 402, 403])
async def test_our_keys_are_not_the_clients_problem(stage: Stage, status: int, streamed: bool) -> None:
    """401, 402 and 403 never reach the client as such: 503, attempts, and no retry that cannot help."""
    words = f"Incorrect API key provided: {KEYS['a']}"
    stage.a.script = stage.b.script = reply(status, error(words, "invalid_api_key"), {"WWW-Authenticate": "Bearer"})
    got = await stage.chat("router/ab", streamed)
    problem = assert_error(got, 503, "all_candidates_failed")
    assert [attempt["status"] for attempt in problem["attempts"]] == [status, status]
    assert got.header("x-should-retry") == "false"
    assert got.header("retry-after")
    assert got.header("www-authenticate") is None
    assert KEYS["a"] not in got.raw.decode()


async def test_quota_is_no_rate_limit(stage: Stage) -> None:
    """A 429 that says the account is out of quota is billing: 503, and a retry cannot help."""
    for code in ("insufficient_quota", "credit_balance_exhausted"):
        await stage.reset()
        stage.a.script = stage.b.script = reply(
            429, error("You exceeded your current quota", code), {"Retry-After": "1"}
        )
        got = await stage.chat("router/ab")
        assert_error(got, 503, "all_candidates_failed")
        assert got.header("x-should-retry") == "false"


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [("7.2", "3.1", "4"), ("5", "9", "5"), ("0", "9", "0"), ("1", "1", "1"), ("0.2", "30", "1")],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_all_rate_limited(stage: Stage, first: str, second: str, wanted: str, streamed: bool) -> None:
    """When all are rate limited: 429, `rate_limit_exceeded`, the smallest wait rounded up, a retry is welcome."""
    words = "Rate limit reached for requests"
    stage.a.script = reply(429, error(words, "rate_limit_exceeded"), {"Retry-After": first})
    stage.b.script = reply(429, error(words, "rate_limit_exceeded"), {"Retry-After": second})
    got = await stage.chat("router/ab", streamed)
    problem = assert_error(got, 429, "rate_limit_exceeded", words)
    assert [(attempt["model"], attempt["status"]) for attempt in problem["attempts"]] == [("a/m1", 429), ("b/m2", 429)]
    assert got.header("retry-after") == wanted
    assert got.header("x-should-retry") is None


async def test_a_rate_limit_among_other_failures(stage: Stage) -> None:
    """One rate limit and one failure is no rate limit: 503."""
    stage.a.script = reply(429, error("slow down"), {"Retry-After": "3"})
    stage.b.script = reply(500, error("broken"))
    got = await stage.chat("router/ab")
    assert_error(got, 503, "all_candidates_failed")
    assert got.header("retry-after")


async def test_still_rate_limited(stage: Stage) -> None:
    """During the cooldown nobody is asked, and the answer is the same 429 with what remains of the wait."""
    stage.a.script = stage.b.script = reply(429, error("Rate limit reached"), {"Retry-After": "20"})
    await stage.chat("router/ab")
    await asyncio.sleep(1.2)
    got = await stage.chat("router/ab")
    assert_error(got, 429, "rate_limit_exceeded")
    assert 0 < int(got.header("retry-after") or "0") < 20
    assert (stage.a.count, stage.b.count) == (1, 1)


async def test_a_cooldown_ends(stage: Stage) -> None:
    """A rate-limited model is left alone for its `Retry-After`, never probed early, and asked again after it."""
    stage.a.queue = [reply(429, error("slow down"), {"Retry-After": "2"})]
    began = time.monotonic()
    seen = [(await stage.chat("router/ab")).header("x-router-model")]
    limited = time.monotonic()
    while time.monotonic() - began < 0.8:
        seen.append((await stage.chat("router/ab")).header("x-router-model"))
        await asyncio.sleep(0.1)
    assert set(seen) == {"b/m2"}
    assert stage.a.count == 1
    await asyncio.sleep(max(0.0, limited + 2.1 - time.monotonic()))
    assert (await stage.chat("router/ab")).header("x-router-model") == "a/m1"


def _date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "30"}, 29, 30),
        ({"Retry-After": " 30 "}, 29, 30),
        ({"Retry-After": "2.5"}, 3, 3),
        ({"Retry-After": "date+30"}, 27, 31),
        ({"Retry-After": "date-30"}, 0, 10),
        ({"retry-after-ms": "1500"}, 2, 2),
        ({"retry-after-ms": "30000", "Retry-After": "90"}, 29, 30),
        ({"Retry-After": "soon"}, 9, 10),
        ({"Retry-After": ""}, 9, 10),
        ({"Retry-After": "-5"}, 0, 10),
        ({"Retry-After": "999999999999"}, 3599, 3600),
        ({"Retry-After": "1e400"}, 0, 3600),
        ({"Retry-After": "inf"}, 0, 3600),
        ({"Retry-After": "nan"}, 0, 3600),
        ({"Retry-After": "9" * 5000}, 0, 3600),
        ({"Retry-After": "Wed, 32 Foo 2026 99:99:99 GMT"}, 9, 10),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 3599, 3600),
        ({"retry-after-ms": "nan", "Retry-After": "5"}, 0, 10),
        ({}, 9, 10),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_forms_of_retry_after(stage: Stage, headers: dict[str, str], low: int, high: int) -> None:
    """Seconds, dates, milliseconds, junk, huge and negative values: never a crash, at most one hour, 10 s without."""
    fixed = {
        name: _date(float(value.removeprefix("date"))) if value.startswith("date") else value
        for name, value in headers.items()
    }
    stage.a.script = reply(429, error("slow down"), fixed)
    got = await stage.chat("router/only")
    assert_error(got, 429, "rate_limit_exceeded")
    assert low <= int(got.header("retry-after") or "-1") <= high


async def test_retry_info_of_google(stage: Stage) -> None:
    """Google's RetryInfo in the body is a wait like any other."""
    body = error(
        "Resource has been exhausted",
        429,
        status="RESOURCE_EXHAUSTED",
    )
    payload = json.loads(body)
    payload["error"] |= {
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}],
    }
    for form in (payload, [payload]):
        await stage.reset()
        stage.a.script = reply(429, json.dumps(form))
        got = await stage.chat("router/only")
        assert_error(got, 429, "rate_limit_exceeded")
        assert got.header("retry-after") in ("33", "34")


async def test_an_explicit_model_that_is_gone(stage: Stage) -> None:
    """The only candidate of an explicit model answered 404: 404 `model_not_found` with the words and attempts."""
    stage.a.script = reply(404, error("The model 'm1' does not exist", "model_not_found"))
    problem = assert_error(await stage.chat("a/m1"), 404, "model_not_found", "The model 'm1' does not exist")
    assert [attempt["status"] for attempt in problem["attempts"]] == [404]


async def test_a_chain_that_is_gone(stage: Stage) -> None:
    """404 of a chain's models is 503, and each is asked once: a 404 opens its circuit at once."""
    stage.a.script = stage.b.script = reply(404, error("no such model"))
    assert_error(await stage.chat("router/ab"), 503, "all_candidates_failed")
    assert_error(await stage.chat("router/ab"), 503)
    assert stage.a.count + stage.b.count <= 3  # the second request may probe the one that recovers soonest


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("router/nosuch", 404, None),
        ("nosuch/model", 404, "model_not_found"),
        ("nosuch/deep/model", 404, "model_not_found"),
        ("/m1", 404, None),
        ("a/", 404, None),
        ("router/", 404, None),
    ],
)
async def test_names_that_lead_nowhere(stage: Stage, model: str, status: int, code: str | None) -> None:
    """Unknown categories and providers are refused by name; nobody is asked."""
    got = await stage.chat(model)
    assert got.status in ((status,) if code or model == "router/nosuch" else (400, 404))
    assert_error(got, got.status, code)
    assert stage.a.count + stage.b.count + stage.c.count == 0


async def test_missing_keys_are_named(own: Own) -> None:
    """If no candidate has a key the 503 names the missing variables."""
    stage = await own(env={"A_KEY": "", "B_KEY": ""})
    got = await stage.chat("router/ab")
    problem = assert_error(got, 503)
    assert "A_KEY" in problem["message"]
    assert "B_KEY" in problem["message"]
    assert got.header("x-should-retry") == "false"
    got = await stage.chat("a/m1")
    assert "A_KEY" in assert_error(got, 503)["message"]
    assert stage.a.count == 0
    got = await stage.chat("router/abc")
    assert got.header("x-router-model") == "c/m3"


REFUSALS = {
    "html": (b"<html><body>Bad request</body></html>", "text/html"),
    "text": (b"bad request: messages is weird", "text/plain"),
    "empty": (b"", "text/plain"),
    "detail": (b'{"detail":"messages is weird"}', "application/json"),
    "detail_list": (b'{"detail":[{"loc":["body","messages"],"msg":"weird","type":"x"}]}', "application/json"),
    "error_string": (b'{"error":"messages is weird"}', "application/json"),
    "message": (b'{"message":"messages is weird"}', "application/json"),
    "array": (b'[{"error":{"code":400,"message":"messages is weird"}}]', "application/json"),
    "int_code": (b'{"error":{"code":400,"message":"messages is weird","type":"invalid"}}', "application/json"),
    "null_error": (b'{"error":null}', "application/json"),
    "broken": (b'{"error":{"mess', "application/json"),
    "latin1": ("{'é': ü}".encode("latin-1"), "text/plain"),
    "nul": (b"\x00\x01\x02\xff", "application/octet-stream"),
    "deep": (b"[" * 100_000, "application/json"),
    "huge": (b'{"error":{"message":"' + b"w" * 3_000_000 + b'"}}', "application/json"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_every_form_of_a_refusal(stage: Stage, name: str) -> None:
    """Whatever a provider's 400 looks like, the client gets one small OpenAI-shaped error with its words."""
    body, kind = REFUSALS[name]
    stage.a.script = reply(400, body, content_type=kind)
    problem = assert_error(await stage.chat("a/m1"), 400)
    assert len(problem["message"]) < 20_000
    if b"messages is weird" in body:
        assert "messages is weird" in problem["message"]
    assert "<html" not in problem["message"]


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_secrets_in_refusals_are_masked(stage: Stage, status: int) -> None:
    """Keys and addresses with credentials that a provider echoes are masked on their way to the client."""
    words = f"bad key {KEYS['a']} at https://user:hunter2secret@host/ with sk-proj-abcdefghijklmnopqrstuvwxyz012345"
    stage.a.script = reply(status, error(words))
    got = await stage.chat("a/m1")
    for secret in (KEYS["a"], "hunter2secret", "sk-proj-abcdefghijklmnopqrstuvwxyz012345"):
        assert secret not in got.raw.decode()


async def test_attempts_tell_what_happened(stage: Stage) -> None:
    """The attempts list holds model, kind, status and milliseconds of each try, and nothing that identifies a host."""
    stage.a.script = reply(500, error("x"), delay=0.2)
    stage.b.script = raw(b"", "reset")
    stage.c.script = hang
    began = time.monotonic()
    problem = assert_error(await stage.chat("router/abc"), 503, "all_candidates_failed")
    spent = (time.monotonic() - began) * 1000
    first, second, third = problem["attempts"]
    assert (first["model"], first["status"], first["kind"]) == ("a/m1", 500, "server_error")
    assert (second["model"], second["status"]) == ("b/m2", None)
    assert (third["model"], third["status"], third["kind"]) == ("c/m3", None, "first_byte_timeout")
    assert first["ms"] >= 190
    assert third["ms"] >= 900
    assert first["ms"] + second["ms"] + third["ms"] <= spent + 3  # whole milliseconds each


async def test_errors_also_say_what_happened_in_headers(stage: Stage) -> None:
    """A failed chat answer carries the router's headers too."""
    stage.a.script = stage.b.script = reply(500, error("x"))
    got = await stage.chat("router/ab", headers={"x-request-id": "my-id-1"})
    assert got.header("x-request-id") == "my-id-1"
    assert got.header("x-router-category") == "ab"
    assert got.header("x-router-attempts") == "2"
    assert got.header("x-router-mode")
