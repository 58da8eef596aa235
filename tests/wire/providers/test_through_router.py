"""The dialects over real sockets: a running router before scripted servers of each vendor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from tests.support.router import RouterProcess, chains, free_port
from tests.support.upstream import Exchange, Upstream
from tests.wire.providers.dialects import (
    EXPECTED,
    TOOL,
    TRANSLATED,
    make_target,
    read_stream,
    read_whole,
    stream_path,
    whole_path,
)

PIECE = 23
APIS = {dialect: make_target(dialect).provider.api for dialect in TRANSLATED}
NAMES = {"anthropic": "claude", "google": "gemini", "ollama": "llamas"}
ANSWERED = sorted(
    name for name in EXPECTED if name.split("/")[0] in TRANSLATED and "finish" in EXPECTED[name] and
    not EXPECTED[name].get("empty") and whole_path(name).exists()
)  # fmt: skip
CUT = sorted(
    name for name in EXPECTED if name.split("/")[0] in TRANSLATED and EXPECTED[name]["text"] and
    ("error" in EXPECTED[name] or EXPECTED[name].get("cut"))
)  # fmt: skip
FAILED = sorted(
    name for name in EXPECTED if name.split("/")[0] in TRANSLATED and "error" in EXPECTED[name] and
    not EXPECTED[name]["text"] and whole_path(name).exists()
)  # fmt: skip
_PORT = free_port()


def _asked(exchange: Exchange) -> tuple[str, str, bool]:
    """Dialect, model and whether a stream was asked for, as a server of each vendor would understand the request."""
    target, body = exchange.request.target, exchange.request.json()
    if target == "/v1/messages":
        assert exchange.request.header("x-api-key")
        return "anthropic", body["model"], body.get("stream", False)
    if target == "/api/chat":
        return "ollama", body["model"], body.get("stream", True)
    if target == "/v1beta/openai/chat/completions":
        return "google_compat", body["model"], body.get("stream", False)
    assert exchange.request.header("x-goog-api-key")
    route, _, method = target.rpartition(":")
    return "google", route.rpartition("/")[2], method == "streamGenerateContent?alt=sse"


async def _replay(exchange: Exchange) -> None:
    """Answers with the transcript that the model's name says, in small pieces."""
    dialect, model, stream = _asked(exchange)
    path = stream_path(f"{dialect}/{model}") if stream else whole_path(f"{dialect}/{model}")
    kinds = {".sse": "text/event-stream", ".ndjson": "application/x-ndjson", ".json": "application/json"}
    await exchange.head(content_type=kinds[path.suffix])
    data = path.read_bytes()
    for start in range(0, len(data), PIECE):
        await exchange.body(data[start : start + PIECE])
    await exchange.finish()


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    """A router with one provider of each dialect, all on one scripted server."""
    folder = tmp_path_factory.mktemp("dialects")
    config = chains(
        dict.fromkeys(NAMES.values(), _PORT),
        {
            "mixed": ["claude/error_first", "gemini/error_first", "llamas/text"],
            "vision": ["llamas/text", "gemini/text"],
        },
    )
    for dialect, name in NAMES.items():
        config["providers"][name]["api"] = APIS[dialect]
    config["providers"]["google"] = {"base_url": f"http://127.0.0.1:{_PORT}/v1beta"}
    environment = {f"{name.upper()}_KEY": f"sk-test-{name}-0123456789" for name in NAMES.values()}
    environment["GOOGLE_API_KEY"] = "sk-test-google-0123456789"
    with RouterProcess(folder, config, env=environment) as running:
        yield running


@pytest.fixture(autouse=True)
async def upstream() -> AsyncIterator[Upstream]:
    """The scripted server of all three vendors."""
    server = Upstream(_PORT)
    await server.start()
    server.script = _replay
    yield server
    await server.stop()


async def _chat(router: RouterProcess, name: str, stream: bool, **fields: Any) -> Any:
    dialect, _, model = name.partition("/")
    if stream:
        fields["stream_options"] = {"include_usage": True}
    await router.ask("POST", "/circuit-breaker/reset-all")
    return await router.chat(f"{NAMES[dialect]}/{model}", stream=stream, **fields)


@pytest.mark.parametrize("name", ANSWERED)
async def test_answers_arrive(router: RouterProcess, name: str) -> None:
    """Streamed and unstreamed, over sockets, a client learns what the vendor said."""
    streamed, whole = await _chat(router, name, True), await _chat(router, name, False)
    assert (streamed.status, whole.status) == (200, 200), (streamed.raw, whole.raw)
    one, other = read_stream(streamed.body), read_whole(whole.body)
    assert one.done
    assert one.text == other.text == EXPECTED[name]["text"]
    assert one.same_call_ids_aside() == other.same_call_ids_aside()
    assert one.finish == other.finish == EXPECTED[name]["finish"]
    assert one.usage == other.usage


@pytest.mark.parametrize("name", CUT)
async def test_cut_answers_say_so(router: RouterProcess, name: str) -> None:
    """After the first words an error or a missing end becomes one error event and a clean end (trap 5)."""
    got = await _chat(router, name, True)
    read = read_stream(got.body)
    assert read.text == EXPECTED[name]["text"]
    assert read.error is not None
    assert (read.finish, read.done) == (None, False)
    if "error" in EXPECTED[name]:
        assert read.error["message"] == EXPECTED[name]["error"]
        assert read.error["code"] == "upstream_error"
    else:
        assert read.error["code"] == "upstream_truncated"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", FAILED)
async def test_errors_before_the_first_word_fail_the_attempt(router: RouterProcess, name: str, stream: bool) -> None:
    """The client sees no 200 where the provider's 200 held an error (traps 3, 4, 11)."""
    got = await _chat(router, name, stream)
    assert got.status == 503, got.raw
    assert got.error["attempts"][0]["kind"] == "upstream_error"


@pytest.mark.parametrize("stream", [True, False])
async def test_one_chain_crosses_the_dialects(router: RouterProcess, upstream: Upstream, stream: bool) -> None:
    """The tools of the request reach every vendor in its own form, and the first that answers wins."""
    await router.ask("POST", "/circuit-breaker/reset-all")
    got = await router.chat("router/mixed", stream=stream, tools=[TOOL])
    assert got.status == 200, got.raw
    assert got.header("x-router-model") == "llamas/text"
    read = read_stream(got.body) if stream else read_whole(got.body)
    assert read.text == EXPECTED["ollama/text"]["text"]
    bodies = [exchange.request.json() for exchange in upstream.exchanges]
    assert bodies[0]["tools"][0]["name"] == "get_weather"
    assert bodies[1]["tools"][0]["functionDeclarations"][0]["name"] == "get_weather"
    assert bodies[2]["tools"] == [TOOL]


async def test_who_cannot_take_the_content_is_passed_over(router: RouterProcess, upstream: Upstream) -> None:
    """Sound goes to the vendor that takes it; nobody else is asked, and where none is left the field is named."""
    await router.ask("POST", "/circuit-breaker/reset-all")
    sound = [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]
    got = await router.chat("router/vision", content=sound)
    assert got.status == 200, got.raw
    assert got.header("x-router-model") == "gemini/text"
    assert len(upstream.exchanges) == 1
    refused = await router.chat("claude/text", content=sound)
    assert refused.status == 400
    assert refused.error["param"] == "messages[0].content[0]"
    explained = await router.ask("POST", "/v1/explain", {"model": "router/vision", "messages": [
        {"role": "user", "content": sound}]})  # fmt: skip
    assert "llamas/text" in [one["model"] for one in orjson.loads(explained.body)["skipped"]]
    assert len(upstream.exchanges) == 1


@pytest.mark.parametrize("name", ["no_index", "all_zero", "text"])
async def test_googles_compatible_endpoint(router: RouterProcess, upstream: Upstream, name: str) -> None:
    """Parallel calls arrive with their own numbers (trap 8); a request loses nothing but what Google refuses."""
    got = await router.chat(f"google/{name}", tools=[TOOL], store=True, seed=7)
    assert got.status == 200, got.raw
    read = read_stream(got.body)
    want = EXPECTED[f"google_compat/{name}"]
    assert (read.text, read.finish, read.done) == (want["text"], want["finish"], True)
    assert read.same_call_ids_aside() == [(name, arguments) for _, name, arguments in want.get("calls", ())]
    sent = upstream.last.request.json()
    assert "store" not in sent
    assert (sent["seed"], sent["model"], sent["tools"]) == (7, name, [TOOL])


async def test_googles_errors_keep_their_words(router: RouterProcess, upstream: Upstream) -> None:
    """An error in a one-element array is understood (trap 11)."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.head(400, content_type="application/json")
        words = {"error": {"code": 400, "message": "Invalid value at 'seed'", "status": "INVALID_ARGUMENT"}}
        await exchange.body(orjson.dumps([words]))
        await exchange.finish()

    upstream.script = refuse
    got = await router.chat("google/text", stream=False)
    assert got.status == 400
    assert got.error["message"] == "Invalid value at 'seed'"
