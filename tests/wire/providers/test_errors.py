"""Errors as the vendors send them; and what may never leave the router."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest

from llm_router.errors import FailureKind
from llm_router.wire.providers.errors import read_failure
from tests.wire.providers.dialects import ADAPTERS, KEY, NOW, TOOL, TRANSLATED, make_chat, make_target

K = FailureKind


def _anthropic(kind: str, message: str) -> Any:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def _google(code: int, status: str, message: str, *details: Any) -> Any:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


@pytest.mark.parametrize(
    ("vendor", "status", "body", "kind"),
    [
        ("anthropic", 400, _anthropic("invalid_request_error", "messages: none given"), K.INVALID_REQUEST),
        ("anthropic", 400, _anthropic("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
         K.CONTEXT_LENGTH),
        ("anthropic", 400, _anthropic("invalid_request_error", "`temperature` is deprecated for this model."),
         K.UNSUPPORTED),
        ("anthropic", 400, _anthropic("invalid_request_error", "Your credit balance is too low"), K.QUOTA_EXCEEDED),
        ("anthropic", 401, _anthropic("authentication_error", "invalid x-api-key"), K.AUTHENTICATION),
        ("anthropic", 402, _anthropic("billing_error", "Payment required"), K.QUOTA_EXCEEDED),
        ("anthropic", 403, _anthropic("permission_error", "no access"), K.AUTHENTICATION),
        ("anthropic", 404, _anthropic("not_found_error", "model: claude-2"), K.MODEL_NOT_FOUND),
        ("anthropic", 429, _anthropic("rate_limit_error", "slow down"), K.RATE_LIMITED),
        ("anthropic", 500, _anthropic("api_error", "Internal server error"), K.SERVER_ERROR),
        ("anthropic", 529, _anthropic("overloaded_error", "Overloaded"), K.OVERLOADED),
        ("google", 400, _google(400, "INVALID_ARGUMENT", "bad"), K.INVALID_REQUEST),
        ("google", 400, _google(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID"}),
         K.AUTHENTICATION),
        ("google", 400, _google(400, "INVALID_ARGUMENT",
         "The input token count (9) exceeds the maximum number of tokens allowed (8)."), K.CONTEXT_LENGTH),
        ("google", 403, _google(403, "PERMISSION_DENIED", "no"), K.AUTHENTICATION),
        ("google", 404, _google(404, "NOT_FOUND", "models/x is not found"), K.MODEL_NOT_FOUND),
        ("google", 429, _google(429, "RESOURCE_EXHAUSTED", "slow"), K.RATE_LIMITED),
        ("google", 500, _google(500, "INTERNAL", "oops"), K.SERVER_ERROR),
        ("google", 503, _google(503, "UNAVAILABLE", "The model is overloaded."), K.OVERLOADED),
        ("google_compat", 400, [_google(400, "INVALID_ARGUMENT", "bad")], K.INVALID_REQUEST),
        ("google_compat", 503, [_google(503, "UNAVAILABLE", "The model is overloaded.")], K.OVERLOADED),
        ("ollama", 404, {"error": "model 'x' not found"}, K.MODEL_NOT_FOUND),
        ("ollama", 400, {"error": '"qwen2.5" does not support thinking'}, K.UNSUPPORTED),
        ("ollama", 500, {"error": "llama runner process has terminated"}, K.SERVER_ERROR),
        ("ollama", 503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, K.OVERLOADED),
    ],
)  # fmt: skip
def test_errors_are_classified(vendor: str, status: int, body: Any, kind: FailureKind) -> None:
    """Each vendor's way of saying it leads to the same kinds, with the vendor's own words."""
    failure = read_failure(status, {}, orjson.dumps(body), NOW)
    assert failure.kind is kind, vendor
    inner = body[0]["error"] if isinstance(body, list) else body["error"]
    assert failure.message == (inner if isinstance(inner, str) else inner["message"])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ('{"error":{"message":"messages.1: odd"}}', ": messages.1: odd"),
        ('{"type":"error","error":{"message":"bad \\ud83d"}}', ": bad \ufffd"),
        ("ERROR: top_k is odd", ": ERROR: top_k is odd"),
        ({"message": "odd \ud83d"}, ": odd \ufffd"),
        ("<html>bad gateway</html>", ""),
        ('{"error":', ""),
        ('{"error":{"message":"returned error"}}', ""),
        (None, ""),
    ],
)
def test_what_stands_behind_openrouters_own_words_is_told(raw: Any, words: str) -> None:
    """Its message is the same for every error of a provider behind it, so the client is told that one's, too."""
    error = {"message": "Provider returned error", "code": 400, "metadata": {"provider_name": "Odd", "raw": raw}}
    failure = read_failure(400, {}, json.dumps({"error": error}).encode(), NOW)
    assert failure.message == f"Provider returned error{words}"


def test_words_behind_openrouters_do_not_close_its_account() -> None:
    """A quota that a provider behind OpenRouter speaks of is that provider's: other models go on."""
    metadata = {"raw": '{"error":{"message":"You exceeded your current quota"}}'}
    body = {"error": {"message": "Provider returned error", "code": 429, "metadata": metadata}}
    failure = read_failure(429, {}, orjson.dumps(body), NOW)
    assert failure.kind is K.RATE_LIMITED
    assert "current quota" in failure.message


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"retry-after": "7"}, [], 7.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, [], 0.25),
        ({"retry-after": "Mon, 23 Nov 2026 01:53:17 GMT"}, [], 9.5),
        ({}, [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}], 17.0),
        ({}, [], None),
    ],
)
def test_the_wait_is_read_in_every_form(headers: dict[str, str], details: Any, seconds: float | None) -> None:
    """Seconds, milliseconds, a date, or Google's detail (trap 25)."""
    body = orjson.dumps(_google(429, "RESOURCE_EXHAUSTED", "slow", *details))
    assert read_failure(429, headers, body, NOW).retry_after == seconds


@pytest.mark.parametrize("dialect", sorted(ADAPTERS))
def test_a_key_is_in_one_header_alone(dialect: str) -> None:
    """Not in the address, not in the body, not in the repr that a log might show (trap 28)."""
    call = ADAPTERS[dialect].call(make_chat(tools=[TOOL]), make_target(dialect))
    assert KEY not in call.url
    assert KEY.encode() not in call.body
    assert KEY not in repr(call)
    assert sum(KEY in value for value in call.headers.values()) == 1


@pytest.mark.parametrize("dialect", sorted(ADAPTERS))
def test_headers_are_ours_and_the_configurations(dialect: str) -> None:
    """Nothing that the client sent becomes a header; the provider's own headers from the configuration do (trap 29)."""
    target = make_target(dialect)
    target = replace(target, provider=replace(target.provider, headers={"anthropic-beta": "x"}))
    chat = make_chat(headers={"authorization": "Bearer client"}, extra_headers={"x-evil": "1"})
    headers = ADAPTERS[dialect].call(chat, target).headers
    allowed = {"content-type", "accept", "authorization", "x-api-key", "anthropic-version", "x-goog-api-key"}
    allowed.add("anthropic-beta")
    assert headers.keys() <= allowed
    assert headers["anthropic-beta"] == "x"
    assert "client" not in str(headers.get("authorization"))


@pytest.mark.parametrize("dialect", TRANSLATED)
@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_output_limit_work(dialect: str, limit: str) -> None:
    """Agents send only the newer one (trap 17)."""
    call = ADAPTERS[dialect].call(make_chat(**{limit: 77}), make_target(dialect))
    assert b":77" in call.body
    assert limit.encode() not in call.body or limit == "max_tokens"
