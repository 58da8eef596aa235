"""What the tests of the books share: one real tokenizer, and bookings."""

import time
from collections.abc import Callable

import orjson
import pytest
import tiktoken
from tiktoken_ext import openai_public

from llm_router.accounting import ranks
from llm_router.accounting.booking import Attempt, Booking
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.pricing import ModelInfo, Prices
from llm_router.accounting.settle import Settler

REQUEST = orjson.dumps({"model": "router", "messages": [{"role": "user", "content": "Say hello."}]})
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
INFO = ModelInfo(prices=Prices(input=1.0, output=2.0))


def tiktokens_definition(name: str) -> dict:
    """How tiktoken itself defines an encoding: its function is run with loading switched off."""
    hashes = []

    def note(url, expected_hash=None):
        hashes.append(expected_hash)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_public, "load_tiktoken_bpe", note)
        made = getattr(openai_public, name)()
    return {**made, "sha256": hashes[0]}


def tiktokens_encoding(name: str) -> tiktoken.Encoding:
    """The encoding as tiktoken itself would build it."""
    made = tiktokens_definition(name)
    theirs = ranks.parse_ranks(ranks.read_ranks(name, made["sha256"]))
    return tiktoken.Encoding(
        name, pat_str=made["pat_str"], mergeable_ranks=theirs, special_tokens=made["special_tokens"]
    )


@pytest.fixture(scope="session")
def encoding() -> ranks.Tokenizer:
    return ranks.build("o200k_base")


@pytest.fixture(scope="session")
def tiktokens_own() -> tiktoken.Encoding:
    return tiktokens_encoding("o200k_base")


@pytest.fixture(scope="session")
def find_encoding(encoding) -> Callable[[str], ranks.Tokenizer | None]:
    return {"o200k_base": encoding}.get


def completion(text: str = "Hello there", **fields) -> bytes:
    """A non-streamed answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return orjson.dumps({"id": "c-1", "model": "m-1", "choices": [choice], **fields})


def stream(*words: str, finish: str | None = "stop", usage: dict | None = None) -> list[bytes]:
    """The blocks of a streamed answer."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in words]
    if finish:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage:
        chunks.append({"choices": [], "usage": usage})
    return [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


def booking(request_id: str = "r-1", **fields) -> Booking:
    """A completed, non-streamed request with reported usage, unless `fields` say otherwise."""
    answer = fields.pop("answer", None)
    if answer is None:
        answer = [completion(usage=USAGE)]
    values = {
        "started": time.time(),
        "category": "conversation",
        "mode": "local",
        "model": "openai/m",
        "provider": "openai",
        "attempts": (Attempt("openai/m", "ok", 200, 7),),
        "first_byte_ms": 5.0,
        "total_ms": 7.0,
        "request": REQUEST,
        "answer": answer,
        "answer_bytes": sum(map(len, answer)),
        "price_info": INFO,
    }
    return Booking(request_id, **(values | fields))


def settled(request_id="r-1", **fields):
    """The record of such a booking, where there is no tokenizer."""
    return Settler(lambda name: None, DriftBook()).settle(booking(request_id, **fields))
