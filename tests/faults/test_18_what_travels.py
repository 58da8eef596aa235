"""What travels of a request and of an answer's headers, and what stays here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chunks import answer, completion
from tests.support.client import ask
from tests.support.fixtures import Stage
from tests.support.upstream import reply, stream

FIELDS: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 1.0,
    "seed": 12345678901234567890123,
    "stop": ["a", "b"],
    "user": "u-1",
    "n": 1,
    "logit_bias": {"50256": -100},
    "metadata": {"k": "v"},
    "response_format": {"type": "json_object"},
    "max_tokens": 100,
    "x_unknown": {"deep": [[[{"a": None, "b": True}]]], "float": 1e-7, "text": "ünïcode 🌍 \u2028"},
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "provider": {"order": ["x"]},
}


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_request_travels_unchanged(stage: Stage, streamed: bool) -> None:
    """Every field arrives as it was sent, in its order; only `model` is another."""
    body = {"model": "router/ab", "stream": streamed, "messages": [{"role": "user", "content": "hi", "x": 1}], **FIELDS}
    await stage.router.ask("POST", "/v1/chat/completions", body)
    sent = stage.a.last.request
    assert sent.json() == body | {"model": "m1"}
    assert list(sent.json()) == list(body)
    assert (sent.method, sent.target) == ("POST", "/v1/chat/completions")


async def test_the_next_candidate_gets_the_same_request(stage: Stage) -> None:
    """Failover changes nothing in the request but the model."""
    stage.a.script = reply(500, b"no")
    await stage.chat("router/ab", **FIELDS)
    assert stage.a.last.request.json() | {"model": "m2"} == stage.b.last.request.json()


async def test_headers_to_the_provider(stage: Stage) -> None:
    """The provider gets its own key and nothing of the client's identity."""
    await stage.chat(
        "router/ab",
        headers={
            "Authorization": "Bearer sk-client-secret-000000000",
            "Cookie": "session=secret-cookie",
            "X-Forwarded-For": "1.2.3.4",
            "X-Custom": "private",
            "OpenAI-Organization": "org-client",
            "User-Agent": "agent/1",
            "Accept-Encoding": "gzip, deflate, br, zstd",
        },
    )
    sent = stage.a.last.request
    assert sent.header("authorization") == "Bearer sk-test-aaaaaaaaaaaaaaaaaaaaaaaa1"
    assert sent.header("content-type") == "application/json"
    assert sent.header("accept-encoding") in (None, "identity")
    everything = str(sent.headers)
    for secret in ("sk-client", "secret-cookie", "1.2.3.4", "private", "org-client"):
        assert secret not in everything
    names = [name.lower() for name, _ in sent.headers]
    assert len(names) == len(set(names))
    assert sent.header("host") == f"127.0.0.1:{stage.a.port}"


async def test_answer_headers_are_an_allow_list(stage: Stage) -> None:
    """Cookies, CORS, server versions and framing of a provider never reach the client."""
    foreign = {
        "Set-Cookie": "a=b",
        "Server": "evil/1.0",
        "Access-Control-Allow-Origin": "*",
        "X-Powered-By": "php",
        "Location": "http://evil/",
        "Strict-Transport-Security": "max-age=1",
        "Keep-Alive": "timeout=5",
        "X-Router-Model": "forged/model",
        "X-Request-Id": "forged id",
        "Alt-Svc": 'h3=":443"',
        "Refresh": "0; url=http://evil",
        "Content-Security-Policy": "x",
        "X-Should-Retry": "true",
        "WWW-Authenticate": "Basic",
    }
    for streamed in (True, False):
        stage.a.script = stream(answer("x"), headers=foreign) if streamed else reply(200, completion("x"), foreign)
        got = await stage.chat("router/ab", streamed)
        assert got.status == 200
        for name, value in foreign.items():
            assert value not in [found for key, found in got.headers if key.lower() == name.lower()], name


async def test_cookies_are_not_kept(stage: Stage) -> None:
    """A provider's cookie is not sent back to it."""
    stage.a.script = stream(answer("x"), headers={"Set-Cookie": "track=1; Path=/"})
    await stage.chat("router/ab")
    await stage.chat("router/ab")
    assert stage.a.count == 2
    assert stage.a.last.request.header("cookie") is None


async def test_head_and_options_do_not_crash(stage: Stage) -> None:
    """Methods that no route has are refused in JSON, never 5xx."""
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "FOO"):
        got = await ask(stage.router.port, method, "/v1/chat/completions")
        assert 400 <= got.status < 500, (method, got.status)
