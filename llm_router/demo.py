"""`serve --demo`: three scripted providers on loopback, so that a newcomer sees the router work without any key.

One provider is always rate limited, one is broken in a new way each time, one is healthy and streams word by word.
They speak OpenAI's dialect over real sockets, and the router in front of them is the real one. This is the only place
of the project where an answer is made up, and each of them says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from llm_router.errors import ApiError
from llm_router.private_files import create
from llm_router.wire.chat import ChatRequest, parse_chat

WORD_SECONDS = 0.03
RETRY_AFTER_SECONDS = 15
RECOVERY_SECONDS = 20

# Everything else of the user's environment stays out: no real key, address, configuration or ledger may be reached.
_KEPT_VARIABLES = (
    "INVOCATION_ID",
    "LLM_ROUTER_IMAGE",
    "NOTIFY_SOCKET",
    "ROUTER_ADMIN_KEY",
    "ROUTER_ALLOWED_HOSTS",
    "ROUTER_ALLOWED_ORIGINS",
    "ROUTER_ALLOW_UNAUTHENTICATED",
    "ROUTER_API_KEY",
    "ROUTER_DRAIN_TIMEOUT",
    "ROUTER_HEADER_TIMEOUT",
    "ROUTER_HOST",
    "ROUTER_LOG_FORMAT",
    "ROUTER_LOG_LEVEL",
    "ROUTER_MAX_BODY_BYTES",
    "ROUTER_PORT",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)

_CHAINS = {
    "conversation": ("limited", "broken", "healthy"),
    "code": ("broken", "healthy"),
    "reasoning": ("limited", "healthy"),
    "tools": ("limited", "healthy"),
}


@dataclass(frozen=True, slots=True)
class DemoSetup:
    """A running demo: what the router in front of it is to be started with.

    `environ` stands in for the whole environment (and for `.env`, which must not be read); `configuration` is the
    content of the configuration file that `environ` names. `close()` stops the providers and removes the folder.
    """

    environ: Mapping[str, str]
    configuration: Mapping[str, Any]
    _runner: web.AppRunner = field(repr=False)
    _folder: Path = field(repr=False)

    async def close(self) -> None:
        """Stops the providers and removes the temporary state; call it after the router has drained."""
        await self._runner.cleanup()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


async def start_demo(environ: Mapping[str, str]) -> DemoSetup:
    """Starts the scripted providers on a free loopback port. `environ` is the user's environment."""
    runner = web.AppRunner(_providers(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    configuration = demo_configuration(f"http://{host}:{port}")
    folder = await asyncio.to_thread(_make_folder, configuration)
    return DemoSetup(
        environ=_demo_environ(environ, folder, f"http://{host}:{port}/absent"),
        configuration=configuration,
        _runner=runner,
        _folder=folder,
    )


def demo_configuration(base_url: str) -> dict[str, Any]:
    """The configuration file of the demo, for scripted providers that listen at `base_url`."""
    return {
        "_note": "made for serve --demo; changes through the API last until the demo stops",
        "providers": {
            name: {"base_url": f"{base_url}/{name}/v1", "api": "openai-completions"}
            for name in ("limited", "broken", "healthy")
        },
        "model_mappings": {
            category: [f"{provider}/demo-{category}" for provider in chain] for category, chain in _CHAINS.items()
        },
        "prices": {
            f"{provider}/demo-{category}": {"input": 1.0, "output": 4.0}
            for category, chain in _CHAINS.items()
            for provider in chain
        },
        "circuit_breaker": {"failure_threshold": 3, "recovery_timeout_sec": RECOVERY_SECONDS},
    }


def demo_greeting(base_url: str) -> str:
    """What the terminal shows once the demo listens at `base_url`: commands to copy."""

    def chat(model: str, text: str) -> str:
        body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": text}]})
        return f"curl -N {base_url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"

    return f"""\
Demo: three made-up providers on loopback (one rate limited, one broken, one healthy). No key, no network, no cost.
Try, in another terminal:

  # a streamed answer; -i shows the x-router-* headers with the failed attempts before it
  {chat("router", "Good morning, how are you today?").replace("curl -N", "curl -iN")}

  # another kind of task, another chain
  {chat("router", "Fix this Python traceback: KeyError in def load(path)")}

  # what would be chosen, and why, without calling anyone
  curl -s {base_url}/v1/explain -H 'Content-Type: application/json' \
-d '{{"model": "router", "messages": [{{"role": "user", "content": "Prove that 17 is prime, step by step"}}]}}'

  # what happened so far, what it cost, and which circuits are open; a browser shows it all at {base_url}/
  curl -s {base_url}/metrics
  curl -s {base_url}/v1/usage
  curl -s {base_url}/circuit-breaker

The real thing: stop this, then  OPENROUTER_API_KEY=... llm-router serve
"""


def _demo_environ(environ: Mapping[str, str], folder: Path, ollama: str) -> dict[str, str]:
    kept = {name: environ[name] for name in _KEPT_VARIABLES if environ.get(name)}
    return {
        **kept,
        "ROUTER_CONFIG_FILE": str(folder / "router_config.json"),
        "ROUTER_STATE_DIR": str(folder / "state"),
        # Ollama counts as configured everywhere; an address of our own keeps the real one out of the demo.
        "OLLAMA_BASE_URL": ollama,
        "DEFAULT_PROVIDER": "healthy",
        "DEFAULT_MODEL": "demo-conversation",
    }


def _make_folder(configuration: Mapping[str, Any]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="llm-router-demo-"))
    (folder / "state").mkdir(mode=0o700)
    with os.fdopen(create(folder / "router_config.json"), "wb") as file:
        file.write(orjson.dumps(configuration, option=orjson.OPT_INDENT_2) + b"\n")
    return folder


def _providers() -> web.Application:
    faults = cycle(("reset", "status", "fake"))

    async def broken(request: web.Request) -> web.StreamResponse:
        return await _answer_broken(request, next(faults))

    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/limited/v1/chat/completions", _answer_limited)
    app.router.add_post("/broken/v1/chat/completions", broken)
    app.router.add_post("/healthy/v1/chat/completions", _answer_healthy)
    return app


def _error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> web.Response:
    payload = {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
    return web.json_response(payload, status=status, headers=headers)


async def _answer_limited(request: web.Request) -> web.Response:
    await request.read()
    message = "Demo: this made-up provider is always rate limited"
    return _error(429, message, "rate_limit_exceeded", {"Retry-After": str(RETRY_AFTER_SECONDS)})


async def _answer_broken(request: web.Request, fault: str) -> web.StreamResponse:
    """Fails in one of three ways: the connection is reset, a status 500, a 200 that holds nothing but an error."""
    await request.read()
    message = "Demo: this made-up provider is always broken"
    if fault == "status":
        return _error(500, message, "internal_error")
    if fault == "reset" and request.transport is not None:
        request.transport.abort()
        return web.Response()  # goes nowhere
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(_event({"error": {"message": message, "type": "server_error", "code": "internal_error"}}))
    return response


async def _answer_healthy(request: web.Request) -> web.StreamResponse:
    try:
        chat = parse_chat(await request.read())
    except ApiError as error:
        return web.json_response(error.payload(), status=error.status)
    call = _tool_call(chat)
    words = [] if call else _words(chat)
    usage = _usage(chat, words)
    if not chat.stream:
        return web.json_response(_completion(chat, words, call, usage))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    with contextlib.suppress(ConnectionError):  # the router leaves when its client does
        await response.prepare(request)
        for event in _events(chat, words, call, usage):
            await response.write(event)
            await asyncio.sleep(WORD_SECONDS)
        await response.write(b"data: [DONE]\n\n")
    return response


def _words(chat: ChatRequest) -> list[str]:
    """The answer in pieces that keep their spaces, as a model's tokens do."""
    text = (
        "This is a made-up answer of the llm-router demo: no model was asked. "
        f"It comes from the scripted provider 'healthy', asked for its model '{chat.model}'. "
        "The x-router-* response headers tell the category and how many candidates failed before this one, "
        "and you see these words one by one because the router passes every event on as it comes."
    )
    return [word if index == 0 else f" {word}" for index, word in enumerate(text.split(" "))]


def _tool_call(chat: ChatRequest) -> dict[str, Any] | None:
    """A call of the first function offered, once in a conversation, unless calls are switched off."""
    # Agents put remarks of their own after a result: the last message does not tell whether it is there.
    if any(message.get("role") == "tool" for message in chat.messages) or chat.body.get("tool_choice") == "none":
        return None
    for tool in chat.tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            arguments = json.dumps(_arguments(function.get("parameters")))
            return {
                "id": "call_demo",
                "type": "function",
                "function": {"name": function["name"], "arguments": arguments},
            }
    return None


def _arguments(schema: Any) -> dict[str, str]:
    """A made-up value for every required text of a function's parameters."""
    schema = schema if isinstance(schema, dict) else {}
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    texts = (name for name in required if isinstance(name, str) and _is_text(properties.get(name)))
    return dict.fromkeys(texts, "made up by the demo")


def _is_text(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string"


def _usage(chat: ChatRequest, words: list[str]) -> dict[str, int]:
    """Roughly what a model would count, so that the drift in the metrics looks like life."""
    text = sum(len(str(message.get("content") or "")) for message in chat.messages) + len(str(chat.tools or ""))
    prompt, output = 4 * len(chat.messages) + text // 4, max(1, len(words) * 5 // 4)
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _envelope(chat: ChatRequest, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-demo", "object": kind, "created": int(time.time()), "model": chat.model}


def _completion(
    chat: ChatRequest, words: list[str], call: dict[str, Any] | None, usage: Mapping[str, int]
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None if call else "".join(words)}
    if call:
        message["tool_calls"] = [call]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if call else "stop"}
    return {**_envelope(chat, "chat.completion"), "choices": [choice], "usage": usage}


def _events(
    chat: ChatRequest, words: list[str], call: dict[str, Any] | None, usage: Mapping[str, int]
) -> Iterator[bytes]:
    envelope = _envelope(chat, "chat.completion.chunk")

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        return _event({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield chunk({"role": "assistant", "content": None if call else ""})
    if call:
        yield chunk({"tool_calls": [{"index": 0, **call}]})
    for word in words:
        yield chunk({"content": word})
    yield chunk({}, "tool_calls" if call else "stop")
    if chat.wants_usage:
        yield _event({**envelope, "choices": [], "usage": usage})


def _event(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"
