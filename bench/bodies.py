"""Request bodies for the benchmark: the same at every run, of a given size."""

from __future__ import annotations

import json
import random
from typing import Any

_TEXT = (
    "please read the file and explain why the second test fails on a slow machine while it passes on mine then write "
    "a patch that keeps the interface as it is value error list index stream token budget latency cache def class "
    "return import for in while not none path open close read write send wait model answer question number date"
)
_WORDS = _TEXT.split()


def prose(rng: random.Random, size: int) -> str:
    """About `size` characters of words, with some punctuation and characters beyond ASCII."""
    words: list[str] = []
    length = 0
    while length < size:
        word = rng.choice(_WORDS) + rng.choice(["", "", "", "", "", ",", ".\n", " \u2013", " \u00fcber", "()\n    "])
        words.append(word)
        length += len(word) + 1
    return " ".join(words)[:size]


def chat(size: int, model: str, *, stream: bool = False) -> bytes:
    """A chat of one question."""
    rng = random.Random(size)
    body: dict[str, Any] = {"model": model, "temperature": 0.5, "max_tokens": 500}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    body["messages"] = [{"role": "system", "content": "Answer briefly."}]
    spare = size - len(json.dumps(body)) - 40
    body["messages"].append({"role": "user", "content": prose(rng, max(20, spare - spare // 20))})
    return json.dumps(body, ensure_ascii=False).encode()


def agent(size: int, model: str) -> bytes:
    """A turn of an agent with 30 tools, deep in its work; streamed."""
    rng = random.Random(size + 1)
    messages: list[dict[str, Any]] = [{"role": "system", "content": prose(rng, 10_000)}]
    body = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [_tool(rng, number) for number in range(30)],
        "messages": messages,
    }
    length, turn = len(json.dumps(body)), 0
    while length < size:
        turn += 1
        call = {"name": f"tool_{turn % 30}", "arguments": json.dumps({"path": prose(rng, 80)})}
        new: list[dict[str, Any]] = [
            {"role": "user", "content": prose(rng, 200)},
            {"role": "assistant", "content": None, "tool_calls": [{"id": f"call_{turn}", "type": "function"}]},
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": prose(rng, min(4000, size - length))},
        ]
        new[1]["tool_calls"][0]["function"] = call
        messages += new
        length += len(json.dumps(new))
    messages.append({"role": "user", "content": "Continue."})
    return json.dumps(body, ensure_ascii=False).encode()


def _tool(rng: random.Random, number: int) -> dict[str, Any]:
    properties = {f"field_{n}": {"type": "string", "description": prose(rng, 80)} for n in range(5)}
    function = {
        "name": f"tool_{number}",
        "description": prose(rng, 300),
        "parameters": {"type": "object", "properties": properties, "required": ["field_0"]},
    }
    return {"type": "function", "function": function}
