"""Requests as real clients sent them, replayed with their own headers and bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.chunks import DONE, answer, finish, role, tool_call
from tests.support.client import Answer, ask
from tests.support.fixtures import Stage
from tests.support.upstream import stream

RECORDED = {
    path.stem: json.loads(path.read_bytes()) for path in sorted((Path(__file__).parent / "data").glob("*.json"))
}
CHATS = [name for name, item in RECORDED.items() if item["path"] in ("/v1/chat/completions", "/chat/completions")]
OTHERS = [name for name in RECORDED if name not in CHATS]


async def replay(stage: Stage, name: str) -> Answer:
    """Sends a recorded request, with the Host of this router."""
    item = RECORDED[name]
    left_out = {"host", "content-length", "connection", "transfer-encoding"}
    headers: dict[str, str | None] = {key: value for key, value in item["headers"] if key.lower() not in left_out}
    headers["Host"] = f"127.0.0.1:{stage.router.port}"
    body = json.dumps(item["body"], ensure_ascii=False).encode()
    path = item["path"] + (f"?{item['query']}" if item["query"] else "")
    headers |= {"Content-Length": str(len(body))}
    return await ask(stage.router.port, item["method"], path, body, headers)


@pytest.mark.parametrize("name", CHATS)
async def test_chats_are_served(stage: Stage, name: str) -> None:
    """Every recorded chat is answered in the way it was asked, and travels unchanged but for `model`."""
    item = RECORDED[name]
    got = await replay(stage, name)
    assert (got.status, got.text) == (200, "Hello from upstream")
    streamed = bool(item["body"].get("stream"))
    assert got.done == streamed
    assert (got.header("content-type") or "").startswith("text/event-stream" if streamed else "application/json")
    sent: Any = stage.a.last.request.json()
    wanted = dict(item["body"])
    if "max_completion_tokens" in wanted:  # other hosts than OpenAI know only the old name
        wanted["max_tokens"] = wanted.pop("max_completion_tokens")
    assert sent == wanted | {"model": "m1"}
    category = "tools" if item["body"].get("tools") else None
    assert got.header("x-router-category") == category or category is None


@pytest.mark.parametrize("name", OTHERS)
async def test_other_apis_are_told(stage: Stage, name: str) -> None:
    """Requests to APIs that are not offered get a JSON 404, never a 5xx."""
    got = await replay(stage, name)
    assert got.status == 404
    assert got.error["message"]


@pytest.mark.parametrize("name", [name for name in CHATS if name.startswith("openclaw")])
async def test_openclaw_gets_its_tool_calls(stage: Stage, name: str) -> None:
    """OpenClaw's turns end with tool calls that pass byte for byte, on the path without /v1."""
    events = [role(None), *tool_call("exec", '{"command":"ls"}'), finish("tool_calls"), DONE]
    stage.a.script = stream(events)
    got = await replay(stage, name)
    assert got.body == b"".join(events)


async def test_the_retry_of_openclaw_is_a_request_of_its_own(stage: Stage) -> None:
    """A retry re-sends a longer body: it is answered like the first."""
    for name in ("openclaw-text-turn", "openclaw-retry-after-cut-stream", "openclaw-text-turn"):
        stage.a.script = stream(answer(name))
        assert (await replay(stage, name)).text == name
