"""CPU time of translated streams beside passthrough, in microseconds per event. Run: python -m bench.translate"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from llm_router.config.values import Provider
from llm_router.wire.chat import parse_chat
from llm_router.wire.providers.base import Target
from llm_router.wire.providers.google_compat import GoogleCompatTranslator
from llm_router.wire.providers.registry import adapter_for
from llm_router.wire.sse import EventSplitter

EVENTS = 2000
ROUNDS = 15
PER_READ = 20


def _sse(payload: Any, name: str = "") -> bytes:
    return (b"event: %s\n" % name.encode() if name else b"") + b"data: " + orjson.dumps(payload) + b"\n\n"


def _anthropic(block: Any, delta: Any) -> list[bytes]:
    message = {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 5}}
    head = [
        _sse({"type": "message_start", "message": message}, "message_start"),
        _sse({"type": "content_block_start", "index": 0, "content_block": block}, "content_block_start"),
    ]
    return head + [_sse({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")] * EVENTS


def _streams() -> dict[str, tuple[str, list[bytes]]]:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}
    candidate = {"content": {"role": "model", "parts": [{"text": " word"}]}, "index": 0}
    line = {"model": "qwen3:8b", "created_at": "2026-11-23T01:52:10.123456789Z", "done": False}
    return {
        "anthropic, text": (
            "anthropic-messages",
            _anthropic({"type": "text", "text": ""}, {"type": "text_delta", "text": " word"}),
        ),
        "anthropic, arguments": (
            "anthropic-messages",
            _anthropic(
                {"type": "tool_use", "id": "t", "name": "f"}, {"type": "input_json_delta", "partial_json": '{"a"'}
            ),
        ),
        "gemini": (
            "google-generative-ai",
            [_sse({"candidates": [candidate], "usageMetadata": usage, "responseId": "r"})] * EVENTS,
        ),
        "ollama": (
            "ollama",
            [orjson.dumps({**line, "message": {"role": "assistant", "content": " word"}}) + b"\n"] * EVENTS,
        ),
    }


def _measure(make: Callable[[], Any], reads: list[bytes], events: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        feed = make().feed
        begin = time.perf_counter()
        for read in reads:
            feed(read)
        best = min(best, (time.perf_counter() - begin) / events)
    return best * 1e6


def _report(name: str, make: Callable[[], Any], reads: list[bytes]) -> None:
    joined = [b"".join(reads[start : start + PER_READ]) for start in range(0, len(reads), PER_READ)]
    single, many = _measure(make, reads, len(reads)), _measure(make, joined, len(reads))
    print(f"{name:24} {single:6.2f} us/event, one event per read   {many:6.2f} us/event, {PER_READ} per read")


def main() -> None:
    """Prints one line for each dialect."""
    chat = parse_chat(b'{"model":"router","stream":true,"messages":[{"role":"user","content":"Hi"}]}')
    choice = {"index": 0, "delta": {"content": " word"}, "finish_reason": None}
    chunk = _sse({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "choices": [choice]})
    _report("passthrough", EventSplitter, [chunk] * EVENTS)
    _report("google, compatibility", GoogleCompatTranslator, [chunk] * EVENTS)
    for name, (api, reads) in _streams().items():
        provider = Provider(name, "http://localhost", api=api)  # type: ignore[arg-type]
        adapter = adapter_for(provider, time.time)
        target = Target(provider, "m")
        _report(name, lambda adapter=adapter, target=target: adapter.translator(chat, target), reads)


if __name__ == "__main__":
    main()
