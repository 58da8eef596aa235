"""The commit gate: meaning commits, not bytes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.errors import FailureKind
from llm_router.proxy import gate
from llm_router.proxy.gate import Gate, Verdict, judge_completion

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
NULL = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "event",
    [
        ROLE,
        NULL,
        b": OPENROUTER PROCESSING\n\n",
        b"event: ping\ndata: {}\n\n",
        b"id: 4\n\n",
        b"data:\n\n",
        b'data: {"choices":[],"usage":{"prompt_tokens":3}}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[]}}]}\n\n',
        b"data: {broken\n\n",
        b'data: {"choices":[{"delta":{"content":"a\tb"}}],"error":null}\n\n',
        b'data: {"choices":"odd"}\n\ndata: [1]\n\ndata: 7\n\n',
        STOP,
    ],
)
def test_preambles_are_held(event: bytes) -> None:
    """What carries no meaning is held, to the byte."""
    gate = Gate()
    assert gate.feed(event) is Verdict.HOLD
    assert gate.held == [event]


@pytest.mark.parametrize(
    "choice",
    [
        b'{"delta":{"content":" "}}',
        b'{"delta":{"refusal":"no"}}',
        b'{"delta":{"tool_calls":[{"index":0}]}}',
        b'{"delta":{"reasoning_content":"hm"}}',
        b'{"delta":{"reasoning":"hm"}}',
        b'{"delta":{"reasoning_details":[{"type":"reasoning.text"}]}}',
        b'{"delta":{"function_call":{"name":"f"}}}',
        b'{"delta":{},"finish_reason":"length"}',
        b'{"delta":{},"finish_reason":"content_filter"}',
        b'{"message":{"content":"whole"}}',
        b'{"text":"legacy"}',
    ],
)
def test_meaning_commits(choice: bytes) -> None:
    """Content, refusal, calls, reasoning and answering finishes commit."""
    gate = Gate()
    gate.feed(ROLE)
    assert gate.feed(b'data: {"choices":[' + choice + b"]}\n\n") is Verdict.COMMIT
    assert gate.held == [ROLE]


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"boom","code":502}}\n\n',
        b'data: {"error":"boom"}\n\n',
        b'data: {"error":true,"message":"boom"}\n\n',
        b'data: {"error":[{"message":"boom"},{"message":"more"}]}\n\n',
        b'data: {"choices":[{"error":"boom","delta":{},"finish_reason":"error"}]}\n\n',
        b'data: [{"error":{"message":"boom"}}]\n\n',
        b'data: {"object":"error","message":"boom"}\n\n',
        b'event: error\ndata: {"message":"boom"}\n\n',
        b"event: error\ndata: boom\n\n",
        b'data: {"type":"error","error":{"type":"overloaded_error","message":"boom"}}\n\n',
        b'data: {"error":{"message":"boom"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}\n\n',
        b'data: {"choices":[{"error":{"code":502,"message":"boom"},"delta":{},"finish_reason":"error"}]}\n\n',
        b'{"error":{"message":"boom"}}\n\n',
        b'[{\r\n  "error": {"message": "boom"}\r\n}]\r\n\r\n' + TEXT,
    ],
)
def test_errors_reject_with_their_words(event: bytes) -> None:
    """An error in any dialect rejects the stream and its words are kept."""
    gate = Gate()
    assert gate.feed(ROLE + event) is Verdict.REJECT
    assert gate.failure().kind is FailureKind.UPSTREAM_ERROR
    assert gate.failure().message == "boom"


@pytest.mark.parametrize(("place", "number"), [(0, 2), (1, 2), (1, 3), (2, 3)])
def test_one_choice_of_several_is_enough(place: int, number: int) -> None:
    """Where several answers were asked for an event may bring a piece of each: any that says something commits."""
    choices = [{"index": index, "delta": {"content": "Hi" if index == place else ""}} for index in range(number)]
    assert Gate().feed(b"data: " + orjson.dumps({"choices": choices}) + b"\n\n") is Verdict.COMMIT
    assert judge_completion({"choices": [{"message": choice["delta"]} for choice in choices]}).failure is None


def test_an_error_without_a_field_name_may_begin_with_a_mark() -> None:
    """Its server put a byte order mark before the stream."""
    gate = Gate()
    assert gate.feed(b'\xef\xbb\xbf{"error":{"message":"boom"}}\n\n' + TEXT) is Verdict.REJECT
    assert gate.failure().message == "boom"


def test_a_stop_with_nothing_is_an_empty_completion() -> None:
    """Role, stop and [DONE] without content is a failed attempt that may still be passed on."""
    gate = Gate()
    assert gate.feed(ROLE + STOP) is Verdict.HOLD
    assert gate.feed(DONE) is Verdict.REJECT
    assert gate.failure().kind is FailureKind.EMPTY_COMPLETION
    assert gate.well_formed_empty


def test_done_alone_is_empty_and_not_well_formed() -> None:
    """Only [DONE] is a failure that nobody would want to be passed on."""
    gate = Gate()
    assert gate.feed(DONE) is Verdict.REJECT
    assert gate.failure().kind is FailureKind.EMPTY_COMPLETION
    assert not gate.well_formed_empty


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (b"data:\n\n", FailureKind.EMPTY_COMPLETION),
        (b"data: {broken\n\n", FailureKind.INVALID_RESPONSE),
        (b"data: [1]\n\n", FailureKind.INVALID_RESPONSE),
        (ROLE + b"data: {broken\n\n", FailureKind.EMPTY_COMPLETION),
        (b": comment\n\n", FailureKind.EMPTY_COMPLETION),
    ],
)
def test_only_what_was_no_answer_at_all_is_invalid(events: bytes, kind: FailureKind) -> None:
    """An event that cannot be read among others that can does not make the stream another thing than empty."""
    gate = Gate()
    assert gate.feed(events) is Verdict.HOLD
    assert gate.failure().kind is kind


def test_a_finish_before_an_error_is_not_well_formed() -> None:
    """Nothing that ends with an error is passed on as an empty answer."""
    gate = Gate()
    assert gate.feed(STOP) is Verdict.HOLD
    assert gate.well_formed_empty
    assert gate.feed(b'data: {"error":{"message":"boom"}}\n\n') is Verdict.REJECT
    assert not gate.well_formed_empty


def test_an_endless_preamble_is_rejected() -> None:
    """What is held has a bound."""
    gate = Gate()
    verdicts = {gate.feed(b": " + b"x" * 100_000 + b"\n\n") for _ in range(12)}
    assert Verdict.REJECT in verdicts
    assert gate.failure().kind is FailureKind.INVALID_RESPONSE


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}, None),
        ({"choices": [{"message": {"content": "", "tool_calls": [{}]}}]}, None),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}, None),
        ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, FailureKind.EMPTY_COMPLETION),
        ({"choices": []}, FailureKind.EMPTY_COMPLETION),
        ({"error": {"message": "x"}}, FailureKind.UPSTREAM_ERROR),
        ([{"error": {"message": "x"}}], FailureKind.UPSTREAM_ERROR),
        ({"ok": True}, FailureKind.INVALID_RESPONSE),
        ([], FailureKind.INVALID_RESPONSE),
        ({"choices": [{"message": {"content": ""}, "finish_reason": ["odd"]}]}, FailureKind.EMPTY_COMPLETION),
    ],
)
def test_whole_answers_are_judged_the_same_way(body: object, kind: FailureKind | None) -> None:
    """A 200 whose body is an error or holds nothing is a failed attempt."""
    failure = judge_completion(body).failure
    assert (failure.kind if failure else None) is kind


_ODD = st.sampled_from([None, "", "text", "error", 0, [], ["x"], {}, {"message": "no"}])


def _bent(plain: dict[str, Any], *more: str) -> st.SearchStrategy[dict[str, Any]]:
    """`plain` with some of its fields, or of `more`, changed."""
    return st.dictionaries(st.sampled_from([*plain, *more]), _ODD, max_size=2).map(lambda odd: {**plain, **odd})


@st.composite
def _completions(draw: st.DrawFn) -> dict[str, Any]:
    """Plain answers, and those that are not quite."""
    message = draw(_bent({"role": "assistant", "content": "Hello"}, "refusal", "tool_calls"))
    choice = draw(_bent({"index": 0, "message": message, "finish_reason": "stop"}, "text", "delta"))
    return draw(_bent({"object": "chat.completion", "choices": [choice]}, "error", "type"))


@st.composite
def _chunks(draw: st.DrawFn) -> dict[str, Any]:
    """Plain chunks, and those that are not quite."""
    delta = draw(_bent({"role": "assistant", "content": ""}, "refusal", "tool_calls"))
    choice = draw(_bent({"index": 0, "delta": delta, "finish_reason": None}, "text", "message"))
    return draw(_bent({"object": "chat.completion.chunk", "choices": [choice]}, "error", "type"))


@given(_chunks(), st.sampled_from([b"", b"event: error\n", b"event: x\n", b": c\n\n", b"\r"]))
@settings(max_examples=1000)
def test_the_quick_look_at_a_chunk_says_no_more_than_the_slow_one(chunk: dict[str, Any], before: bytes) -> None:
    """A chunk that is judged at a glance is judged as by every rule."""
    event = before + b"data: " + orjson.dumps(chunk) + b"\n\n"
    quick, slow = Gate(), Gate()
    verdict = quick.feed(event)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "_lone_choice", lambda body: None)
        patch.setattr(gate, "lone_data", lambda block: None)
        assert slow.feed(event) is verdict
    assert (quick.held, quick.error) == (slow.held, slow.error)
    assert (quick.finished, quick.chunks) == (slow.finished, slow.chunks)


@given(_completions())
@settings(max_examples=1000)
def test_the_quick_look_at_an_an_answer_says_no_more_than_the_slow_one(body: dict[str, Any]) -> None:
    """What is taken for a plain answer at a glance is one by every rule."""
    at_a_glance = judge_completion(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "_lone_choice", lambda body: None)
        assert judge_completion(body) == at_a_glance
