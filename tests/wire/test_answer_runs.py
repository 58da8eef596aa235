"""Streams read in runs of like events say the same as streams read event by event."""

from __future__ import annotations

import random
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.wire import answer
from llm_router.wire.answer import read_completion, read_stream
from llm_router.wire.runs import find_run

TEXTS = [
    "Hello",
    " world",
    '"quoted" \\ ',
    "line\nbreak",
    "é ✓ 😀",
    "",
    "data: {",
    '"content":"',
    "[DONE]",
    "}\\",
    "x" * 50,
]

PADDINGS = ["", "aB3", "x" * 12, '"', "\\", "\n"]


def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"id": "c", "model": "m", "choices": [choice], **more}) + b"\n\n"


def odd(rng: random.Random) -> bytes:
    """An event that is not like the others."""
    call = {"index": 0, "function": {"name": "f", "arguments": '{"content":"x"}'}}
    return rng.choice(
        [
            event({"role": "assistant", "content": "Yes"}),
            event({"reasoning_content": "thought"}),
            event({"content": "text", "reasoning_content": "thought"}),
            event({"tool_calls": [call]}),
            event({"content": "obscured"}, obfuscation="x" * rng.randrange(9)),
            event({"content": "late"}, usage={"prompt_tokens": 3, "completion_tokens": 4}),
            b"data: " + orjson.dumps({"choices": [{"index": 1, "delta": {"content": "other"}}]}) + b"\n\n",
            b": a comment\n\n",
            b"data: {broken\n\n",
            event({"content": "no end"}).replace(b"no end", rng.choice([b"no end\\", b'no "end', b"\\\\\\"])),
            event({}, "stop"),
        ]
    )


@pytest.mark.parametrize("piece", [b'{"content":"x"}', b'x"content":"y"', b'\n{"content":"x"}', b'"content":"'])
def test_what_is_no_event_is_no_run(piece: bytes) -> None:
    """A whole answer, or the middle of one, is looked through once, and left to the parser."""
    assert find_run(piece) is None
    assert find_run(piece * 5) is None


def test_an_event_of_the_same_length_is_no_part_of_a_run() -> None:
    """Another choice differs by one digit: its words belong behind all those of the first one."""
    events = [event({"content": word}) for word in "abcdefgh"]
    events[4] = events[4].replace(b'"index":0', b'"index":1')
    assert read_stream(events).text == "abcdfghe"


@pytest.mark.parametrize("seed", range(200))
def test_runs_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands between the like events, text, usage, finish and model are those of the plain reading."""
    rng = random.Random(seed)
    events = []
    for _ in range(rng.randrange(1, 6)):
        events += [odd(rng) for _ in range(rng.randrange(3))]
        padded = rng.random() < 0.5
        for _ in range(rng.randrange(12)):
            padding = {"obfuscation": rng.choice(PADDINGS)} if padded else {}
            events.append(event({"content": rng.choice(TEXTS)}, **padding))
    events += [event({}, "stop"), b"data: [DONE]\n\n"]
    quick = read_stream(events)
    monkeypatch.setattr(answer, "find_run", lambda piece: None)
    assert quick == read_stream(events)


@pytest.mark.parametrize("more", [{}, {"usage": None}])
@pytest.mark.parametrize("padding", ["", "obfuscation", "p"])
def test_what_providers_send_is_read_as_a_run(more: dict[str, Any], padding: str) -> None:
    """Events like those of a usual stream, with OpenAI's or Mistral's padding and without, are not parsed each."""
    words = [f"word {number}\n" for number in range(20)]
    events = [event({"role": "assistant", "content": ""}, **more)]
    for number, word in enumerate(words):
        events.append(event({"content": word}, **more, **({padding: "abcd"[: number % 4]} if padding else {})))
    run = find_run(b"".join([*events, event({}, "stop", **more), b"data: [DONE]\n\n"]))
    assert run is not None
    assert run.text == "".join(words)
    assert run.end - run.start == sum(map(len, events[1:]))


@pytest.mark.parametrize("padding", [b'a","usage":{"completion_tokens":7},"b":"', b"a\n\n: b", b"\\"])
def test_what_is_not_padding_alone_is_parsed(padding: bytes) -> None:
    """Where more than padding stands in its place in some event, nothing of that event is lost."""
    events = [event({"content": "word"}, obfuscation="PAD") for _ in range(9)]
    events[4] = events[4].replace(b"PAD", padding)
    assert find_run(b"".join(events)) is None


def test_a_line_that_is_no_event_is_searched_once() -> None:
    """A long line with the word for a text a hundred thousand times takes no time to speak of; what follows is read."""
    began = time.process_time()
    for _ in range(5):
        line = b'data:{"a":[' + b'{"content":"x"},' * 120_000 + b"1]}\n\n"
        assert read_stream([line, *(event({"content": "word"}) for _ in range(9))]).text == "word" * 9
    assert time.process_time() - began < 4.0


def test_a_surrogate_pair_in_two_events_is_one_character() -> None:
    """Halves of a character that were sent apart are counted as that character."""
    half = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
    blocks = [half % b"a", half % b"b", half % b"\\ud83d", half % b"\\ude00", half % b"c"]
    assert read_stream(blocks).text == "ab\N{GRINNING FACE}c"


_ODD = st.sampled_from([None, "", "text", 0, 2, [], ["x"], {}, {"prompt_tokens": 3, "completion_tokens": 4}])


def _bent(plain: dict[str, Any], *more: str) -> st.SearchStrategy[dict[str, Any]]:
    """`plain` with some of its fields, or of `more`, changed."""
    return st.dictionaries(st.sampled_from([*plain, *more]), _ODD, max_size=2).map(lambda odd: {**plain, **odd})


@st.composite
def _completions(draw: st.DrawFn) -> dict[str, Any]:
    """Plain completions, and those that are not quite."""
    said = ("refusal", "reasoning_content", "tool_calls", "images", "audio")
    message = draw(_bent({"role": "assistant", "content": "Hello"}, *said))
    choice = draw(_bent({"index": 0, "message": message, "finish_reason": "stop"}, "usage", "delta"))
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    return draw(_bent({"model": "m", "choices": [choice], "usage": usage}, "object"))


@given(_completions())
@settings(max_examples=1000)
def test_completions_read_in_one_step_say_the_same(completion: dict[str, Any]) -> None:
    """The short way for plain completions and the long one agree, whatever the fields hold."""
    body = orjson.dumps(completion)
    quick = read_completion(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer, "_plain_answer", lambda completion: None)
        assert read_completion(body) == quick
