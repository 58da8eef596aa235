"""Reading answers for the books: text, calls, finish and usage out of anything that was sent."""

import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.wire.answer import Answer, read_completion, read_stream, read_tail
from llm_router.wire.usage import Usage

TRANSCRIPTS = Path(__file__).parents[1] / "support" / "data" / "sse"


def event(**fields) -> bytes:
    return b"data: " + orjson.dumps(fields) + b"\n\n"


def delta(index=0, finish=None, **fields) -> bytes:
    return event(model="m-1", choices=[{"index": index, "delta": fields, "finish_reason": finish}], usage=None)


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
DONE = b"data: [DONE]\n\n"


def test_a_plain_stream():
    """Text, finish, model and the usage of the last chunk are read; null usages are passed over."""
    blocks = [
        delta(role="assistant", content=""),
        delta(content="Hel") + delta(content="lo"),
        delta(finish="stop"),
        event(model="m-1", choices=[], usage=USAGE) + DONE,
    ]
    answer = read_stream(blocks)
    assert answer == Answer(text="Hello", finish_reasons={0: "stop"}, usage=Usage(5, 0, 0, 2), model="m-1")


def test_the_last_usage_wins():
    """Hosts that report with every chunk are read to their last word, wherever they put it."""
    blocks = [
        event(choices=[{"delta": {"content": "a"}}], usage={"prompt_tokens": 5, "completion_tokens": 1}),
        event(choices=[{"delta": {}, "usage": {"prompt_tokens": 5, "completion_tokens": 9}}], usage=None),
    ]
    assert read_stream(blocks).usage == Usage(5, 0, 0, 9)


@pytest.mark.parametrize("beside", [{}, {"usage": None}, {"usage": {}}])
def test_groqs_own_place_for_usage(beside):
    """Groq's streams report usage in a field of their own; null or nonsense there is passed over."""
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    blocks = [
        event(choices=[{"index": 0, "delta": {"content": "a"}}], x_groq={"id": "req_1"}),
        event(choices=[last], x_groq={"id": "req_1", "usage": USAGE}, **beside),
        event(choices=[], x_groq={"usage": None}),
        event(choices=[], x_groq="?"),
    ]
    assert read_stream(blocks) == Answer(text="a", finish_reasons={0: "stop"}, usage=Usage(5, 0, 0, 2))
    assert read_tail(blocks).usage == Usage(5, 0, 0, 2)


def test_a_report_in_every_event_of_a_run_is_read():
    """Events that are alike but for their text may all carry Groq's report."""
    blocks = [event(choices=[{"index": 0, "delta": {"content": word}}], x_groq={"usage": USAGE}) for word in "abcdefgh"]
    assert read_stream(blocks).usage == Usage(5, 0, 0, 2)
    assert read_stream(blocks).text == "abcdefgh"


def test_tool_calls_are_collected():
    """Names and argument fragments of all calls, old and new style, are part of what was generated."""
    blocks = [
        delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}], finish="tool_calls"),
        delta(function_call={"name": "g", "arguments": "{}"}),
    ]
    answer = read_stream(blocks)
    assert answer.tool_text == 'f{"a":1}g{}'
    assert answer.finish_reasons == {0: "tool_calls"}


def test_reasoning_under_any_name_is_counted_once():
    """Thoughts are collected; a host that sends them under two names is not counted twice."""
    blocks = [delta(reasoning_content="ab"), delta(reasoning="cd"), delta(reasoning_content="ef", reasoning="ef")]
    assert read_stream(blocks).reasoning == "abcdef"


def test_choices_do_not_mix():
    """Texts of several choices follow one another by index, each whole."""
    blocks = [
        delta(1, content="x1"),
        delta(0, content="a1"),
        delta(1, "stop", content="x2"),
        delta(0, "length", content="a2"),
    ]
    answer = read_stream(blocks)
    assert answer.text == "a1a2x1x2"
    assert answer.finish_reasons == {1: "stop", 0: "length"}


def test_refusals_and_parts_are_text():
    """A refusal is generated text, and so are the text parts of a content list."""
    blocks = [delta(refusal="No."), delta(content=[{"type": "text", "text": " Sorry"}, {"type": "image_url"}])]
    answer = read_stream(blocks)
    assert answer.text == "No. Sorry"
    assert answer.images is True


def test_thoughts_among_the_parts_are_reasoning():
    """Mistral's models think in parts of the content; a stream that broke off is billed for them too."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}, {"type": "odd"}, 7]}
    answer = read_stream([delta(content=[thought, {"type": "text", "text": "Yes"}])])
    assert (answer.reasoning, answer.text) == ("Hm", "Yes")


def test_generated_images_and_sound_are_flagged():
    """Output that no tokenizer counts is said to be there."""
    assert read_stream([delta(images=[{"image_url": {}}])]).images is True
    assert read_stream([delta(audio={"data": "AAAA"})]).audio is True


def test_comments_crlf_and_multi_line_data():
    """Comments are skipped, and any line end and split data lines are read as the standard says."""
    blocks = [
        b": OPENROUTER PROCESSING\n\n" + delta(content="a"),
        b": ping\n" + delta(content="b"),
        b'data: {"choices":[{"delta":\r\ndata: {"content":"c"}}]}\r\n\r\n',
        b'event: message\rdata: {"choices":[{"delta":{"content":"d"}}]}\r\r',
        b'data:{"choices":[{"delta":{"content":"e"}}]}\n\n',
    ]
    answer = read_stream(blocks)
    assert (answer.text, answer.broken_events) == ("abcde", 0)


def test_an_unfinished_last_event_is_read_leniently():
    """A stream whose last blank line is missing still gives its last words."""
    assert read_stream([delta(content="a"), delta(content="b")[:-2]]).text == "ab"


def test_broken_events_are_counted_and_skipped():
    """One event that is no JSON costs nothing but itself."""
    answer = read_stream([delta(content="a"), b"data: {broken\n\n", delta(content="b"), b"data: 7\n\n"])
    assert (answer.text, answer.broken_events) == ("ab", 2)


def test_an_error_event_holds_no_text():
    """An error after the text so far is neither text nor finish nor a crash."""
    answer = read_stream([delta(content="a"), event(error={"message": "overloaded", "code": "upstream_error"})])
    assert (answer.text, answer.finish_reasons, answer.usage) == ("a", {}, None)


def test_a_long_stream_is_read_in_pieces():
    """Streams beyond one piece lose nothing at the seams."""
    words = [f"word{number} " for number in range(4000)]
    answer = read_stream([delta(content=word, padding="x" * 200) for word in words])
    assert answer.text == "".join(words)


def test_the_tail_is_enough_for_usage_and_finish():
    """Reading only the end of a stream finds what the bill needs."""
    blocks = [*(delta(content="a") for _ in range(100)), delta(finish="stop"), event(choices=[], usage=USAGE), DONE]
    answer = read_tail(blocks)
    assert (answer.finish_reasons, answer.usage) == ({0: "stop"}, Usage(5, 0, 0, 2))
    assert len(answer.text) < 10


def test_a_completion():
    """A non-streamed answer gives the same as the stream that says it."""
    body = orjson.dumps(
        {
            "model": "m-1",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "Hello",
                        "reasoning_content": "hm",
                        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                    },
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
        }
    )
    assert read_completion(body) == Answer("Hello", "hm", "f{}", {0: "stop"}, Usage(5, 0, 0, 2), "m-1")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b'{"choices":{}}', b'{"choices":[1,null]}', b"\xff"])
def test_a_completion_that_is_none(body):
    """What is no completion gives an empty answer."""
    answer = read_completion(body)
    assert (answer.text, answer.usage) == ("", None)


def test_a_huge_answer_is_not_parsed_in_one_go():
    """An event of megabytes (a picture, or malice) gives its usage and an estimate instead of holding everybody up."""
    picture = {
        "index": 0,
        "message": {"content": "Here.", "images": [{"url": "data:image/png;base64," + "A" * 3_000_000}]},
    }
    usage = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens": 2}
    body = orjson.dumps({"choices": [picture], "usage": usage})
    for answer in (read_completion(body), read_stream([b"data: " + body + b"\n\n", DONE])):
        assert answer.usage == Usage(3, 2, 0, 2)
        assert answer.images is True
        assert len(answer.text) < 1000
    assert read_completion(b'{"x": "' + b"word " * 600_000 + b'", "usage": {broken').usage is None


def test_a_completion_of_which_only_the_ends_were_kept():
    """A long answer with a gap in the middle still tells what the provider counted."""
    body = completion_of("word " * 1000)
    assert read_completion(body[:100] + body[-200:]).usage == Usage(5, 0, 0, 2)


def completion_of(text: str) -> bytes:
    return orjson.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": USAGE})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "message", "content", "tool_calls", "function", "arguments", "usage", "index",
                 "finish_reason", "reasoning", "model", "prompt_tokens", "images", "text", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(json_values, max_size=5))
def test_events_of_any_shape_are_survived(values):
    """No JSON whatsoever makes the reader raise."""
    read_stream([b"data: " + json.dumps(value).encode() + b"\n\n" for value in values])


@given(st.lists(st.text(max_size=8), min_size=1, max_size=20), st.data())
def test_the_quick_way_reads_what_the_standard_way_reads(words, data):
    """However a stream is cut into blocks, and whatever stands between its events, the text is the same."""
    events = [delta(content=word) for word in words]
    noisy = b"".join(data.draw(st.sampled_from([b"", b": c\n\n", b"\n", b"id: 1\n"])) + one for one in events)
    cut = data.draw(st.integers(0, len(events)))
    quick = read_stream([b"".join(events[:cut]), b"".join(events[cut:]) + DONE])
    assert quick.text == read_stream([noisy]).text == "".join(words)


def test_a_text_that_does_not_end_is_no_text():
    """An event whose last quote is escaped is broken, and takes nothing of the next one along."""
    broken = delta(content="X").replace(b"X", b"half\\")
    events = [
        delta(content="a"),
        delta(content="b"),
        delta(content="c"),
        broken,
        delta(content="n"),
        delta(content="d"),
    ]
    answer = read_stream([b"".join(events)])
    assert (answer.text, answer.broken_events) == ("abcnd", 1)


def test_a_finish_beside_every_text_is_read():
    """Hosts that say how it ends with each piece of text are read as they mean it."""
    answer = read_stream([b"".join(delta(finish="stop", content=word) for word in "abcdefgh")])
    assert (answer.text, answer.finish_reasons) == ("abcdefgh", {0: "stop"})


def test_of_half_a_completion_the_usage_is_read():
    """Of a long answer perhaps only the ends were kept; what it cost stands there."""
    kept = (
        b'{"model":"m","choices":[{"message":{"content":"hal'
        + b'ng"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
    )
    usage = read_completion(kept[:45] + b'"' + kept[45:]).usage
    assert usage is not None
    assert (usage.input, usage.output) == (3, 4)


@pytest.mark.parametrize("index", [-1, 128, 10**9, "0", None, 1.5, [1]])
def test_absurd_numbers_of_choices_are_the_first_choice(index):
    """A provider cannot make the books hold an entry for every number that there is."""
    answer = read_stream([delta(index=index, finish="stop", content="x"), delta(index=127, finish="length")])
    assert answer.text == "x"
    assert answer.finish_reasons == {0: "stop", 127: "length"}


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data):
    """Bytes of any kind are read without an exception."""
    read_stream([data])
    read_completion(data)


@pytest.mark.parametrize("name", ["stream_usage", "stream_natural", "stream_n2", "stream_tool", "stream_stop"])
@pytest.mark.parametrize("server", ["llama_tiny", "llama_smollm2"])
def test_real_transcripts(server, name):
    """What a real server streamed is read without a broken event, with its finish, text and usage."""
    raw = (TRANSCRIPTS / server / f"{name}.txt").read_bytes()
    body = b"data: " + raw.split(b"data: ", 1)[1].split(b"#curl")[0]
    answer = read_stream([body])
    assert answer.broken_events == 0
    assert answer.text or answer.tool_text
    assert answer.finish_reasons
    if b'"usage"' in body:
        assert answer.usage is not None
        assert answer.usage.output > 0
