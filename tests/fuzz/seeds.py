"""Inputs to start from: sound and broken samples of everything that the router reads."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

_TESTS = Path(__file__).parents[1]
_CHAT = {
    "model": "router",
    "stream": True,
    "temperature": 0.5,
    "max_tokens": 10,
    "stop": ["x"],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    "messages": [
        {"role": "system", "content": "be short"},
        {"role": "developer", "content": [{"type": "text", "text": "be kind"}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ],
}
_CONFIG = {
    "_note": "mine",
    "model_mappings": {"code": ["openai/gpt-4o", "x/m"]},
    "keywords": {"code": ["python"]},
    "custom_categories": {
        "creative": {"description": "d", "models": ["x/m"], "keywords": ["story"], "examples": ["e"]}
    },
    "categories": {"code": {"timeouts": {"first_byte": 9}, "order": "price"}},
    "circuit_breaker": {"failure_threshold": 3, "recovery_timeout_sec": 30},
    "providers": {"x": {"base_url": "http://127.0.0.1:1/v1", "api_key_env": "X_KEY", "api": "openai-completions"}},
    "prices": {"x/m": {"input": 1, "output": 2}},
    "timeouts": {"idle": 12},
}
_OPENAI = b"".join(
    b"data: " + json.dumps(item).encode() + b"\n\n"
    for item in (
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.1}},
        {"error": {"message": "boom", "code": 502, "metadata": {"raw": "x"}}},
    )
)
_ANTHROPIC = b"".join(
    b"event: %s\ndata: %s\n\n" % (str(item["type"]).encode(), json.dumps(item).encode())
    for item in (
        {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a'}},
        {"type": "ping"},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    )
)
_GEMINI = {
    "candidates": [
        {
            "content": {"parts": [{"text": "hi", "thought": True}, {"functionCall": {"name": "f", "args": {"a": 1}}}]},
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 1},
    "modelVersion": "g",
}
_OLLAMA = {"model": "l", "message": {"role": "assistant", "content": "hi", "thinking": "hm"}, "done": False}
_ERROR = {
    "error": {
        "code": 429,
        "message": "Rate limit",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "3.5s"}],
    }
}
_HTTP = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n"
_WHOLE = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}

SEEDS: tuple[bytes, ...] = (
    b"",
    b"\x05",
    json.dumps(_CHAT).encode(),
    json.dumps(_CONFIG).encode(),
    json.dumps(_WHOLE).encode(),
    json.dumps(_GEMINI).encode(),
    json.dumps([_GEMINI, _ERROR]).encode(),
    json.dumps(_ERROR).encode(),
    b"\x07" + _OPENAI + b"data: [DONE]\n\n",
    b"\x07" + _OPENAI.replace(b"\n", b"\r\n"),
    b"\x01" + _OPENAI.replace(b"\n", b"\r"),
    b"\x3f" + _ANTHROPIC,
    b"\x3fdata: " + json.dumps(_GEMINI).encode() + b"\r\n\r\n",
    b"\x3f" + json.dumps(_OLLAMA).encode() + b"\n" + json.dumps(_OLLAMA | {"done": True}).encode() + b"\n",
    b"\x20" + _HTTP,
    b"\x20HTTP/1.0 500 X\r\nContent-Length: 3\r\n\r\nabc",
    b"\x10" + gzip.compress(_OPENAI),
    b"\x10" + zlib.compress(_OPENAI),
    b"30                  1500      ",
    b'{"error":"x"}',
    b"\x02http://user:pw@host:80/v1?x#y",
    *(path.read_bytes()[-3000:] for path in sorted((_TESTS / "support" / "data" / "sse").glob("*/*.txt"))),
)
