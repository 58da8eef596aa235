"""One target per parser: a function of bytes that raises only where a promise is broken.

`TARGETS` names them. Each takes any bytes and knows which exceptions its parser may raise; everything else, and every
failed assertion, is a finding. The first byte of the input chooses how the rest is cut where that matters.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import orjson

from llm_router.accounting.tokens import Counter
from llm_router.config.jsonfile import dump_file, parse_file
from llm_router.config.loading import load
from llm_router.config.values import Api, ApiKey, Provider, Snapshot
from llm_router.errors import ApiError, AttemptFailed, ConfigError
from llm_router.proxy.gate import Gate, Verdict, judge_completion
from llm_router.proxy.relay import error_event
from llm_router.proxy.screen import screen
from llm_router.proxy.upstream.coding import PIECE_BYTES, Inflater
from llm_router.proxy.upstream.errors import ProtocolError
from llm_router.proxy.upstream.http1 import ResponseReader
from llm_router.wire.answer import read_completion, read_stream, read_tail
from llm_router.wire.chat import parse_chat
from llm_router.wire.error_objects import bare_error_event, upstream_error
from llm_router.wire.loose import load_loosely
from llm_router.wire.providers.base import Target
from llm_router.wire.providers.errors import read_failure
from llm_router.wire.providers.registry import adapter_for
from llm_router.wire.sse import EventSplitter, EventTooLarge, iter_events, raw_events

T = TypeVar("T")
E = TypeVar("E", bound=Exception)
DIALECTS: tuple[Api, ...] = get_args(Api)
NOW = 1_790_000_000.0
CHAT = parse_chat(
    b'{"model":"x/m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}'
)


def pieces(data: bytes) -> Iterator[bytes]:
    """The bytes behind the first, cut into pieces whose size the first one chooses."""
    size = (data[0] % 64) + 1 if data else 1
    for at in range(1, len(data), size):
        yield data[at : at + size]


def caught(work: Callable[[], T], kind: type[E]) -> T | E:
    """What `work` gives, or the one kind of exception that it may raise."""
    try:
        return work()
    except kind as refused:
        return refused


def target_of(dialect: Api) -> Target:
    """A target of that dialect with a key."""
    provider = Provider(
        "x", "http://127.0.0.1:1/v1", dialect, (ApiKey("k-123456789", "X_KEY"),), ("X_KEY",), builtin=False
    )
    return Target(provider, "m", "k-123456789")


def sse_split(data: bytes) -> None:
    """Nothing is lost or moved by cutting a stream into whole events."""
    splitter = EventSplitter()
    with contextlib.suppress(EventTooLarge):
        out = b"".join(splitter.feed(piece) for piece in pieces(data))
        assert out + splitter.rest() == data[1:]


def sse_events(data: bytes) -> None:
    """Any bytes can be read as events, and raw events join to the block."""
    for event in iter_events(data):
        assert isinstance(event.name, bytes)
        assert event.data is None or isinstance(event.data, bytes)
    assert b"".join(raw_events(data)) == data


def chat(data: bytes) -> None:
    """A chat body is refused with 400, or carried to another model with every other field unchanged."""
    request = caught(lambda: parse_chat(data), ApiError)
    if isinstance(request, ApiError):
        assert request.status == 400
        assert request.message
        return
    with contextlib.suppress(RecursionError):
        before = json.loads(data)
        after = json.loads(request.with_model("other/model"))
        assert {**before, "model": "other/model"} == after


def requests(data: bytes) -> None:
    """Every dialect carries a sound chat request, or says which field it cannot carry."""
    request = caught(lambda: parse_chat(data), ApiError)
    if isinstance(request, ApiError):
        return
    for dialect in DIALECTS:
        adapter, target = adapter_for(target_of(dialect).provider, lambda: NOW), target_of(dialect)
        if adapter.misfit(request) is None:
            with contextlib.suppress(ApiError, AttemptFailed):
                call = adapter.call(request, target)
                assert call.url.startswith("http://127.0.0.1:1/")
                assert isinstance(json.loads(call.body), dict)
                assert not any(sign in value for value in call.headers.values() for sign in "\r\n")


def gate(data: bytes) -> None:
    """The gate judges any events, and holds them unchanged; any error behind it can be told."""
    splitter, judge, fed = EventSplitter(), Gate(), b""
    for piece in pieces(data):
        block = splitter.feed(piece)
        if block:
            verdict = judge.feed(block)
            if verdict is not Verdict.HOLD:
                break
            fed += block
    else:
        assert b"".join(judge.held) == fed
    assert judge.failure().kind
    screened = screen(data)
    if screened.error is not None:
        error_event(upstream_error(screened.error), str)
    bare_error_event(data)


def completion(data: bytes) -> None:
    """Any JSON is judged as a completion without an exception."""
    with contextlib.suppress(orjson.JSONDecodeError):
        judge_completion(orjson.loads(data))


def answer(data: bytes) -> None:
    """Any kept bytes can be read for counting."""
    read_completion(data)
    read_stream(list(pieces(data)))
    read_stream([data])
    read_tail([data])


def translators(data: bytes) -> None:
    """Every dialect's stream becomes whole events of OpenAI's shape, whatever it is and however it is cut."""
    for dialect in DIALECTS:
        adapter, target = adapter_for(target_of(dialect).provider, lambda: NOW), target_of(dialect)
        translator = adapter.translator(CHAT, target)
        if translator is None:
            continue
        out = b"".join(translator.feed(piece) for piece in pieces(data)) + translator.close()
        assert not out or out.endswith(b"\n\n")
        for event in iter_events(out):
            if event.data and not event.data.startswith(b"[DONE]"):
                chunk = orjson.loads(event.data)
                assert chunk.get("error") or chunk["object"] == "chat.completion.chunk"


def completions(data: bytes) -> None:
    """Every dialect's whole answer becomes a completion or a failed attempt."""
    plain = replace(CHAT, stream=False)
    for dialect in DIALECTS:
        adapter, target = adapter_for(target_of(dialect).provider, lambda: NOW), target_of(dialect)
        with contextlib.suppress(AttemptFailed):
            body = adapter.completion(plain, target, data).body
            if load_loosely(body) is None:  # half a character is passed on as it came
                orjson.loads(body)


def failures(data: bytes) -> None:
    """Every error body is one failure with a sane wait, in words that are the body's own or few."""
    headers = {"retry-after": data[:20].decode("latin-1"), "retry-after-ms": data[20:30].decode("latin-1")}
    for status in (400, 401, 403, 404, 429, 500, 529):
        for given in ({}, headers):
            failure = read_failure(status, given, data, NOW)
            assert len(failure.message) < len(data) + 100
            assert failure.retry_after is None or failure.retry_after >= 0


def config(data: bytes) -> None:
    """A configuration file is one checked snapshot, or an error that names the file; its notes survive a rewrite."""
    parsed = caught(lambda: parse_file(data, "router_config.json"), ConfigError)
    if isinstance(parsed, ConfigError):
        assert "router_config.json" in str(parsed)
    else:
        assert parse_file(dump_file(parsed, data), "router_config.json") == parsed
    with contextlib.suppress(ConfigError):
        assert isinstance(load({}, {}, data, "router_config.json"), Snapshot)


VARIABLES = (
    "ROUTER_PORT", "ROUTER_IDLE_TIMEOUT", "OPENAI_BASE_URL", "OPENAI_API_KEY", "ROUTING_MODE", "ROUTER_API_KEY",
    "ROUTER_ALLOWED_HOSTS", "ROUTER_ALLOWED_ORIGINS", "DEFAULT_MODEL", "DEFAULT_PROVIDER", "ROUTER_NAME", "ROUTER_URL",
    "ROUTER_HOST", "ROUTER_MAX_BODY_BYTES", "ROUTER_API_MODEL", "OLLAMA_BASE_URL", "ROUTER_ALLOW_UNAUTHENTICATED",
)  # fmt: skip


def environment(data: bytes) -> None:
    """Any text in any variable is a setting or an error that names the variable."""
    text = data[1:].decode("utf-8", "surrogateescape")
    name = VARIABLES[data[0] % len(VARIABLES)] if data else VARIABLES[0]
    loaded = caught(lambda: load({name: text}, {}, None, "router_config.json"), ConfigError)
    assert isinstance(loaded, Snapshot) or name in str(loaded)


def http_response(data: bytes) -> None:
    """Any bytes from a provider are a head, a body and an end, or one error."""
    reader = ResponseReader()
    for piece in pieces(data):
        if reader.done:
            break
        reader.feed(piece)
    if not reader.done:
        reader.feed_eof()
    assert reader.done
    if reader.status:
        assert 200 <= reader.status <= 999
        assert all(name == name.lower() for name in reader.headers)
    reader.retire()


def inflate(data: bytes) -> None:
    """Any compressed bytes come out in bounded pieces, or are refused."""
    for coding in ("gzip", "deflate"):
        inflater = Inflater(coding)
        with contextlib.suppress(ProtocolError):
            for piece in pieces(data):
                inflater.feed(piece)
                for _ in range(1000):
                    taken = inflater.take()
                    assert len(taken) <= PIECE_BYTES
                    if not taken:
                        break
            inflater.end()


class _Words:
    """A stand-in for an encoding: one token a character, so that only our own walk is tried."""

    def count(self, text: str) -> int:
        """As a tokenizer's method of that name."""
        return len(text)


def tokens(data: bytes) -> None:
    """The tokens of any request can be counted."""
    counter = Counter(_Words())
    assert counter.request(data).tokens >= 0
    with contextlib.suppress(ValueError, RecursionError):
        body: Any = json.loads(data)
        if isinstance(body, dict):
            assert counter.prompt(body).tokens >= 0


TARGETS: Mapping[str, Callable[[bytes], None]] = MappingProxyType(
    {
        target.__name__: target
        for target in (
            sse_split, sse_events, chat, requests, gate, completion, answer, translators, completions, failures,
            config, environment, http_response, inflate, tokens,
        )
    }
)  # fmt: skip
