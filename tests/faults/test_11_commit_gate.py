"""The commit gate: what carries meaning, what is held and replayed, and when an empty answer is one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.chunks import answer, completion, error_event, event, finish, role, text
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, Script, Upstream, either, plain, reply, stream


def _script(script: Script) -> Callable[[Upstream], Awaitable[None]]:
    async def apply(upstream: Upstream) -> None:
        upstream.script = script

    return apply


async def test_nothing_is_sent_before_the_commit(stage: Stage) -> None:
    """Not even the status line leaves before the first event that carries meaning."""
    listened = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(b": one\n\n" + role())
        await listened.wait()
        await exchange.body(text("now"))
        await exchange.body(finish() + b"data: [DONE]\n\n")
        await exchange.finish()

    stage.a.script = script
    connection = await stage.router.open_chat("router/ab")
    await stage.a.wait_for(1)
    with pytest.raises(TimeoutError):
        await connection.receive(0.4)
    listened.set()
    got = await connection.answer()
    connection.close()
    assert got.body == b": one\n\n" + role() + text("now") + finish() + b"data: [DONE]\n\n"


async def test_preamble_of_a_failed_attempt_is_not_seen(stage: Stage) -> None:
    """What a failed candidate said before its failure is thrown away."""
    stage.a.script = stream([b": from a\n\n", role(), error_event("a broke")])
    got = await stage.chat("router/ab")
    assert b"from a" not in got.body
    assert b"a broke" not in got.body
    assert got.text == "Hello from upstream"


MEANING = {
    "content": text("x"),
    "space": text(" "),
    "refusal": event({"choices": [{"index": 0, "delta": {"refusal": "I cannot"}, "finish_reason": None}]}),
    "tool_call": event(
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]},
                    "finish_reason": None,
                }
            ]
        }
    ),
    "function_call": event({"choices": [{"index": 0, "delta": {"function_call": {"name": "f", "arguments": ""}}}]}),
    "reasoning": event({"choices": [{"index": 0, "delta": {"reasoning": "hm"}, "finish_reason": None}]}),
    "reasoning_content": event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}),
    "reasoning_details": event(
        {"choices": [{"index": 0, "delta": {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}}]}
    ),
    "finish_length": event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}),
    "finish_filter": event({"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]}),
    "second_choice": event({"choices": [{"index": 1, "delta": {"content": "y"}, "finish_reason": None}]}),
}


@pytest.mark.parametrize("name", MEANING)
async def test_meaning_commits(stage: Stage, name: str) -> None:
    """Content, refusal, tool call, reasoning and an answering finish all commit at once: the client gets them."""
    stage.a.script = stream([role(), MEANING[name]], end="hang")
    got = await stage.chat("router/ab", until=lambda answer: MEANING[name] in answer.body, patience=0.9)
    assert got.status == 200
    assert got.body == role() + MEANING[name]
    assert stage.b.count == 0


EMPTYISH = {
    "role_empty": role(),
    "role_null": role(None),
    "empty_content": text(""),
    "null_content": event({"choices": [{"index": 0, "delta": {"content": None}, "finish_reason": None}]}),
    "no_choices": event({"id": "x", "choices": []}),
    "usage_only": event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}),
    "comment": b": thinking\n\n",
    "ping": b"event: ping\ndata: {}\n\n",
    "id_only": b"id: 7\n\n",
    "retry": b"retry: 100\n\n",
    "empty_data": b"data:\n\n",
    "empty_tools": event({"choices": [{"index": 0, "delta": {"tool_calls": []}, "finish_reason": None}]}),
    "empty_reasoning": event({"choices": [{"index": 0, "delta": {"reasoning": ""}, "finish_reason": None}]}),
    "blank_lines": b"\n\n\n\n",
}


@pytest.mark.parametrize("name", EMPTYISH)
async def test_what_carries_no_meaning_is_held(stage: Stage, name: str) -> None:
    """An event without meaning does not commit: silence after it fails over."""
    stage.a.script = stream([EMPTYISH[name]], end="hang")
    got = await stage.chat("router/ab")
    assert got.header("x-router-model") == "b/m2"
    assert got.body == b"".join(answer())


@pytest.mark.parametrize("name", EMPTYISH)
async def test_what_was_held_is_replayed_unchanged(stage: Stage, name: str) -> None:
    """Held bytes come out exactly as they came in, once something with meaning follows."""
    events = [EMPTYISH[name], *answer("word")]
    stage.a.script = stream(events, gap=0.02)
    got = await stage.chat("router/ab")
    assert got.body == b"".join(events)
    assert stage.b.count == 0


@pytest.mark.parametrize("reason", ["length", "content_filter"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_empty_length_or_filter_finish_is_an_answer(stage: Stage, reason: str, streamed: bool) -> None:
    """A finish of `length` or `content_filter` is an answer even when empty."""
    body = [role(), finish(reason), b"data: [DONE]\n\n"]
    whole = completion("", reason)
    stage.a.script = either(stream(body), reply(200, whole))
    got = await stage.chat("router/ab", streamed)
    assert stage.b.count == 0
    if streamed:
        assert got.body == b"".join(body)
    else:
        assert got.json() == whole


EXPLAINED: dict[str, dict[str, Any]] = {
    "tool_result": {
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "42"},
        ]
    },
    "stop_list": {"stop": ["\n"]},
    "stop_string": {"stop": "x"},
    "max_tokens_16": {"max_tokens": 16},
    "max_tokens_1": {"max_tokens": 1},
    "max_completion_tokens": {"max_completion_tokens": 8},
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fields", [*EXPLAINED, "unexplained"])
async def test_empty_stop_fails_over(stage: Stage, fields: str, streamed: bool) -> None:
    """An empty `stop` fails over; without blame exactly when the request explains it."""
    stage.a.script = either(stream([role(), finish(), b"data: [DONE]\n\n"]), plain(""))
    for _ in range(4):
        got = await stage.chat("router/ab", streamed, **EXPLAINED.get(fields, {}))
        assert got.text == "Hello from upstream"
        assert got.header("x-router-model") == "b/m2"
    assert stage.a.count == (3 if fields == "unexplained" else 4)


@pytest.mark.parametrize("fields", [*EXPLAINED, "unexplained"])
async def test_empty_stop_is_passed_on_when_nobody_is_left(stage: Stage, fields: str) -> None:
    """When no candidate is left an empty `stop` reaches the client byte for byte."""
    empty = [b": note\n\n", role(), finish(), b"data: [DONE]\n\n"]
    stage.a.script = stage.b.script = stream(empty)
    got = await stage.chat("router/ab", **EXPLAINED.get(fields, {}))
    assert got.status == 200
    assert got.body == b"".join(empty)
    assert (stage.a.count, stage.b.count) == (1, 1)


async def test_empty_plain_answer_is_passed_on_when_nobody_is_left(stage: Stage) -> None:
    """The same for a whole JSON completion."""
    stage.a.script = plain("")
    got = await stage.chat("a/m1", False)
    assert got.status == 200
    assert got.json()["choices"][0]["message"]["content"] == ""
