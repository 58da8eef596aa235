"""Malformed, odd and enormous requests: refused by name or carried whole, never a 5xx, never a blocked loop."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.chunks import completion
from tests.support.client import Connection, ask, bomb, chat_body, request_bytes
from tests.support.fixtures import Stage
from tests.support.upstream import plain, raw, reply

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


async def test_eight_megabytes_pass(stage: Stage) -> None:
    """A body of 8 MB (images) is carried whole, and the loop stays free meanwhile."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 2_000_000}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is this"}, image]}]
    running = asyncio.ensure_future(stage.chat("router/ab", messages=messages, patience=30))
    lag = await _worst_lag(stage, running)
    got = await running
    assert got.text == "Hello from upstream"
    assert stage.a.last.request.json()["messages"] == messages
    assert lag < 0.3


async def _worst_lag(stage: Stage, running: asyncio.Future[Any], seconds: float = 0.0) -> float:
    """The longest time that `/health` took while `running` was under way, and `seconds` longer."""
    worst, until = 0.0, 0.0
    connection = await Connection.open(stage.router.port)
    while not running.done() or time.monotonic() < until:
        if not running.done():
            until = time.monotonic() + seconds
        started = time.monotonic()
        await connection.send(request_bytes("GET", "/health"))
        assert (await connection.answer()).status == 200
        worst = max(worst, time.monotonic() - started)
        await asyncio.sleep(0.005)
    connection.close()
    return worst


HOSTILE = {
    "one_letter": "a" * 2_000_000,
    "spaces": " " * 2_000_000,
    "digits": "1" * 2_000_000,
    "emoji": "🌍" * 400_000,
    "newlines": "\n" * 2_000_000,
    "words": "word " * 400_000,
    "keywords": "python traceback story " * 80_000,
    "no_boundary": "é" * 1_000_000,
    "json": '{"a":' * 300_000,
    "mentions": "@#$%^&*()" * 200_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_prompts_do_not_block_the_loop(stage: Stage, name: str) -> None:
    """Two megabytes that are slow to count or to classify do not stop the event loop, not even while booking."""
    for model in ("router", "router/ab"):
        running = asyncio.ensure_future(stage.chat(model, content=HOSTILE[name], patience=30))
        lag = await _worst_lag(stage, running, 1.0)
        assert (await running).text == "Hello from upstream"
        assert lag < 0.3, lag


async def test_too_large_is_413_without_buffering(own: Own) -> None:
    """A body above the limit is refused with 413: by its length at once, by its bytes as soon as they pass it."""
    stage = await own(env={"ROUTER_MAX_BODY_BYTES": "1000000"})
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes(headers={"Content-Length": "300000000", "Content-Type": "application/json"}))
    got = await connection.answer(3)
    assert got.status == 413
    assert "ROUTER_MAX_BODY_BYTES" in got.body.decode() or "1000000" in got.body.decode()
    connection.close()
    before = stage.router.rss()
    connection = await Connection.open(stage.router.port)
    await connection.send(request_bytes(headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"}))
    sent, open_ = 0, True
    while open_ and sent < 300 << 20:
        try:
            open_ = await connection.send(b"10000\r\n" + b"a" * 65536 + b"\r\n", 1.0)
        except TimeoutError:
            break
        sent += 65536
    data = await connection.everything(3)
    assert connection.at_end
    assert not data or data.startswith(b"HTTP/1.1 413")
    assert stage.router.rss() - before < 32 << 20
    connection.close()
    assert stage.a.count == 0
    body = chat_body("router/ab", content="x" * 990_000)
    assert (await stage.router.ask("POST", "/v1/chat/completions", body)).status == 200


async def test_the_413_is_read_by_a_client_that_sends_first(stage: Stage) -> None:
    """A client that sends 34 MB before it reads still gets the 413 or a closed connection, not a hang."""
    connection = await Connection.open(stage.router.port)
    body = json.dumps(chat_body("router/ab", content="x" * 34_000_000)).encode()
    await connection.send(request_bytes(body=body))
    got = await connection.answer(5)
    assert got.status in (0, 413)
    assert got.ended != "timeout"
    connection.close()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unknown"])
async def test_compressed_requests_are_refused(stage: Stage, encoding: str) -> None:
    """A request with a Content-Encoding is refused before anything is inflated."""
    body = gzip.compress(json.dumps(chat_body("router/ab")).encode())
    got = await stage.router.ask("POST", "/v1/chat/completions", body, headers={"Content-Encoding": encoding})
    assert got.status in (400, 415), got.raw
    assert got.error["message"]
    assert stage.a.count == 0


async def test_a_bomb_from_a_client(stage: Stage) -> None:
    """A gigabyte packed into a megabyte is not unpacked."""
    before = stage.router.rss()
    got = await stage.router.ask("POST", "/v1/chat/completions", bomb(1024), headers={"Content-Encoding": "gzip"})
    assert got.status in (400, 413, 415)
    assert stage.router.rss() - before < 48 << 20


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_bomb_from_a_provider(stage: Stage, streamed: bool, status: int) -> None:
    """A gigabyte packed into a megabyte by a provider is cut: bounded memory, next candidate or a clear error."""
    packed = bomb(1024)
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: {'text/event-stream' if streamed else 'application/json'}\r\n"
        f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    )
    stage.a.script = raw(head.encode() + packed, "hang")
    before = stage.router.rss()
    started = time.monotonic()
    got = await stage.chat("router/ab", streamed)
    assert got.status in ((200,) if status != 400 else (200, 400)), got.status
    assert time.monotonic() - started < 6
    assert stage.router.rss() - before < 100 << 20


async def test_a_large_plain_answer(stage: Stage) -> None:
    """A completion of 6 MB passes whole."""
    stage.a.script = plain("y" * 6_000_000)
    got = await stage.chat("router/ab", False, patience=20)
    assert len(got.text) == 6_000_000


async def test_an_answer_of_many_levels(stage: Stage) -> None:
    """A provider's JSON of 100,000 levels does not kill anything."""
    deep = json.dumps(completion("x"))[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    stage.a.script = reply(200, deep)
    got = await stage.chat("router/ab", False)
    assert got.status == 200
    assert got.text in ("x", "Hello from upstream")


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
