"""Streams read in runs of like events say the same as streams read event by event."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire import answer
from llm_router.wire.answer import read_completion, read_stream

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
            event({}, "stop"),
        ]
    )


@pytest.mark.parametrize("seed", range(60))
def test_runs_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands between the like events, text, usage, finish and model are those of the plain reading."""
    rng = random.Random(seed)
    events = []
    for _ in range(rng.randrange(1, 6)):
        events += [odd(rng) for _ in range(rng.randrange(3))]
        events += [event({"content": rng.choice(TEXTS)}) for _ in range(rng.randrange(12))]
    events += [event({}, "stop"), b"data: [DONE]\n\n"]
    quick = read_stream(events)
    monkeypatch.setattr(answer, "_find_run", lambda piece: None)
    assert quick == read_stream(events)


def test_a_surrogate_pair_in_two_events_is_one_character() -> None:
    """Halves of a character that were sent apart are counted as that character."""
    half = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
    blocks = [half % b"a", half % b"b", half % b"\\ud83d", half % b"\\ude00", half % b"c"]
    assert read_stream(blocks).text == "ab\N{GRINNING FACE}c"


_ODD = st.sampled_from([None, "", "text", 0, 2, [], ["x"], {}, {"prompt_tokens": 3, "completion_tokens": 4}])
_FIELDS = dict.fromkeys(("content", "role", "refusal", "reasoning_content", "tool_calls", "images", "audio"), _ODD)
_CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "message": _ODD | st.fixed_dictionaries({}, optional=_FIELDS),
        **dict.fromkeys(("finish_reason", "index", "usage", "delta"), _ODD),
    },
)


@given(
    st.fixed_dictionaries(
        {}, optional={"choices": st.lists(_CHOICES, max_size=2) | _ODD, "model": _ODD, "usage": _ODD, "object": _ODD}
    )
)
def test_completions_read_in_one_step_say_the_same(completion: dict[str, Any]) -> None:
    """The short way for plain completions and the long one agree, whatever the fields hold."""
    body = orjson.dumps(completion)
    quick = read_completion(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer, "_plain_answer", lambda completion: None)
        assert read_completion(body) == quick
