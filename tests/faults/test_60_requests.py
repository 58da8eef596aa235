"""Malformed, odd and enormous requests: refused by name or carried whole, never a 5xx, never a blocked loop."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.client import ask
from tests.support.fixtures import Stage

Own = Callable[..., Awaitable[Stage]]
OK = {"role": "user", "content": "hi"}

BROKEN: dict[str, bytes] = {
    "empty": b"",
    "space": b"   ",
    "open": b"{",
    "half": b'{"model":"router","messages":[{"role":"us',
    "text": b"hello",
    "array": b"[]",
    "array_of_body": b'[{"model":"router"}]',
    "null": b"null",
    "true": b"true",
    "number": b"42",
    "string": b'"router"',
    "single_quotes": b"{'model':'router'}",
    "trailing_comma": b'{"model":"router/ab","messages":[{"role":"user","content":"x"}],}',
    "trailing_text": b'{"model":"router/ab","messages":[{"role":"user","content":"x"}]} x',
    "two_objects": b"{}{}",
    "nan": b'{"model":"router/ab","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    "infinity": b'{"model":"router/ab","messages":[{"role":"user","content":"x"}],"temperature":Infinity}',
    "comment": b'{"model":"router/ab" /* x */}',
    "raw_newline": b'{"model":"router/ab","messages":[{"role":"user","content":"a\nb"}]}',
    "raw_nul": b'{"model":"router/ab","messages":[{"role":"user","content":"a\x00b"}]}',
    "bad_escape": b'{"model":"router/ab","messages":[{"role":"user","content":"\\x41"}]}',
    "bad_utf8": b'{"model":"router/ab","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "overlong_utf8": b'{"model":"router/ab","messages":[{"role":"user","content":"\xc0\xaf"}]}',
    "cut_utf8": b'{"model":"router/ab","messages":[{"role":"user","content":"\xe2\x82"}]}',
    "utf16": json.dumps({"model": "router/ab", "messages": [OK]}).encode("utf-16"),
    "binary": bytes(range(256)),
    "form": b"model=router&messages=hi",
    "multipart": b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n',
    "xml": b"<?xml version='1.0'?><a/>",
    "deep_arrays": b"[" * 100_000,
    "deep_arrays_closed": b"[" * 100_000 + b"]" * 100_000,
    "deep_objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no_model": ({"messages": [OK]}, "model"),
    "model_empty": ({"model": "", "messages": [OK]}, "model"),
    "model_null": ({"model": None, "messages": [OK]}, "model"),
    "model_number": ({"model": 7, "messages": [OK]}, "model"),
    "model_list": ({"model": ["router"], "messages": [OK]}, "model"),
    "model_bool": ({"model": True, "messages": [OK]}, "model"),
    "no_messages": ({"model": "router/ab"}, "messages"),
    "messages_empty": ({"model": "router/ab", "messages": []}, "messages"),
    "messages_null": ({"model": "router/ab", "messages": None}, "messages"),
    "messages_string": ({"model": "router/ab", "messages": "hi"}, "messages"),
    "messages_object": ({"model": "router/ab", "messages": OK}, "messages"),
    "message_string": ({"model": "router/ab", "messages": ["hi"]}, "messages"),
    "message_null": ({"model": "router/ab", "messages": [OK, None]}, "messages"),
    "message_list": ({"model": "router/ab", "messages": [[OK]]}, "messages"),
    "no_role": ({"model": "router/ab", "messages": [{"content": "x"}]}, "role"),
    "role_number": ({"model": "router/ab", "messages": [{"role": 7, "content": "x"}]}, "role"),
    "role_null": ({"model": "router/ab", "messages": [{"role": None, "content": "x"}]}, "role"),
    "no_content": ({"model": "router/ab", "messages": [{"role": "user"}]}, "content"),
    "system_without_content": ({"model": "router/ab", "messages": [{"role": "system"}, OK]}, "content"),
    "tool_without_content": (
        {"model": "router/ab", "messages": [OK, {"role": "tool", "tool_call_id": "x"}]},
        "content",
    ),
    "stream_string": ({"model": "router/ab", "messages": [OK], "stream": "yes"}, "stream"),
    "stream_number": ({"model": "router/ab", "messages": [OK], "stream": 1}, "stream"),
    "stream_object": ({"model": "router/ab", "messages": [OK], "stream": {}}, "stream"),
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/explain"])
@pytest.mark.parametrize("name", BROKEN)
async def test_broken_bodies(stage: Stage, name: str, path: str) -> None:
    """A body that is no JSON object is a 400 in our words; nobody is asked."""
    got = await stage.router.ask("POST", path, BROKEN[name])
    assert got.status == 400, got.raw
    assert got.error["message"]
    assert got.error["type"] == "invalid_request_error"
    assert got.body.endswith(b"\n")
    assert stage.a.count + stage.b.count == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/explain"])
@pytest.mark.parametrize("name", WRONG)
async def test_wrong_structures_name_the_field(stage: Stage, name: str, path: str) -> None:
    """A wrong structure is a 400 whose message or `param` names the field; nobody is asked."""
    body, field = WRONG[name]
    got = await stage.router.ask("POST", path, body)
    assert got.status == 400, got.raw
    assert field in f"{got.error['message']} {got.error['param']}"
    assert stage.a.count + stage.b.count == 0


ODD: dict[str, Any] = {
    "stream_null": {"stream": None},
    "temperature_string": {"temperature": "hot"},
    "temperature_huge": {"temperature": 1e308},
    "max_tokens_string": {"max_tokens": "many"},
    "max_tokens_negative": {"max_tokens": -1},
    "max_tokens_zero": {"max_tokens": 0},
    "max_tokens_float": {"max_tokens": 1.5},
    "max_tokens_big": {"max_tokens": 10**40},
    "max_tokens_bool": {"max_tokens": True},
    "both_limits": {"max_tokens": 10, "max_completion_tokens": 20},
    "n_string": {"n": "two"},
    "tools_null": {"tools": None},
    "tools_string": {"tools": "x"},
    "tools_empty": {"tools": []},
    "tools_of_null": {"tools": [None]},
    "tools_of_numbers": {"tools": [1, 2]},
    "tool_without_name": {"tools": [{"type": "function", "function": {}}]},
    "tool_choice_odd": {"tool_choice": {"type": "x"}},
    "functions": {"functions": [{"name": "f"}], "function_call": "auto"},
    "stop_object": {"stop": {"a": 1}},
    "stop_number": {"stop": 7},
    "response_format_string": {"response_format": "json"},
    "response_format_null": {"response_format": None},
    "stream_options_string": {"stream_options": "x"},
    "stream_options_null": {"stream_options": None},
    "metadata_string": {"metadata": "x"},
    "metadata_deep": {"metadata": {"session_id": {"a": 1}, "user_id": 7}},
    "user_number": {"user": 7},
    "prompt_cache_key_object": {"prompt_cache_key": {}},
    "models_string": {"models": "a/m1"},
    "models_of_numbers": {"models": [1]},
    "models_empty": {"models": []},
    "reasoning_effort_number": {"reasoning_effort": 7},
    "reasoning_string": {"reasoning": "x"},
    "seed_big": {"seed": 2**200},
    "role_unknown": {"messages": [{"role": "wizard", "content": "x"}]},
    "role_empty": {"messages": [{"role": "", "content": "x"}]},
    "content_null": {"messages": [{"role": "user", "content": None}]},
    "content_empty": {"messages": [{"role": "user", "content": ""}]},
    "content_number": {"messages": [{"role": "user", "content": 7}]},
    "content_object": {"messages": [{"role": "user", "content": {"a": 1}}]},
    "parts_empty": {"messages": [{"role": "user", "content": []}]},
    "parts_of_null": {"messages": [{"role": "user", "content": [None, 7, "x", []]}]},
    "part_without_type": {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
    "part_text_number": {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]},
    "image_null": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": None}]}]},
    "image_odd": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    "assistant_without_content": {"messages": [OK, {"role": "assistant"}, OK]},
    "tool_calls_string": {"messages": [OK, {"role": "assistant", "tool_calls": "x"}, OK]},
    "tool_calls_of_null": {"messages": [OK, {"role": "assistant", "content": None, "tool_calls": [None]}, OK]},
    "arguments_broken": {
        "messages": [
            OK,
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ]
    },
    "only_system": {"messages": [{"role": "system", "content": "x"}]},
    "only_assistant": {"messages": [{"role": "assistant", "content": "x"}]},
    "special_tokens": {"messages": [{"role": "user", "content": "<|endoftext|><|fim_prefix|><|im_start|>"}]},
    "nul_escape": {"messages": [{"role": "user", "content": "a\u0000b"}]},
    "names_of_languages": {"__class__": 1, "constructor": 3, "__proto__": {"a": 1}, "__init__": None},
    "api_base": {"api_base": "http://127.0.0.1:9/", "base_url": "http://127.0.0.1:9/", "api_key": "x"},
    "many_messages": {"messages": [OK] * 5000},
    "many_tools": {"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(500)]},
    "deep_field": {"x": json.loads("[" * 400 + "]" * 400)},
    "empty_key": {"": 1},
    "unicode_keys": {"ключ": "значение", "🌍": 1},
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("name", ODD)
async def test_odd_fields_never_break_us(stage: Stage, name: str, streamed: bool) -> None:
    """What the provider may judge is carried to it or refused with 400; it is never our 5xx."""
    fields = dict(ODD[name])
    got = await stage.chat("router/ab", fields.pop("stream", streamed), **fields)
    assert got.status in (200, 400, 404), got.raw
    if got.status == 200:
        assert got.text == "Hello from upstream"
        assert await stage.record(got)
    else:
        assert got.error["message"]


@pytest.mark.parametrize("name", ["temperature_string", "max_tokens_big", "seed_big", "unicode_keys", "special_tokens"])
async def test_odd_fields_travel_unchanged(stage: Stage, name: str) -> None:
    """Odd values reach the provider exactly as they were."""
    await stage.chat("router/ab", **ODD[name])
    sent = stage.a.last.request.json()
    for key, value in ODD[name].items():
        assert sent[key] == value


SURROGATES = [b'"\\ud800"', b'"\\udc00\\ud800"', b'"a\\ud83d"', b'"\\ud83d\\ude00"']


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("text", SURROGATES, ids=repr)
async def test_lone_surrogates(stage: Stage, text: bytes, streamed: bool) -> None:
    """A lone surrogate escape is legal JSON: it is carried or refused with 400, in fields and keys alike."""
    template = b'{"model":"router/ab","stream":%s,"messages":[{"role":"user","content":%s}],"x":{%s:1}}'
    body = template % (b"true" if streamed else b"false", text, text)
    got = await stage.router.ask("POST", "/v1/chat/completions", body)
    assert got.status in (200, 400), got.raw
    if got.status == 200:
        assert json.loads(stage.a.last.request.body)["messages"][0]["content"] == json.loads(text)
        assert await stage.record(got)


async def test_surrogates_in_names(stage: Stage) -> None:
    """A surrogate in the model's name is a clean refusal."""
    for model in ('"\\ud800"', '"router/\\ud800"', '"a/\\ud800"', '"\\ud800/x"'):
        body = f'{{"model":{model},"messages":[{{"role":"user","content":"x"}}]}}'.encode()
        got = await stage.router.ask("POST", "/v1/chat/completions", body)
        assert got.status in (200, 400, 404), got.raw


async def test_duplicate_keys(stage: Stage) -> None:
    """A body that names a key twice is read as one thing: what we judged is what the provider gets."""
    body = b'{"model":"nosuch/x","model":"router/ab","messages":[{"role":"user","content":"x"}],"stream":false}'
    got = await stage.router.ask("POST", "/v1/chat/completions", body)
    assert got.status in (200, 400)
    if got.status == 200:
        pairs = json.loads(stage.a.last.request.body, object_pairs_hook=list)
        assert [value for key, value in pairs if key == "model"] == ["m1"]


@pytest.mark.parametrize(
    "model",
    [
        "a/../../etc/passwd",
        "a/m1?key=1",
        "a/m1#x",
        "a/m1\r\nX-Evil: 1",
        "a/%2e%2e/x",
        "a/m 1",
        "a/mödel",
        "a/🌍",
        "a//m1",
        "a/" + "x" * 4000,
        "a/m1\u0000",
        "a/http://127.0.0.1:9/x",
    ],
    ids=lambda value: repr(value[:20]),
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_model_names_cannot_reach_out(stage: Stage, model: str, streamed: bool) -> None:
    """A model's name goes into the body and nowhere else: the address stays, headers cannot be forged."""
    got = await stage.chat(model, streamed)
    assert got.status in (200, 400, 404)
    assert got.header("x-evil") is None
    for exchange in stage.a.exchanges:
        assert exchange.request.target == "/v1/chat/completions"
        assert exchange.request.header("x-evil") is None
        assert exchange.request.json()["model"] == model.partition("/")[2]
    assert (await stage.router.ask("GET", "/metrics")).status == 200
    text = await stage.router.ask("GET", "/metrics", headers={"Accept": "text/plain"})
    assert text.status == 200


async def test_nothing_in_a_request_redirects_it(stage: Stage) -> None:
    """Addresses and keys in body, query and headers change neither where a request goes nor with what key."""
    target = f"http://127.0.0.1:{stage.c.port}/v1"
    fields = dict.fromkeys(("api_base", "base_url", "custom_host", "endpoint", "url", "proxy"), target)
    headers: dict[str, str | None] = {
        "X-Portkey-Custom-Host": target,
        "Helicone-Target-Url": target,
        "X-Base-Url": target,
        "X-Forwarded-Host": f"127.0.0.1:{stage.c.port}",
        "X-Api-Key": "sk-client",
    }
    for streamed in (True, False):
        got = await stage.chat("router/ab", streamed, headers=headers, **fields)
        assert got.text == "Hello from upstream"
    got = await stage.chat("router/ab", path=f"/v1/chat/completions?base_url={target}")
    assert got.text == "Hello from upstream"
    assert (stage.a.count, stage.c.count) == (3, 0)
    assert all("sk-client" not in str(exchange.request.headers) for exchange in stage.a.exchanges)


async def test_queries_and_methods_of_every_route(stage: Stage) -> None:
    """Every route with every method and junk behind it: a clean answer, never a 5xx."""
    paths = [
        "/", "/health", "/ready", "/metrics", "/providers", "/config", "/config/category", "/config/model-mapping",
        "/config/reload", "/config/category/x", "/circuit-breaker", "/circuit-breaker/reset-all",
        "/circuit-breaker/reset/a/m1", "/v1/models", "/models", "/v1/chat/completions", "/chat/completions",
        "/v1/explain", "/v1/requests/x", "/v1/usage", "/v1/usage?by=model", "/v1/usage?by=nosuch",
        "/v1/usage?since=yesterday", "/v1/usage?since=-1d", "/v1/usage?since=999999999999d",
        "/v1/usage?since=7d&by=day",
        "/openapi.json", "/v1/responses", "/v1/messages", "/v1/embeddings", "/nosuch", "/v1", "/v1/", "//", "/%00",
        "/%ff%fe", "/..%2f..%2fetc/passwd", "/../../etc/passwd", "/health/", "/health?x=%00", "/v1/models/router",
        "/" + "x" * 5000, "/circuit-breaker/reset/", "/circuit-breaker/reset/%00",
        "/circuit-breaker/reset/" + "y" * 3000,
        "/v1/requests/" + "z" * 3000, "/v1/requests/..%2f..%2fx", "/v1/requests/%00", "/favicon.ico", "/robots.txt",
    ]  # fmt: skip
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            if path == "/config/reload" and method == "POST":
                continue
            got = await ask(stage.router.port, method, path)
            assert 200 <= got.status < 500 or (path == "/ready" and got.status == 503), (method, path, got.raw[:300])
            if got.status >= 400 and method != "HEAD":
                assert got.error["message"], (method, path)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/completions"])
async def test_what_is_not_offered_says_so(stage: Stage, path: str) -> None:
    """Routes that clients know and we do not offer answer a JSON 404 that says what is not offered."""
    got = await stage.router.ask("POST", path, {"model": "router", "input": "x"})
    assert got.status == 404
    assert got.error["message"]
    if path != "/v1/completions":
        assert path in got.error["message"]


async def test_a_wrong_method_is_405(stage: Stage) -> None:
    """A known route asked with a wrong method is 405 and says which methods it has."""
    got = await stage.router.ask("GET", "/v1/chat/completions")
    assert got.status == 405
    assert "POST" in (got.header("allow") or "")
    assert (await stage.router.ask("POST", "/health", {})).status == 405
