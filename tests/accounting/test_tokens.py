"""Counting: right where it can be, bounded where somebody is hostile, and never paid for twice."""

import random
import time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.accounting import tokens
from llm_router.accounting.tokens import Count, Counter, Recent, estimate_bytes, estimate_text


class Spy:
    """A tokenizer of words that notes how much it was given."""

    def __init__(self) -> None:
        self.chars = 0
        self.longest = 0

    def count(self, text: str) -> int:
        self.chars += len(text)
        self.longest = max(self.longest, len(text))
        return len(text.split(" "))


def chat(*messages, **fields) -> dict:
    return {"model": "router", "messages": list(messages), **fields}


def test_text_is_counted_as_the_tokenizer_does(encoding, tiktokens_own):
    """A count is the number of the encoding's own tokens, special tokens' names read as plain text."""
    counter = Counter(encoding)
    for text in ("hello world", "", "<|endoftext|>", "naïve 東京 🙂", "a\ud800b"):
        assert counter.text(text) == Count(len(tiktokens_own.encode_ordinary(text)), True)


def test_chat_overhead_is_openais(encoding):
    """3 a message, its role, 1 for a name, 3 for the reply, as OpenAI documents it for the o200k models."""
    messages = [
        {"role": "system", "content": "You translate business talk into plain words."},
        {"role": "system", "name": "example_user", "content": "Let us take this offline."},
        {"role": "user", "content": "We should circle back on the low-hanging fruit."},
    ]
    expected = 3
    for message in messages:
        expected += 3 + sum(encoding.count(value) for value in message.values()) + ("name" in message)
    assert Counter(encoding).prompt({"messages": messages}) == Count(expected, True)


def test_everything_that_the_model_reads_is_counted():
    """Tool calls, tools, schemas, list contents, refusals and nested tool results all add to the prompt."""
    counter = Counter(Spy())
    plain = counter.prompt(chat({"role": "user", "content": "a b"})).tokens
    assert plain == 3 + 3 + 1 + 2
    calls = [{"id": "c", "function": {"name": "f", "arguments": "x y z"}}]
    for message, expected in (
        ({"role": "assistant", "content": None, "tool_calls": calls}, 4 + 1 + 3),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": "x"}}, 4 + 2),
        ({"role": "user", "name": "ann", "content": "a"}, 4 + 2 + 1),
        ({"role": "user", "content": [{"type": "text", "text": "a b c"}, "d e"]}, 4 + 5),
        ({"role": "assistant", "refusal": "no no", "reasoning_content": "hm hm"}, 4 + 4),
        ({"role": "tool", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "a b"}]}]}, 4 + 2),
    ):
        assert counter.prompt(chat(message)) == Count(3 + expected, True), message
    schema = {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}
    assert counter.prompt(chat(response_format=schema)).tokens == 3 + 2
    assert counter.prompt(chat(response_format={"type": "json_object"})).tokens == 3
    assert counter.prompt(chat(tools=[{"type": "function", "function": {"name": "x y"}}])).tokens == 3 + 2


def test_images_are_approximated_and_it_shows():
    """What is no text gets a fixed number of tokens, and the count says that it is not genuine."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    low = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
    counter = Counter(Spy())
    assert counter.prompt(chat({"role": "user", "content": [image]})) == Count(3 + 4 + tokens.IMAGE_TOKENS, False)
    assert counter.prompt(chat({"role": "user", "content": [low]})) == Count(3 + 4 + tokens.IMAGE_LOW_TOKENS, False)


def agent_turns(turns: int) -> list[bytes]:
    """The requests of an agent's conversation, each with the whole history and the same tools."""
    rng = random.Random(4)
    words = ["alpha", "beta", "gamma", "delta", "return", "value", "error"]
    tools = [{"type": "function", "function": {"name": f"tool_{i}", "description": "does it " * 40}} for i in range(20)]
    messages = [{"role": "system", "content": "Be helpful. " * 200}]
    requests = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"{turn} " + " ".join(rng.choices(words, k=300))})
        requests.append(orjson.dumps({"model": "router", "messages": messages, "tools": tools}))
        messages.append({"role": "assistant", "content": f"{turn} " + " ".join(rng.choices(words, k=200))})
    return requests


def test_a_conversation_is_tokenised_once_not_once_a_turn():
    """Counting 40 growing requests tokenises each message once: O(n), not O(n^2)."""
    spy = Spy()
    counter = Counter(spy)
    requests = agent_turns(40)
    counts = [counter.request(raw) for raw in requests]
    assert spy.chars <= len(requests[-1]) * 1.02
    assert sum(map(len, requests)) > 15 * spy.chars
    assert counts == [Counter(Spy()).request(raw) for raw in requests]


def test_the_same_bytes_are_read_once():
    """A request that comes again costs a hash and no tokenizer."""
    spy = Spy()
    counter = Counter(spy)
    raw = orjson.dumps(chat({"role": "user", "content": "a b c"}))
    first = counter.request(raw)
    seen = spy.chars
    assert counter.request(bytes(bytearray(raw))) == first
    assert spy.chars == seen


def test_an_answer_is_not_counted_again_as_history():
    """The text of an answer that was counted is known when it comes back in the next turn's messages."""
    spy = Spy()
    counter = Counter(spy)
    counter.text("a long answer")
    seen = spy.chars
    counter.prompt(chat({"role": "assistant", "content": "a long answer"}))
    assert spy.chars == seen


def test_long_texts_are_cut_where_no_token_changes(encoding):
    """Prose beyond one piece is counted exactly, though no call of the tokenizer is long."""
    rng = random.Random(5)
    words = ["the", "router", "streams", "tokens", "from", "a", "provider", "while", "it's", "waiting."]
    text = " ".join(rng.choices(words, k=30_000))
    assert Counter(encoding).text(text) == Count(encoding.count(text), True)


def test_no_call_of_the_tokenizer_is_long():
    """Megabytes of anything reach the tokenizer in pieces only."""
    for text in ("a" * 900_000, " " * 900_000, "word " * 180_000, "\n" * 900_000):
        spy = Spy()
        Counter(spy).text(text)
        assert spy.longest <= 16_384


def test_a_huge_text_is_sampled_and_it_shows():
    """Past a megabyte pieces spread over the text stand for the whole; the count says so and is close."""
    spy = Spy()
    counter = Counter(spy)
    text = "word " * 1_000_000
    count = counter.text(text)
    assert count.genuine is False
    assert count.tokens == pytest.approx(1_000_000, rel=0.01)
    assert spy.chars <= 1_100_000
    assert counter.text(text) == count
    assert spy.chars <= 1_100_000


def test_one_request_cannot_ask_for_endless_counting():
    """A request of 32 MB in many messages is tokenised only up to its budget."""
    spy = Spy()
    messages = [{"role": "user", "content": f"{number} " + "ab " * 330_000} for number in range(32)]
    count = Counter(spy).prompt({"messages": messages})
    assert count.genuine is False
    assert spy.chars < 8_000_000
    assert count.tokens == pytest.approx(32 * 330_000, rel=0.05)


def test_a_body_too_large_to_parse_is_counted_as_text():
    """Beyond a megabyte the JSON itself is sampled, so that no parser holds up the others; the count says so."""
    spy = Spy()
    messages = [{"role": "user", "content": f"{n} " + "word " * 60_000} for n in range(10)]
    count = Counter(spy).request(orjson.dumps({"messages": messages}))
    assert count.genuine is False
    assert count.tokens == pytest.approx(600_000, rel=0.02)
    assert spy.chars <= 1_100_000


def test_large_images_leave_the_words_countable():
    """A body that is large for its pictures alone is parsed without them."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBOR" * 600_000}}
    raw = orjson.dumps(chat({"role": "user", "content": [{"type": "text", "text": "a b c"}, image]}))
    assert Counter(Spy()).request(raw) == Count(3 + 4 + 3 + tokens.IMAGE_TOKENS, False)


def test_hostile_texts_are_counted_in_bounded_time(encoding):
    """Two megabytes of one letter, of spaces, of emoji: each well under the second that they take uncut."""
    for letter in ("a", " ", "🙂", "\n", "的"):
        began = time.thread_time()
        Counter(encoding).text(letter * 2_000_000)
        assert time.thread_time() - began < 2.0, repr(letter)


def test_without_a_tokenizer_the_count_is_an_estimate():
    """No ranks: about four characters a token, more for other scripts, and never called genuine."""
    counter = Counter(None)
    count = counter.request(orjson.dumps(chat({"role": "user", "content": "hello world, how are you today?"})))
    assert count.genuine is False
    assert 10 <= count.tokens <= 18
    assert estimate_text("") == 0
    assert estimate_text("\ud800") > 0


def test_estimates_are_in_the_right_order_of_magnitude(encoding):
    """Estimates of prose in several scripts are within a factor of two of the count."""
    for text in (
        "The quick brown fox jumps over the lazy dog near the river bank. " * 20,
        "Быстрая коричневая лиса перепрыгивает через ленивую собаку. " * 20,
        "敏捷的棕色狐狸跳过了懒狗。今天天气很好。" * 20,
    ):
        real = encoding.count(text)
        assert real / 2 <= estimate_text(text) <= real * 2.2, (text[:10], real, estimate_text(text))


def test_a_request_estimated_unread_counts_pictures_as_pictures():
    """A megabyte of base64 is one image, not a quarter of a million tokens."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBOR" * 200_000}}
    raw = orjson.dumps(chat({"role": "user", "content": [image]}))
    assert 765 <= estimate_bytes(raw) < 900
    assert estimate_bytes(b"x" * 400) == 100


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"[]",
        b'{"messages": 7}',
        b'{"messages": [1, null, {"role": 3, "content": {"a": 1}}], "tools": 5, "response_format": 3}',
        b'{"messages": [{"role": "user", "content": "\\ud800 <|endoftext|>"}]}',
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages": [{"content": ' + b'[{"content": ' * 400 + b'"x"' + b"}]" * 400 + b"}]}",
        b'{"messages": [], "tools": [' + b'{"a": ' * 400 + b"1" + b"}" * 400 + b"]}",
    ],
)
def test_requests_of_any_shape_get_a_number(encoding, raw):
    """Whatever was admitted is counted or estimated, and never raises."""
    assert Counter(encoding).request(raw).tokens >= 0


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=[]), min_size=1, max_size=400), times=st.integers(1, 300))
def test_cutting_a_text_barely_changes_its_count(encoding, text, times):
    """For any repeated text the count in pieces is within two tokens a cut of the count as one."""
    whole = text * times
    count = Counter(encoding).text(whole)
    cuts = len(whole) // tokens._CHUNK
    assert abs(count.tokens - encoding.count(whole)) <= 2 * cuts


def test_memory_is_bounded_and_keeps_what_is_used():
    """The memory forgets what nobody asks for and keeps what is asked for again and again."""
    memory: Recent[int] = Recent(100)
    memory.put(-1, 7)
    for number in range(1000):
        memory.put(number, number)
        assert memory.get(-1) == 7
    assert len(memory) <= 200
    assert memory.get(1) is None


def test_long_requests_are_told_apart_to_the_last_byte_and_kept_within_bounds():
    """A long request that was counted is not read again; one that differs in its middle alone is; few are kept."""
    counter = Counter(Spy())
    words = ["word"] * 40_000
    one = orjson.dumps(chat({"role": "user", "content": " ".join(words)}))
    words[20_000] = "w o"
    other = orjson.dumps(chat({"role": "user", "content": " ".join([*words[:39_999], "wor"])}))
    first = counter.request(one)
    read = counter.encoded_chars
    assert counter.request(bytes(bytearray(one))) == first
    assert counter.encoded_chars == read
    assert counter.request(other).tokens == first.tokens + 1
    for number in range(30):
        counter.request(orjson.dumps(chat({"role": "user", "content": f"{number} " * 50_000})))
    assert counter._long_bytes == sum(len(raw) for raw, _ in counter._long) <= tokens._LONG_KEPT_BYTES


@pytest.mark.parametrize(("size", "genuine"), [(900_000, True), (1_020_000, False)])
def test_what_only_the_slow_parser_reads_is_bounded(size, genuine):
    """A request with half a surrogate pair is read by the slower parser up to a megabyte, and estimated beyond."""
    raw = orjson.dumps(chat({"role": "user", "content": "x " * (size // 2)})).replace(b"router", b"\\ud800")
    assert Counter(Spy()).request(raw).genuine is genuine
