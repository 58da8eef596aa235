"""One suite for every dialect, over recorded answers: what the client learns, wherever the reads are cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from llm_router.errors import AttemptFailed, Failure, FailureKind
from llm_router.proxy.gate import Gate, Verdict, judge_completion
from llm_router.wire.sse import raw_events
from llm_router.wire.usage import Usage
from tests.wire.providers.dialects import (
    ADAPTERS,
    EXPECTED,
    TRANSLATED,
    Read,
    make_chat,
    make_target,
    read_stream,
    read_whole,
    stream_path,
    translate,
    whole_path,
)

ALL = sorted(EXPECTED)
PAIRS = [name for name in ALL if whole_path(name).exists()]
ANSWERED = [name for name in PAIRS if "finish" in EXPECTED[name]]
OWN_SHAPE = [name for name in ALL if name.split("/")[0] in TRANSLATED]


def _streamed(name: str, size: int | None = None) -> bytes:
    return translate(name.split("/")[0], stream_path(name).read_bytes(), size)


def _check(read: Read, want: dict[str, Any]) -> None:
    assert read.text == want["text"]
    assert read.reasoning == want.get("reasoning", "")
    assert read.refusal == want.get("refusal")
    assert read.finish == want.get("finish")
    assert read.images == want.get("images", [])
    calls = want.get("calls", [])
    assert read.same_call_ids_aside() == [(name, arguments) for _, name, arguments in calls]
    for call, (id, _, _) in zip(read.calls, calls, strict=True):
        assert call["id"] == id if id is not None else call["id"]
    assert len({call["id"] for call in read.calls}) == len(read.calls)
    if "usage" in want:
        fresh, cached, written, output, reasoning = want["usage"]
        assert read.usage is not None
        assert (read.usage.fresh_input, read.usage.cache_read, read.usage.cache_write) == (fresh, cached, written)
        assert (read.usage.output, read.usage.reasoning) == (output, reasoning)
    assert bool(read.details) == want.get("details", False) or not read.calls


@pytest.mark.parametrize("dialect", ADAPTERS)
def test_a_header_of_the_configuration_stands_alone(dialect: str) -> None:
    """It takes the place of ours, however it is spelled: of two lines nobody knows which one counts."""
    target = make_target(dialect)
    given = {"Content-Type": "application/json; charset=utf-8", "X-Further": "1"}
    call = ADAPTERS[dialect].call(make_chat(), replace(target, provider=replace(target.provider, headers=given)))
    lower = [name.lower() for name in call.headers]
    assert len(set(lower)) == len(lower)
    assert call.headers.items() >= given.items()


@pytest.mark.parametrize("name", ALL)
def test_a_stream_says_what_it_says(name: str) -> None:
    """Text, reasoning, calls, finish, usage and errors of every recorded stream reach the client."""
    want = EXPECTED[name]
    read = read_stream(_streamed(name))
    _check(read, want)
    if "error" in want:
        assert read.error is not None
        assert read.error["message"] == want["error"]
        assert read.error.get("type") == want["error_type"]
        assert read.finish is None or name.startswith("openrouter")
    assert read.done == ("finish" in want), "an answer ends with [DONE], a cut or failed one never does"


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_reads_may_be_cut_anywhere(name: str, size: int) -> None:
    """The client's bytes are the same wherever the provider's bytes were cut (trap 1)."""
    assert _streamed(name, size) == _streamed(name)


@pytest.mark.parametrize("name", OWN_SHAPE)
def test_two_reads_cut_at_every_byte(name: str) -> None:
    """Two reads, cut at each byte in turn, make the same answer, and each output is whole events."""
    data = stream_path(name).read_bytes()
    dialect = name.split("/")[0]
    target, chat = make_target(dialect), make_chat()
    want = translate(dialect, data)
    for cut in range(1, len(data)):
        translator = ADAPTERS[dialect].translator(chat, target)
        assert translator is not None
        first = translator.feed(data[:cut])
        assert not first or first.endswith(b"\n\n")
        assert first + translator.feed(data[cut:]) + translator.close() == want


@pytest.mark.parametrize("name", ANSWERED)
def test_streamed_equals_unstreamed(name: str) -> None:
    """A streamed answer and the same answer unstreamed tell a client the same."""
    dialect = name.split("/")[0]
    completion = ADAPTERS[dialect].completion(
        make_chat(stream=False), make_target(dialect), whole_path(name).read_bytes()
    )
    whole, streamed = read_whole(completion.body), read_stream(_streamed(name))
    _check(whole, EXPECTED[name])
    assert (whole.text, whole.reasoning, whole.refusal) == (streamed.text, streamed.reasoning, streamed.refusal)
    assert whole.same_call_ids_aside() == streamed.same_call_ids_aside()
    assert [call["id"] for call in whole.calls] == [call["id"] for call in streamed.calls]
    assert whole.finish == streamed.finish
    assert whole.usage == streamed.usage
    assert whole.extra == streamed.extra
    if dialect in TRANSLATED:
        assert whole.details == streamed.details
        booked = completion.usage
        # Half a report is for the books alone.
        told = _without_lifetime(booked) if booked is not None and booked.input else None
        assert told == whole.usage


def _without_lifetime(usage: Usage) -> Usage:
    """Usage as OpenAI's shape can say it: without the part of the cache that lives for an hour."""
    return Usage(usage.fresh_input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning)


def _failure_of_whole(dialect: str, body: bytes) -> Failure | None:
    """What adapter and gate together make of a whole 200 answer."""
    try:
        completion = ADAPTERS[dialect].completion(make_chat(stream=False), make_target(dialect), body)
    except AttemptFailed as error:
        return error.failure
    return judge_completion(orjson.loads(completion.body)).failure


@pytest.mark.parametrize("name", [name for name in PAIRS if "error" in EXPECTED[name]])
def test_a_200_that_holds_an_error_is_a_failed_attempt(name: str) -> None:
    """An error in a whole 200 answer fails over, with the provider's words (traps 3, 4, 11)."""
    dialect = name.split("/")[0]
    failure = _failure_of_whole(dialect, whole_path(name).read_bytes())
    assert failure is not None
    assert failure.message == EXPECTED[name]["error"]


@pytest.mark.parametrize("name", ALL)
def test_the_gate_commits_at_the_first_meaning(name: str) -> None:
    """The first event with meaning commits; errors first, and empty answers, are rejected before the client sees
    anything (traps 2, 3, 5)."""
    want, gate = EXPECTED[name], Gate()
    meant = want["text"] or want.get("calls") or want.get("reasoning") or want.get("refusal")
    verdicts = []
    for raw in raw_events(_streamed(name)):
        verdicts.append(gate.feed(raw))
        if verdicts[-1] is not Verdict.HOLD:
            break
    if meant or want.get("finish") in ("length", "content_filter"):
        assert verdicts[-1] is Verdict.COMMIT
        # Nothing but a preamble, comments and pings may come before.
        assert b'"content":""' in b"".join(gate.held) or len(verdicts) <= 3
    else:
        assert Verdict.COMMIT not in verdicts
        if "error" in want:
            assert gate.error is not None
        if want.get("empty"):
            assert gate.well_formed_empty


@pytest.mark.parametrize("name", [name for name in OWN_SHAPE if "usage" in EXPECTED[name]])
def test_usage_is_sent_only_if_asked_for(name: str) -> None:
    """Without `include_usage` no event lacks its choice, and the translator knows the usage all the same (trap 12)."""
    dialect = name.split("/")[0]
    translator = ADAPTERS[dialect].translator(make_chat(usage=False), make_target(dialect))
    assert translator is not None
    out = translator.feed(stream_path(name).read_bytes()) + translator.close()
    assert b'"choices":[]' not in out
    assert read_stream(out).usage is None
    assert translator.usage is not None
    assert translator.usage.output == EXPECTED[name]["usage"][3]


@pytest.mark.parametrize("name", [name for name in OWN_SHAPE if "finish" in EXPECTED[name]])
def test_the_end_of_an_answer_is_in_order(name: str) -> None:
    """One finish, then the usage, then `[DONE]`; every chunk before says `finish_reason: null` (trap 13)."""
    events = [raw for raw in raw_events(_streamed(name)) if raw.startswith(b"data: ")]
    assert events[-1] == b"data: [DONE]\n\n"
    chunks = [orjson.loads(raw[6:]) for raw in events[:-1]]
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
    assert finishes[:-1] == [None] * (len(finishes) - 1)
    assert finishes[-1] is not None
    with_usage = [index for index, chunk in enumerate(chunks) if chunk.get("usage")]
    assert with_usage in ([], [len(chunks) - 1])


@pytest.mark.parametrize("dialect", TRANSLATED)
@pytest.mark.parametrize(
    "noise",
    [b"", b"\n\n", b": comment\n\n", b"event: brand_new\ndata: {\"type\":\"brand_new\"}\n\n", b"data: {broken\n\n",
     b"data: []\n\n", b"data: 1\n\n", b"id: 7\n\n", b"{\"unknown\": true}\n", b"null\n", b"\xff\xfe\n\n"],
)  # fmt: skip
def test_unknown_events_are_ignored(dialect: str, noise: bytes) -> None:
    """Whatever a provider invents is no content, no error and no exception."""
    name = f"{dialect}/text"
    data = stream_path(name).read_bytes()
    if dialect == "ollama":
        noise = noise.replace(b"\n\n", b"\n")
    assert read_stream(translate(dialect, noise + data)) == read_stream(translate(dialect, data))


@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
def test_openai_shaped_streams_pass_byte_for_byte(dialect: str) -> None:
    """Providers that speak OpenAI's shape have no translator at all."""
    assert ADAPTERS[dialect].translator(make_chat(), make_target(dialect)) is None


@pytest.mark.parametrize("dialect", sorted(ADAPTERS))
@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", b"[]", b"{}", b"null", b'{"choices":[]}', b"{"])
def test_a_200_without_an_answer_is_a_failed_attempt(dialect: str, body: bytes) -> None:
    """A page, nothing, or JSON of some other kind never reaches a client as an answer (trap 4)."""
    failure = _failure_of_whole(dialect, body)
    assert failure is not None
    assert failure.status == 200


@pytest.mark.parametrize(
    ("dialect", "body", "empty"),
    [
        ("google", b'{"candidates":null}', False),
        ("google", b'{"candidates":[{"index":0,"content":{"role":"model"}}]}', False),
        ("google", b'{"candidates":[{"index":0,"finishReason":"STOP"}]}', True),
        ("anthropic", b'{"type":"message","content":[],"stop_reason":null}', False),
        ("anthropic", b'{"type":"message","content":[],"stop_reason":"end_turn"}', True),
        ("ollama", b'{"message":{"role":"assistant","content":""},"done":false}', False),
        ("ollama", b'{"message":{"role":"assistant","content":""}}', False),
        ("ollama", b'{"message":{"role":"assistant","content":""},"done":true}', True),
    ],
)
def test_nothing_said_without_an_end_is_no_empty_answer(dialect: str, body: bytes, empty: bool) -> None:
    """Only an end that the provider told makes an empty answer, which may be passed on; none is made up."""
    failure = _failure_of_whole(dialect, body)
    assert failure is not None
    assert failure.kind is FailureKind.EMPTY_COMPLETION
    if empty:
        completion = ADAPTERS[dialect].completion(make_chat("Hi"), make_target(dialect), body)
        assert judge_completion(orjson.loads(completion.body)).well_formed_empty
    else:
        with pytest.raises(AttemptFailed):
            ADAPTERS[dialect].completion(make_chat("Hi"), make_target(dialect), body)
