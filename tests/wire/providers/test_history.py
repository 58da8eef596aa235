"""Conversations that crossed vendors: whatever came before, what is sent is valid."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.wire.providers.history import NO_RESULT, read_arguments, read_conversation, result_text
from llm_router.wire.providers.reasoning import pack_thinking
from tests.wire.providers.anthropic_body import judge
from tests.wire.providers.dialects import ADAPTERS, TRANSLATED, make_chat, sent


def _call(id: str | None, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _user(text: str = "Hi") -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(*calls: dict[str, Any], content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {})}


def _tool(id: str | None, text: str = "ok", **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": text, **({} if id is None else {"tool_call_id": id}), **fields}


def test_ids_are_made_acceptable_and_unique() -> None:
    """Foreign characters, overlong ids and ids used twice are rewritten on both sides."""
    long = "x" * 100
    read = read_conversation(
        [_user(), _assistant(_call("a.b:1")), _tool("a.b:1", "1"), _assistant(_call("a.b:1"), _call(long)),
         _tool(long, "3"), _tool("a.b:1", "2"), _user()]
    )  # fmt: skip
    ids = [call.id for turn in read.turns for call in turn.calls]
    assert ids == ["a_b_1", "a_b_1_2", "x" * 64]
    results = [(result.call.id, result_text(result)) for turn in read.turns for result in turn.results]
    assert results == [("a_b_1", "1"), ("a_b_1_2", "2"), ("x" * 64, "3")]


def test_parallel_calls_with_one_id_keep_their_results_apart() -> None:
    """Some providers give every parallel call the same id; results then follow the order of the calls."""
    read = read_conversation([_user(), _assistant(_call("a"), _call("a")), _tool("a", "1"), _tool("a", "2")])
    assert [result_text(result) for result in read.turns[-1].results] == ["1", "2"]


def test_a_result_too_many_goes_to_the_first_of_its_calls() -> None:
    """Where all calls of an id have their results, a further one takes the place of the first."""
    read = read_conversation([_user(), _assistant(_call("a"), _call("a")), *(_tool("a", text) for text in "123")])
    assert [result_text(result) for result in read.turns[-1].results] == ["3", "2"]


def test_numbers_of_ids_pass_over_those_that_are_taken() -> None:
    """A number that makes an id unique is no other call's id, however long the ids are."""
    long = "x" * 64
    read = read_conversation([_user(), _assistant(*(_call(id) for id in ("a", "a_2", "a", "a", long, long, long)))])
    ids = [call.id for call in read.turns[1].calls]
    assert ids[:4] == ["a", "a_2", "a_3", "a_4"]
    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) == 64


_MANY = 20_000


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([_user(), _assistant(*[_call("a")] * _MANY)], id="calls with one id"),
        pytest.param([_assistant(_call("a")), _tool("a")] * _MANY, id="a long loop whose calls have one id"),
        pytest.param(
            [_assistant(*map(_call, map(str, range(_MANY)))), *map(_tool, map(str, range(_MANY)))], id="parallel calls"
        ),
        pytest.param([_assistant(*[_call(None)] * _MANY), *[_tool(None)] * _MANY], id="parallel calls without ids"),
        pytest.param([_assistant(content="a")] * 5 * _MANY, id="answers that follow one another"),
    ],
)
def test_long_conversations_are_gone_through_once(messages: list[dict[str, Any]]) -> None:
    """However many calls, results and answers there are, and whatever they are called, nobody else waits for long."""
    began = time.process_time()
    read_conversation(messages)
    assert time.process_time() - began < 5.0


def test_results_find_calls_whose_id_was_rewritten() -> None:
    """Agents strip characters from ids, sometimes on one side only; the oldest form has names instead of ids."""
    read = read_conversation([_user(), _assistant(_call("call_a"), _call("call_b")), _tool("callb", "2")])
    assert [result_text(result) for result in read.turns[-1].results] == [NO_RESULT, "2"]
    legacy = [
        _user(),
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "9"},
    ]
    read = read_conversation(legacy)
    assert [result_text(result) for result in read.turns[-1].results] == ["9"]


def test_a_result_that_nobody_asked_for_is_kept_as_words() -> None:
    """Clients cut old turns away and leave the results; the text must not be lost."""
    read = read_conversation([_user(), _tool("gone", "42"), _assistant(content="So")])
    assert [part["text"] for part in read.turns[0].parts] == ["Hi", "Result of an earlier tool call:", "42"]


def test_turns_alternate_and_begin_with_the_user() -> None:
    """Neighbours of one role are joined, empty assistant turns vanish, empty user turns stay as a dot."""
    read = read_conversation(
        [_assistant(content="Hello"), _user(" "), _assistant(content=""), _user("a"), _user("b"),
         _assistant(content="x"), _assistant(content="y")]
    )  # fmt: skip
    assert [turn.role for turn in read.turns] == ["user", "assistant", "user", "assistant"]
    assert [[part["text"] for part in turn.parts] for turn in read.turns] == [
        ["."],
        ["Hello"],
        [".", "a", "b"],
        ["x", "y"],
    ]


def test_an_open_call_is_answered_even_at_the_end() -> None:
    """A conversation may break off behind a call."""
    read = read_conversation([_user(), _assistant(_call("a"))])
    assert read.turns[-1].results[0].failed


def test_foreign_thinking_is_dropped_and_refusals_are_words() -> None:
    """Unsigned thinking of another vendor is no content; what a model refused to say is."""
    read = read_conversation(
        [_user(), {"role": "assistant", "content": None, "refusal": "No.", "reasoning_content": "Hm"}]
    )
    assert read.turns[1].parts[0]["text"] == "No."
    assert read.turns[1].thinking == ()
    assert read.turns[1].reasoning == "Hm"


@pytest.mark.parametrize("dialect", TRANSLATED)
def test_thoughts_among_the_parts_stop_no_candidate(dialect: str) -> None:
    """Histories of Mistral's models, and of clients that keep Anthropic's blocks, have them in the content."""
    thoughts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, {"type": "redacted_thinking"}]
    said = {"role": "assistant", "content": [*thoughts, {"type": "text", "text": "Yes"}]}
    chat = make_chat("Hi", said, {"role": "assistant", "content": thoughts}, "Go on")
    assert ADAPTERS[dialect].misfit(chat) is None
    assert sent(dialect, chat) == sent(dialect, make_chat("Hi", {"role": "assistant", "content": "Yes"}, "Go on"))
    assert "thinking" not in str(sent("google_compat", chat)["messages"])


def test_signed_thoughts_among_the_parts_come_back() -> None:
    """A tool loop keeps its thinking where the client kept Anthropic's blocks in the content."""
    signed = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    turn = {**_assistant(_call("a")), "content": [signed, {"type": "text", "text": "So"}]}
    assert read_conversation([_user(), turn, _tool("a")]).turns[1].thinking == (signed,)


@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
def test_what_we_gave_to_the_client_for_another_vendor_stays_with_us(dialect: str) -> None:
    """Signed thinking that only Anthropic can read does not travel to OpenAI-shaped providers; entries of theirs do."""
    ours = pack_thinking([{"type": "thinking", "thinking": "Hm", "signature": "s"}], "a")
    theirs = {"type": "reasoning.text", "text": "So", "format": "unknown"}
    first = {**_assistant(_call("a")), "reasoning_details": ours}
    second = {**_assistant(_call("b")), "reasoning_details": [*ours, theirs]}
    sent_messages = sent(dialect, make_chat("Hi", first, _tool("a"), second, _tool("b")))["messages"]
    assert "reasoning_details" not in sent_messages[1]
    assert sent_messages[3]["reasoning_details"] == [theirs]
    assert sent_messages[3]["tool_calls"] == second["tool_calls"]


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("", {}), (None, {}), ("  ", {}), ("{}", {}), ('{"a":1}', {"a": 1}), ({"a": 1}, {"a": 1}),
        ("[1]", {"_raw": "[1]"}), ("null", {"_raw": "null"}), ('{"a":', {"_raw": '{"a":'}), (7, {}),
    ],
)  # fmt: skip
def test_arguments_are_an_object(arguments: Any, value: Any) -> None:
    """Vendors take nothing else; text that cannot be read is kept (trap 22)."""
    assert read_arguments(arguments) == value


_IDS = st.sampled_from(["a", "b", "call_1", "x.y", "", "é"])
_TEXTS = st.sampled_from(["", " ", "words", "é\u2028", '{"a": 1}'])
_PARTS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, _TEXTS),
    st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}),
    st.just({"type": "image_url", "image_url": "https://example.com/a"}),
    st.just({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}),
    st.just({"type": "unknown"}),
    st.just({"type": "text"}),
)
_CONTENTS = st.one_of(_TEXTS, st.lists(_PARTS, max_size=3), st.just({"a": 1}), st.just(7))
_CALLS = st.lists(
    st.one_of(
        st.builds(lambda id, arguments: _call(id, "f", arguments), _IDS, st.sampled_from(["{}", '{"a":1}', "{", "[]"])),
        st.just({"id": "z"}),
        st.just({"function": {"name": ""}}),
        st.just({"function": {"name": "g", "arguments": {"k": "v"}}}),
    ),
    max_size=3,
)
_MESSAGES = st.one_of(
    st.builds(lambda role, content: {"role": role, "content": content},
              st.sampled_from(["system", "developer", "user", "critic"]), _CONTENTS),
    st.builds(lambda content, calls: {"role": "assistant", "content": content, "tool_calls": calls},
              st.one_of(st.none(), _CONTENTS), _CALLS),
    st.builds(lambda id, content: {"role": "tool", "tool_call_id": id, "content": content}, _IDS, _CONTENTS),
    st.just({"role": "function", "name": "f", "content": "x"}),
    st.just({"role": "assistant", "content": None, "reasoning_details": [7, {"type": "reasoning.encrypted"}]}),
)  # fmt: skip


@given(st.lists(_MESSAGES, min_size=1, max_size=10))
@settings(max_examples=300, deadline=None)
def test_any_history_becomes_a_valid_one(messages: list[dict[str, Any]]) -> None:
    """Turns alternate, begin with the user, and each call has its one result in the very next turn."""
    turns = read_conversation(messages).turns
    assert turns[0].role == "user"
    assert all(one.role != other.role for one, other in pairwise(turns))
    ids = [call.id for turn in turns for call in turn.calls]
    assert len(set(ids)) == len(ids)
    for turn, after in zip(turns, [*turns[1:], None], strict=True):
        assert turn.parts or turn.calls or turn.results
        if turn.calls:
            assert after is not None
            assert [result.call for result in after.results] == list(turn.calls)


@given(st.lists(_MESSAGES, min_size=1, max_size=8), st.sampled_from(TRANSLATED), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_history_can_be_sent_to_any_vendor(messages: list[dict[str, Any]], dialect: str, stream: bool) -> None:
    """No exception, and a body that the vendor's own types accept, whoever wrote the history."""
    chat = make_chat(*messages, stream=stream)
    ADAPTERS[dialect].misfit(chat)
    body = sent(dialect, chat)
    if dialect == "anthropic":
        judge(body)
    assert orjson.dumps(body)


def test_a_signature_without_a_call_is_nobodys() -> None:
    """A client may keep what a model thought and cut the call out of its history."""
    details = [{"format": "google-gemini-v1", "id": "c", "data": "signature"}]
    read = read_conversation([_user(), {**_assistant(content="Hello"), "reasoning_details": details}, _user()])
    assert [turn.calls for turn in read.turns] == [(), (), ()]


@pytest.mark.parametrize("odd", [5, None, "", ["a"]])
def test_a_result_of_no_id_is_that_of_the_call(odd: Any) -> None:
    """What a client writes in the place of an id may be anything; the call that waits gets its result."""
    read = read_conversation([_user(), _assistant(_call("a")), {**_tool(None, "1"), "tool_call_id": odd}])
    assert [result_text(result) for result in read.turns[-1].results] == ["1"]


def test_a_tool_loop_begins_behind_the_persons_last_words() -> None:
    """Neither results of tools nor what an agent remarks right behind them are the person's own words."""
    loop = [_assistant(_call("a")), _tool("a"), _assistant(_call("b")), _tool("b")]
    assert read_conversation([_user(), _assistant(content="Hello"), _user(), *loop]).loop_start == 3
    assert read_conversation([_user(), *loop, _user("Remember the rules.")]).loop_start == 1
    assert read_conversation([_user(), *loop, _assistant(content="Done"), _user()]).loop_start == 7
