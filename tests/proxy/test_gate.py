"""The commit gate: meaning commits, not bytes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.errors import FailureKind
from llm_router.proxy import gate
from llm_router.proxy.gate import (
    Gate,
    Screened,
    Verdict,
    finished_choices,
    is_plain,
    judge_completion,
    screen,
    unfinished_event,
)
from llm_router.wire.sse import raw_events

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
        b'data: [{"error":{"message":"boom"}}]\n\n',
        b'data: {"object":"error","message":"boom"}\n\n',
        b'event: error\ndata: {"message":"boom"}\n\n',
        b'data: {"type":"error","error":{"type":"overloaded_error","message":"boom"}}\n\n',
        b'data: {"error":{"message":"boom"},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}\n\n',
        b'data: {"choices":[{"error":{"code":502,"message":"boom"},"delta":{},"finish_reason":"error"}]}\n\n',
    ],
)
def test_errors_reject_with_their_words(event: bytes) -> None:
    """An error in any dialect rejects the stream and its words are kept."""
    gate = Gate()
    assert gate.feed(ROLE + event) is Verdict.REJECT
    assert gate.failure().kind is FailureKind.UPSTREAM_ERROR
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


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r", b"\r\n", b"\n\r", b"\r\n\r"])
def test_an_event_without_its_blank_line_gets_one(ending: bytes) -> None:
    """One blank line of the same kind, whatever of it came; half an event is nothing."""
    event = b'data: {"a":1}'
    whole = unfinished_event(event + ending)
    assert whole.startswith(event + ending)
    assert raw_events(whole + b"x") == [whole, b"x"]
    assert unfinished_event(event[:-1] + ending) == b""


def test_an_endless_preamble_is_rejected() -> None:
    """What is held has a bound."""
    gate = Gate()
    verdicts = {gate.feed(b": " + b"x" * 100_000 + b"\n\n") for _ in range(12)}
    assert Verdict.REJECT in verdicts
    assert gate.failure().kind is FailureKind.INVALID_RESPONSE


def test_screen_stops_at_done_and_at_errors() -> None:
    """After the commit point nothing behind [DONE] or an error event passes."""
    done = screen(TEXT + DONE + b": late\n\n")
    assert (done.passed, done.done) == (TEXT + DONE, True)
    cut = screen(TEXT + b'data: {"error":{"message":"x"}}\n\n' + TEXT)
    assert cut.passed == TEXT
    assert cut.error is not None
    assert cut.error.message == "x"


@pytest.mark.parametrize(
    "before", [b"", STOP, TEXT, b": ping\n\n", TEXT.replace(b"Hi", b"[DONE]"), b"data: x\n\n" + STOP]
)
@pytest.mark.parametrize("behind", [b"", b": late\n\n", DONE, b"data: [DONE]\r\n\r\n"])
def test_screen_ends_at_the_first_done(before: bytes, behind: bytes) -> None:
    """Whatever stands before it and behind it, the first event that says so is the end."""
    assert screen(before + DONE + behind) == Screened(before + DONE, done=True)


@pytest.mark.parametrize("unit", [b"\r", b"\r\n", b"data: {}\r\n\r\n"])
def test_screen_cuts_nothing_up_that_can_hold_no_end(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank lines without end, or a stream of other line ends, must not hold up the streams beside it."""
    monkeypatch.setattr(gate, "raw_events", None)
    block = unit * 1000
    assert screen(block) == Screened(block)


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_event_of_values_without_end_is_not_parsed(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes of empty lists take a second and hundreds of megabytes to parse, and say nothing; an image is read."""
    monkeypatch.setattr(gate, "_MOST_VALUES", 1000)
    monkeypatch.setattr(gate, "_BIG_BYTES", 4000)
    lists = b'data: {"choices":[{"delta":{"content":"x"}}],"error":[' + b"[]," * 2000 + b"[]]}\n\n"
    image = b'data: {"choices":[{"delta":{"content":"' + b"A" * 5000 + b'"}}]}\n\n'
    if where == "before":
        assert Gate().feed(lists) is Verdict.HOLD
        assert Gate().feed(image) is Verdict.COMMIT
    else:
        assert screen(lists) == Screened(lists)
        assert screen(image.replace(b'"choices"', b'"error":"no","choices"')).error is not None


def test_screen_lets_the_words_pass() -> None:
    """Text that merely talks about errors or [DONE] is untouched, and so is a broken event."""
    block = b'data: {"choices":[{"delta":{"content":"say \\"error\\" or [DONE]"}}]}\n\ndata: {"error": broken\n\n'
    assert screen(block).passed == block


def test_every_choice_must_finish() -> None:
    """With n=2 one finished choice is half an answer."""
    one = b'data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}\n\n'
    assert finished_choices([one, TEXT], 1)
    assert not finished_choices([one, TEXT], 2)
    assert finished_choices([STOP, one, TEXT], 2)


@pytest.mark.parametrize("space", [b"", b" ", b"\ndata: ", b" \t "])
def test_a_finish_is_found_however_it_is_spaced(space: bytes) -> None:
    """JSON may have white space around a colon, and an event may be of several lines."""
    assert finished_choices([STOP.replace(b'"finish_reason":', b'"finish_reason"' + space + b":" + space)], 1)
    assert not finished_choices([TEXT.replace(b'"finish_reason":', b'"finish_reason"' + space + b":" + space)], 1)
    assert not finished_choices([TEXT.replace(b'"Hi"', b'"say \\"finish_reason\\": \\"stop\\""')], 1)


def test_a_long_answer_that_was_cut_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk of it says that nothing has finished: to read megabytes of that would hold all other streams up."""
    monkeypatch.setattr(gate, "iter_events", None)
    assert not finished_choices([TEXT, TEXT.replace(b":null", b": null"), ROLE * 3], 1)


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


@pytest.mark.parametrize("blank", [b"\r\r", b"\r\n\r\n", b"\n\n", b"\r\n\r", b"\n\r"])
@pytest.mark.parametrize("second", [b"data: [DONE]", b"event: error\ndata: {}", b'data: {"error": {}}'])
@pytest.mark.parametrize("text", [b"", b"x" * 5000], ids=["short", "long"])
def test_no_line_end_hides_an_event_behind_another(blank: bytes, second: bytes, text: bytes) -> None:
    """Whatever ends its lines, an event that needs a closer look is not passed on as one line of text."""
    assert not is_plain(b'data: {"choices": [], "x": "' + text + b'"}' + blank + second + b"\n\n")


@pytest.mark.parametrize("text", [b"", b"x" * 5000], ids=["short", "long"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n", b"\n\n"])
def test_nearly_all_events_are_plain(text: bytes, end: bytes) -> None:
    """One event or several, whole and of plain line feeds."""
    event = b'data: {"choices": [], "x": "' + text + b'"}' + end
    assert is_plain(event) is (end == b"\n\n")
    assert is_plain(event + event) is (end == b"\n\n")


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
