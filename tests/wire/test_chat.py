"""Reading and rewriting chat requests."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.errors import ApiError
from llm_router.wire.chat import TooDeep, dump, parse_chat

GOOD = {"model": "router", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'"x"', None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":"","messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":7,"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":"router"}', "messages"),
        (b'{"model":"router","messages":[]}', "messages"),
        (b'{"model":"router","messages":"x"}', "messages"),
        (b'{"model":"router","messages":["x"]}', "messages[0]"),
        (b'{"model":"router","messages":[{"content":"x"}]}', "messages[0].role"),
        (b'{"model":"router","messages":[{"role":5,"content":"x"}]}', "messages[0].role"),
        (b'{"model":"router","messages":[{"role":"user"}]}', "messages[0].content"),
        (b'{"model":"router","messages":[{"role":"user","content":"x"}],"stream":"yes"}', "stream"),
        (b'{"model":"router","messages":[{"role":"user","content":"x"}],"stream":1}', "stream"),
    ],
)
def test_a_malformed_request_is_refused_by_name(body: bytes, param: str | None) -> None:
    """Every malformed body is a 400 that names the field."""
    with pytest.raises(ApiError) as caught:
        parse_chat(body)
    assert caught.value.status == 400
    assert caught.value.param == param


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_a_body_of_nothing_is_called_empty(body: bytes) -> None:
    """Whoever forgot to send one learns more from that than from a parser's words."""
    with pytest.raises(ApiError, match="is empty"):
        parse_chat(body)


def test_an_assistant_turn_needs_no_content() -> None:
    """Assistant turns may carry tool calls alone."""
    body = {**GOOD, "messages": [{"role": "assistant", "tool_calls": []}, {"role": "user", "content": "x"}]}
    assert len(parse_chat(orjson.dumps(body)).messages) == 2


@pytest.mark.parametrize(
    "text",
    [
        '{"model":"router","messages":[{"role":"user","content":"hi"}],"x":1.10,"big":123456789012345678901234567890}',
        '{ "messages" : [{"role":"user","content":"say \\"model\\": \\"router\\""}] , "model" :  "router" }',
        '{"messages":[{"role":"user","content":"é\\u00e9"}],"model":"router","tools":[]}',
        '{"model":"router","messages":[{"role":"user","content":"hi"}],"tools":[{"model":{"model":1.10}}]}',
        '{"messages":[{"role":"user","content":"hi \\ud83d"}],"model":"router","x":1.10}',
        '{"messages":[{"role":"user","content":"' + "long " * 200 + '"}],"model":"router","x":1.10}',
    ],
)
def test_only_the_model_is_replaced(text: str) -> None:
    """Everything but the model travels to the byte, spacing and number formats included."""
    raw = text.encode()
    rewritten = parse_chat(raw).with_model('m/"x"')
    assert json.loads(rewritten)["model"] == 'm/"x"'
    assert rewritten.replace(rb'"m/\"x\""', b'"router"') == raw


@pytest.mark.parametrize(
    "text",
    [
        '{"model":"router","metadata":{"model":"router"},"messages":[{"role":"user","content":"hi"}]}',
        '{"model":"x","model":"router","messages":[{"role":"user","content":"hi"}]}',
        '{"mod\\u0065l":"router","messages":[{"role":"user","content":"hi"}],"m":{"model":"router"}}',
    ],
)
def test_a_second_model_key_is_left_alone(text: str) -> None:
    """Only the top-level model changes, also where the text holds others or spells it with escapes."""
    rewritten = json.loads(parse_chat(text.encode()).with_model("new"))
    expected = {**json.loads(text), "model": "new"}
    assert rewritten == expected


def test_a_model_spelled_with_escapes_is_replaced_where_it_stands() -> None:
    """Some JSON writers escape slashes."""
    raw = rb'{"x":1.10,"model":"openai\/gpt","messages":[{"role":"user","content":"hi"}]}'
    chat = parse_chat(raw)
    assert chat.model == "openai/gpt"
    assert chat.with_model("new") == raw.replace(rb"openai\/gpt", b"new")


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"


MODEL_KEYS = st.sampled_from(["model", "mod\\u0065l", "\\u006dodel"])
OTHER_KEYS = st.sampled_from(["x", 'a\\"model', "metadata"])
NAMES = st.sampled_from(['"router"', '"a"', '"\\u0072outer"', '"model"'])
VALUES = st.recursive(
    NAMES | st.sampled_from(["1.10", "null", r'"\ud83d"']),
    lambda inner: (
        st.lists(st.tuples(MODEL_KEYS | OTHER_KEYS, inner), max_size=3).map(_object) | inner.map("[ {} ]".format)
    ),
    max_leaves=5,
)
MODELS = st.tuples(MODEL_KEYS, NAMES)
OTHERS = st.tuples(OTHER_KEYS, VALUES)


@given(st.lists(MODELS | OTHERS, max_size=3), MODELS, st.lists(MODELS | OTHERS, max_size=3))
def test_wherever_model_stands_it_is_read_and_replaced(before: list[Any], model: Any, after: list[Any]) -> None:
    """Doubled, nested, spelled with escapes: the model is what a JSON parser takes for it, and nothing else changes."""
    text = _object([*before, ("messages", '[{"role": "user", "content": "hi"}]'), model, *after])
    expected = json.loads(text)
    chat = parse_chat(text.encode())
    assert (chat.model, chat.body) == (expected["model"], expected)
    assert json.loads(chat.with_model("new")) == {**expected, "model": "new"}


def test_lone_surrogates_pass() -> None:
    """Half an emoji, as cut by JavaScript clients, is carried on, not refused."""
    raw = b'{"model":"router","messages":[{"role":"user","content":"\\ud83d x"}]}'
    assert b"\\ud83d x" in parse_chat(raw).with_model("a")


@pytest.mark.parametrize("more", [b'"x":NaN', b'"x":-Infinity', b'"x":"' + b"y" * 1_000_000 + b'"'])
def test_the_slow_parser_takes_no_more_than_the_quick_one(more: bytes) -> None:
    """A lone surrogate opens no way for what is no JSON, nor for megabytes that would be parsed slowly."""
    with pytest.raises(ApiError) as refused:
        parse_chat(b'{"model":"router","messages":[{"role":"user","content":"\\ud800"}],%b}' % more)
    assert refused.value.status == 400


def test_what_is_too_deep_to_be_written_is_told() -> None:
    """JSON can be read that cannot be written again; who asks for that must be able to tell."""
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TooDeep):
        dump({"x": deep})


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_completion_tokens": 5, "max_tokens": 7}, 5),
        ({"max_completion_tokens": None, "max_tokens": 7}, 7),
        ({"max_completion_tokens": "5", "max_tokens": 7}, 7),
        ({"max_completion_tokens": True, "max_tokens": 7}, 7),
        ({"max_tokens": 7.5}, None),
        ({}, None),
    ],
)
def test_the_newer_word_for_the_output_goes_before_the_older(fields: dict[str, Any], limit: int | None) -> None:
    """Unless it is no number of tokens."""
    body = {"model": "router", "messages": [{"role": "user", "content": "x"}], **fields}
    assert parse_chat(json.dumps(body).encode()).output_limit == limit


def test_long_names_of_models_are_not_remembered() -> None:
    """A thousand bad requests of megabytes must not stay in memory."""
    tracemalloc.start()
    try:
        for number in range(50):
            with pytest.raises(ApiError, match="at most 256 characters"):
                parse_chat(json.dumps({**GOOD, "model": f"{number}" + "m" * 200_000}).encode())
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_name_that_never_ends_is_soon_refused() -> None:
    """Whoever sends as much as a body may have holds nobody's stream up with it."""
    began = time.process_time()
    with pytest.raises(ApiError, match="not valid JSON"):
        parse_chat(b'{"model":"' + b"a" * 32_000_000)
    assert time.process_time() - began < 0.8


def test_a_long_text_named_model_is_not_the_model() -> None:
    """Only the top-level model is replaced where one before it is too long to be searched through."""
    tool = '{"x":{"model":"' + "\\u00e9" * 9000 + "a" * 9000 + '"}}'
    text = (
        f'{{"tools":[{tool}],"m":{{"model":"router"}},"model":"router","messages":[{{"role":"user","content":"x"}}]}}'
    )
    assert json.loads(parse_chat(text.encode()).with_model("new")) == {**json.loads(text), "model": "new"}
