"""What the stream machines do beyond the recorded answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.errors import AttemptFailed
from llm_router.wire.sse import raw_events
from tests.wire.providers.dialects import (
    ADAPTERS,
    TOOL,
    TRANSLATED,
    make_chat,
    make_target,
    read_stream,
    read_whole,
    sent,
    stream_path,
    translate,
    whole_path,
)


def _sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in events)


def _start(**usage: int) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "m", "model": "claude", "usage": usage}}


def _block(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _end(reason: str | None, **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


_STOP = {"type": "message_stop"}
_PING = {"type": "ping"}
_BLOCK_STOP = {"type": "content_block_stop", "index": 0}


def test_pings_become_comments_after_the_first_meaning_only() -> None:
    """Agents with idle timers see life; before the commit point nothing may look like an answer (trap 6)."""
    data = _sse(_start(), _PING, _block(0, type="text", text=""), _PING, _delta(0, type="text_delta", text="a"), _PING)
    events = raw_events(translate("anthropic", data))
    assert events[-1] == b": ping\n\n"
    assert sum(b"ping" in event for event in events) == 1


def test_a_tool_call_whose_arguments_come_at_once() -> None:
    """Some hosts put the arguments into the first event of the call and stream none (trap 6)."""
    call = _block(0, type="tool_use", id="t", name="f", input={"a": 1})
    read = read_stream(translate("anthropic", _sse(_start(), call, _BLOCK_STOP, _end("tool_use"), _STOP)))
    assert read.calls == [{"id": "t", "name": "f", "arguments": '{"a":1}'}]


def test_calls_of_a_host_that_gives_no_ids_get_their_own() -> None:
    """What only resembles Anthropic may leave ids out: results could not be told apart without."""
    blocks = [_block(index, type="tool_use", name="f", input={"a": index}) for index in (0, 1)]
    stops = [_BLOCK_STOP, {**_BLOCK_STOP, "index": 1}]
    streamed = read_stream(translate("anthropic", _sse(_start(), *blocks, *stops, _end("tool_use"), _STOP)))
    contents = [{"type": "tool_use", "name": "f", "input": {"a": index}} for index in (0, 1)]
    body = orjson.dumps({"id": "m", "content": contents, "stop_reason": "tool_use"})
    whole = ADAPTERS["anthropic"].completion(make_chat(stream=False), make_target("anthropic"), body)
    for read in (streamed, read_whole(whole.body)):
        ids = [call["id"] for call in read.calls]
        assert len(set(ids)) == 2
        assert all(isinstance(id, str) and id.isalnum() for id in ids)


def test_blocks_that_run_side_by_side_keep_apart() -> None:
    """A fragment belongs to the block that it names, whichever block began last."""
    first, second = (_block(number, type="tool_use", id=f"t{number}", name="f", input={}) for number in (0, 1))
    pieces = [_delta(number, type="input_json_delta", partial_json=f'{{"n":{number}}}') for number in (0, 1)]
    ends = [{"type": "content_block_stop", "index": number} for number in (0, 1)]
    read = read_stream(translate("anthropic", _sse(_start(), first, second, *pieces, *ends, _end("tool_use"), _STOP)))
    assert [(call["id"], call["arguments"]) for call in read.calls] == [("t0", '{"n":0}'), ("t1", '{"n":1}')]


def test_the_answer_of_a_forced_json_tool_is_text() -> None:
    """A client that asked for a schema gets the JSON as content, not a tool call that it does not know."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    chat, target = make_chat(response_format=wanted), make_target("anthropic", "claude-3-opus-20240229")
    call = _block(0, type="tool_use", id="t", name="json_answer", input={})
    pieces = [_delta(0, type="input_json_delta", partial_json=one) for one in ('{"a"', ":1}")]
    translator = ADAPTERS["anthropic"].translator(chat, target)
    assert translator is not None
    read = read_stream(translator.feed(_sse(_start(), call, *pieces, _BLOCK_STOP, _end("tool_use"), _STOP)))
    assert (read.text, read.calls, read.finish) == ('{"a":1}', [], "stop")
    block = {"type": "tool_use", "id": "t", "name": "json_answer", "input": {"a": 1}}
    whole = orjson.dumps({"id": "m", "content": [block], "stop_reason": "tool_use"})
    read = read_whole(ADAPTERS["anthropic"].completion(chat, target, whole).body)
    assert (read.text, read.calls, read.finish) == ('{"a":1}', [], "stop")


def test_cumulative_usage_is_not_added_up() -> None:
    """Later figures replace earlier ones; a figure that is left out or null stands (trap 7)."""
    late = {**_end("end_turn", output_tokens=9), "usage": {"output_tokens": 9, "input_tokens": None}}
    data = _sse(_start(input_tokens=5, output_tokens=1), _end(None, output_tokens=4), late, _STOP)
    usage = read_stream(translate("anthropic", data)).usage
    assert usage is not None
    assert (usage.input, usage.output) == (5, 9)


def test_an_end_without_a_stop_reason_is_a_cut() -> None:
    """Nothing is invented: no finish, no `[DONE]` (trap 5)."""
    read = read_stream(translate("anthropic", _sse(_start(), _delta(0, type="text_delta", text="a"), _STOP)))
    assert (read.text, read.finish, read.done) == ("a", None, False)


def test_a_host_that_leaves_out_the_last_event() -> None:
    """After the stop reason the answer is whole, of however many choices; its end is sent when the stream ends."""
    read = read_stream(translate("anthropic", _sse(_start(input_tokens=5), _end("end_turn", output_tokens=2))))
    assert (read.finish, read.done) == ("stop", True)
    assert read.usage is not None


@pytest.mark.parametrize("data", [b"boom", b'"boom"'])
def test_an_error_in_words_alone_is_one_too(data: bytes) -> None:
    """A gateway on the way may name the event and write its words as they are."""
    read = read_stream(
        translate(
            "anthropic",
            _sse(_start(), _delta(0, type="text_delta", text="Hi"))
            + b"event: error\ndata: "
            + data
            + b"\n\n"
            + _sse(_end("end_turn"), _STOP),
        )
    )
    assert read.error is not None
    assert (read.text, read.error["message"], read.done) == ("Hi", "boom", False)


@pytest.mark.parametrize("error", [{"message": "boom", "type": "x"}, "boom"])
def test_an_error_in_another_form_is_one_too(error: Any) -> None:
    """Gateways in front of Anthropic send OpenAI's form, without a name or a type of the event."""
    foreign = b"data: " + orjson.dumps({"error": error}) + b"\n\n"
    read = read_stream(translate("anthropic", _sse(_start()) + foreign))
    assert read.error is not None
    assert read.error["message"] == "boom"


def test_nothing_follows_an_error() -> None:
    """What a provider sends behind its error is not passed on."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    out = translate("anthropic", _sse(_start(), error, _delta(0, type="text_delta", text="a"), _end("end_turn"), _STOP))
    assert read_stream(out).text == ""
    assert b'finish_reason":"' not in out


def test_several_finishes_become_one() -> None:
    """Exactly one terminal chunk, and no text behind it."""
    data = _sse(_start(), _end("end_turn"), _delta(0, type="text_delta", text="late"), _end("end_turn"), _STOP)
    read = read_stream(translate("anthropic", data))
    assert (read.text, read.finish, read.done) == ("", "stop", True)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_bare_error_is_told_while_the_stream_stays_open(size: int) -> None:
    """Google's errors in mid-stream have no blank line: their words reach the client before the idle clock does."""
    translator = ADAPTERS["google"].translator(make_chat(), make_target("google"))
    assert translator is not None
    said = b'data: {"candidates":[{"content":{"parts":[{"text":"Hi"}]}}]}\r\n\r\n'
    bare = b'{\n  "error": {\n    "code": 503,\n    "message": "busy",\n    "status": "UNAVAILABLE"\n  }\n}\n'
    data = said + bare
    out = b"".join(translator.feed(data[start : start + size]) for start in range(0, len(data), size))
    read = read_stream(out)
    assert read.error is not None
    assert (read.text, read.error["message"], read.done) == ("Hi", "busy", False)
    assert translator.close() == b""


def test_a_bare_error_at_the_end_of_googles_compatible_stream_is_told() -> None:
    """Its servers write errors in their own way into streams of any shape; no blank line need follow."""
    said = b'data: {"id":"1","created":1,"model":"g","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    out = translate("google_compat", said + b'[{\n  "error": {"code": 503, "message": "busy"}\n}]\n')
    assert out.startswith(said)
    assert orjson.loads(out.removeprefix(said)[6:]) == {"error": {"code": 503, "message": "busy"}}


@pytest.mark.parametrize("text", ["100%d", "%s", "{}", '"', "\\", "\u2028\u0000"])
def test_odd_names_and_texts_do_not_break_the_templates(text: str) -> None:
    """Ids, models and texts are data wherever they land."""
    start = {"type": "message_start", "message": {"id": text, "model": text}}
    call = _block(0, type="tool_use", id=text, name=text)
    pieces = _delta(0, type="input_json_delta", partial_json=text)
    out = translate("anthropic", _sse(start, _delta(0, type="text_delta", text=text), call, pieces, _end("tool_use")))
    read = read_stream(out)
    assert read.text == text
    assert read.calls == [{"id": text, "name": text, "arguments": text}]
    assert orjson.loads(out[6 : out.index(b"\n\n")])["model"] == text


_HALVES = {
    "anthropic": (
        _sse(_start()),
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}\n\n',
        _sse(_end("end_turn"), _STOP),
    ),
    "google": (
        b"",
        b'data: {"candidates":[{"content":{"parts":[{"text":"%s"}]}}]}\r\n\r\n',
        b'data: {"candidates":[{"finishReason":"STOP"}]}\r\n\r\n',
    ),
    "ollama": (b"", b'{"message":{"content":"%s"}}\n', b'{"done":true,"done_reason":"stop"}\n'),
}


@pytest.mark.parametrize("dialect", TRANSLATED)
def test_half_a_character_costs_no_word(dialect: str) -> None:
    """An emoji that was cut between two events, by its two halves or by its bytes, takes nothing else along."""
    begin, said, end = _HALVES[dialect]
    pieces = (b"a \\ud83d", b"\\ude00 b ", b"c \xf0\x9f", b"\x98\x80 d")
    read = read_stream(translate(dialect, begin + b"".join(said % piece for piece in pieces) + end))
    assert read.text.replace("\ufffd", "") == "a  b c  d"
    assert (read.finish, read.done) == ("stop", True)


_WEI = b'{"wei":1000000000000000000001}'
_GEMINI_CALL = (
    b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":%s}}]},"finishReason":"STOP"}]}' % _WEI
)
_OLLAMA_CALL = b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":%s}}]},"done":true}' % _WEI
_CALLS = {
    "anthropic": (
        _sse(
            _start(),
            _block(0, type="tool_use", id="a", name="f"),
            _delta(0, type="input_json_delta", partial_json=_WEI.decode()),
            _BLOCK_STOP,
            _end("tool_use"),
            _STOP,
        ),
        b'{"type":"message","content":[{"type":"tool_use","id":"a","name":"f","input":%s}],"stop_reason":"tool_use"}'
        % _WEI,
    ),
    "google": (b"data: " + _GEMINI_CALL + b"\n\n", _GEMINI_CALL),
    "ollama": (_OLLAMA_CALL + b"\n", _OLLAMA_CALL),
}


@pytest.mark.parametrize("dialect", TRANSLATED)
def test_a_long_number_of_a_tool_call_keeps_its_digits(dialect: str) -> None:
    """Streamed or not, there and back: what a tool is called with is what the model said."""
    stream, whole = _CALLS[dialect]
    completion = ADAPTERS[dialect].completion(make_chat(stream=False), make_target(dialect), whole)
    for read in (read_stream(translate(dialect, stream)), read_whole(completion.body)):
        assert read.calls[0]["arguments"] == _WEI.decode()
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": _WEI.decode()}}
    chat = make_chat("Hi", {"role": "assistant", "content": None, "tool_calls": [call]})
    assert _WEI in ADAPTERS[dialect].call(chat, make_target(dialect)).body


def test_a_long_number_of_a_tools_result_keeps_its_digits() -> None:
    """Gemini gets results that are JSON as they are."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "a", "content": _WEI.decode()}
    chat = make_chat("Hi", {"role": "assistant", "content": None, "tool_calls": [call]}, result)
    assert _WEI in ADAPTERS["google"].call(chat, make_target("google")).body


def test_a_tool_loop_keeps_its_thinking_through_an_agent() -> None:
    """OpenClaw keeps `reasoning.encrypted` entries that name a tool call and strips underscores from ids: that is
    enough to bring the signed thinking back to Anthropic."""
    read = read_stream(translate("anthropic", stream_path("anthropic/thinking_tools").read_bytes()))
    known = [one for one in read.details if one["type"] == "reasoning.encrypted" and one["id"] and one["data"]]
    calls = [{"id": call["id"].replace("_", ""), "type": "function",
              "function": {"name": call["name"], "arguments": call["arguments"]}} for call in read.calls]  # fmt: skip
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    assistant = {"role": "assistant", "content": read.text, "tool_calls": calls, "reasoning_details": known}
    body = sent("anthropic", make_chat("Weather?", assistant, *results, tools=[TOOL], reasoning_effort="low"))
    original = orjson.loads(whole_path("anthropic/thinking_tools").read_bytes())["content"]
    content = body["messages"][1]["content"]
    assert content[:2] == original[:2]
    assert [block["id"] for block in content[3:]] == [block["id"].replace("_", "") for block in original[3:]]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("keeps", ["extra_content", "reasoning_details"])
def test_a_tool_loop_keeps_its_signature_on_the_way_back_to_google(streamed: bool, keeps: str) -> None:
    """Whichever of the two places a client keeps, the signature returns to the call that it belongs to."""
    if streamed:
        read = read_stream(translate("google", stream_path("google/two_calls").read_bytes()))
    else:
        data = whole_path("google/two_calls").read_bytes()
        read = read_whole(ADAPTERS["google"].completion(make_chat(stream=False), make_target("google"), data).body)
    calls = []
    for call in read.calls:
        made = {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
        }
        calls.append({**made, **({"extra_content": call["extra_content"]} if keeps in call else {})})
    assistant: dict[str, Any] = {"role": "assistant", "content": read.text, "tool_calls": calls}
    if keeps == "reasoning_details":
        assistant["reasoning_details"] = read.details
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    parts = sent("google", make_chat("Weather?", assistant, *results))["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, "c2lnMQ==", None]


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 2**53), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def _odd(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with known names and values of any kind."""
    return st.dictionaries(st.sampled_from(names), _JSON, max_size=4)


_ANTHROPIC = st.builds(
    lambda kind, rest, block, delta, message: {
        **rest, "type": kind, "content_block": block, "delta": delta, "message": message},
    st.sampled_from(["message_start", "content_block_start", "content_block_delta", "content_block_stop",
                     "message_delta", "message_stop", "ping", "error", "new"]),
    _odd("usage", "index", "error", "delta"),
    st.one_of(_JSON, st.builds(lambda kind, rest: {**rest, "type": kind},
                               st.sampled_from(["text", "thinking", "tool_use", "redacted_thinking"]),
                               _odd("text", "id", "name", "input", "thinking", "signature"))),
    st.one_of(_JSON, st.builds(lambda kind, rest: {**rest, "type": kind},
                               st.sampled_from(["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]),
                               _odd("text", "thinking", "signature", "partial_json", "stop_reason", "stop_details"))),
    st.one_of(_JSON, _odd("id", "model", "usage")),
)  # fmt: skip
_PART = st.one_of(_JSON, _odd("text", "thought", "functionCall", "inlineData", "thoughtSignature"),
                  st.builds(lambda call: {"functionCall": call}, _odd("name", "args", "id")))  # fmt: skip
_GOOGLE = st.one_of(
    _odd("candidates", "usageMetadata", "promptFeedback", "error", "responseId"),
    st.builds(
        lambda parts, rest, top: {**top, "candidates": [{**rest, "content": {"parts": parts}}]},
        st.lists(_PART, max_size=3), _odd("finishReason", "index"), _odd("usageMetadata", "promptFeedback"),
    ),
)  # fmt: skip
_OLLAMA = st.builds(
    lambda rest, message: {**rest, "message": message},
    _odd("done", "done_reason", "error", "created_at", "model", "prompt_eval_count", "eval_count"),
    st.one_of(_JSON, _odd("content", "thinking", "tool_calls"),
              st.builds(lambda calls: {"tool_calls": calls},
                        st.lists(st.builds(lambda one: {"function": one}, _odd("name", "arguments")), max_size=2))),
)  # fmt: skip


@given(st.data(), st.sampled_from(TRANSLATED), st.booleans())
@settings(max_examples=500, deadline=None)
def test_no_stream_breaks_the_translator(data: st.DataObject, dialect: str, usage: bool) -> None:
    """Known words with values of any kind: no exception, and what comes out is a valid stream."""
    strategy = {"anthropic": _ANTHROPIC, "google": _GOOGLE, "ollama": _OLLAMA}[dialect]
    events = [orjson.dumps(one) for one in data.draw(st.lists(strategy, max_size=6))]
    stream = b"".join(one + b"\n" if dialect == "ollama" else b"data: " + one + b"\n\n" for one in events)
    cut = data.draw(st.integers(0, len(stream)))
    translator = ADAPTERS[dialect].translator(make_chat(usage=usage), make_target(dialect))
    assert translator is not None
    out = translator.feed(stream[:cut]) + translator.feed(stream[cut:]) + translator.close()
    read = read_stream(out)
    assert not (read.done and read.finish is None)


@given(st.data(), st.sampled_from(TRANSLATED))
@settings(max_examples=300, deadline=None)
def test_no_whole_answer_breaks_the_adapter(data: st.DataObject, dialect: str) -> None:
    """A completion or a failed attempt, whatever a provider answers."""
    blocks = st.builds(lambda kind, rest: {**rest, "type": kind}, st.sampled_from(["text", "tool_use", "thinking"]),
                       _odd("text", "id", "name", "input", "thinking", "signature"))  # fmt: skip
    strategy = {
        "anthropic": st.builds(lambda content, rest: {**rest, "content": content}, st.lists(blocks, max_size=3),
                               _odd("id", "model", "usage", "stop_reason", "stop_details", "error")),
        "google": _GOOGLE,
        "ollama": _OLLAMA,
    }[dialect]  # fmt: skip
    body = orjson.dumps(data.draw(st.one_of(_JSON, strategy)))
    try:
        completion = ADAPTERS[dialect].completion(make_chat(stream=False), make_target(dialect), body)
    except AttemptFailed:
        return
    read_whole(completion.body)
