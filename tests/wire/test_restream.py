"""One stream from a whole completion says everything that the completion said."""

from __future__ import annotations

import json

from llm_router.wire.restream import as_stream
from tests.support import sse
from tests.support.chunks import completion


def test_no_end_is_invented() -> None:
    """A completion without a finish_reason becomes a stream without one, as it would have gone through unstreamed."""
    *events, done = sse.read(as_stream(completion("Hi", None), with_usage=False))
    assert [json.loads(event.data)["choices"][0]["finish_reason"] for event in events] == [None, None]
    assert done.data == "[DONE]"


def test_a_stream_is_called_what_the_completion_was() -> None:
    """Id, time and model are the completion's on every chunk; where it has none a stream has some all the same."""
    named = {**completion("Hi"), "id": "c-7", "created": 17, "model": "m-7"}
    bare = {"choices": completion("Hi")["choices"]}
    for whole, names in ((named, ("c-7", 17, "m-7")), (bare, ("chatcmpl-router", 0, ""))):
        *events, _ = sse.read(as_stream(whole, with_usage=False))
        for chunk in (json.loads(event.data) for event in events):
            assert (chunk["id"], chunk["created"], chunk["model"]) == names
            assert chunk["object"] == "chat.completion.chunk"


def test_what_a_provider_adds_is_kept() -> None:
    """Log probabilities, the fingerprint and a provider's own fields are not lost where JSON becomes a stream."""
    whole = {**completion("Hi"), "system_fingerprint": "fp_1", "service_tier": "flex", "error": None}
    whole["choices"][0] |= {"logprobs": {"content": [{"token": "Hi"}]}, "native_finish_reason": "end_turn"}
    *events, done = sse.read(as_stream(whole, with_usage=False))
    first, last = (json.loads(event.data) for event in events)
    assert done.data == "[DONE]"
    for chunk in (first, last):
        assert (chunk["system_fingerprint"], chunk["service_tier"]) == ("fp_1", "flex")
        assert not {"error", "usage"} & chunk.keys()
    assert first["choices"][0]["logprobs"] == {"content": [{"token": "Hi"}]}
    assert "logprobs" not in last["choices"][0]
    assert last["choices"][0]["native_finish_reason"] == "end_turn"
    assert first["choices"][0]["finish_reason"] is None


def test_every_choice_and_call_keeps_its_number() -> None:
    """Clients put a stream together by the numbers of its choices and calls; a whole answer counts calls by place."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    whole = completion("Hi")
    (first,) = whole["choices"]
    first |= {"index": 1, "message": {"content": None, "tool_calls": [call, "odd", {**call, "id": "d"}]}}
    whole["choices"] = [first, None, {"message": {"role": "tool", "content": "x"}, "finish_reason": "stop"}]
    *events, done = sse.read(as_stream(whole, with_usage=False))
    assert done.data == "[DONE]"
    begun, _, other, _ = ((json.loads(event.data)["choices"][0]) for event in events)
    assert (begun["index"], other["index"]) == (1, 2)
    assert (begun["delta"]["role"], other["delta"]["role"]) == ("assistant", "tool")
    assert [(one["index"], one["id"]) for one in begun["delta"]["tool_calls"]] == [(0, "c"), (1, "d")]


def test_what_all_chunks_have_in_common_is_not_repeated_without_end() -> None:
    """A thousand choices beside a megabyte of a provider's own would make gigabytes of one answer."""
    whole = {"choices": [{"text": str(place)} for place in range(1000)], "note": "x" * 1_000_000}
    stream = as_stream(whole, with_usage=False)
    assert len(stream) < 5_000_000
    begun, ended, _ = sse.read(stream)
    assert [choice["delta"]["content"] for choice in json.loads(begun.data)["choices"]] == [str(n) for n in range(1000)]
    assert [choice["index"] for choice in json.loads(ended.data)["choices"]] == list(range(1000))


def test_a_completion_without_a_message_is_its_text() -> None:
    """The retired completions have `text` where others have a message."""
    first, *_ = sse.read(as_stream({"choices": [{"text": "Hi", "finish_reason": "stop"}]}, with_usage=False))
    assert json.loads(first.data)["choices"][0]["delta"] == {"content": "Hi", "role": "assistant"}
