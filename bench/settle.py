"""CPU of the books: what one request costs after its stream has closed, by part and by kind of request.

    python bench/settle.py [--requests 5000]

Figures are CPU microseconds a request (thread time for the event loop's side, process time for all), the lowest of
three rounds. Requests and answers are repeated as an agent's are: the first of each kind is counted, the others are
known.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from llm_router import shipped
from llm_router.accounting import ranks
from llm_router.accounting.access_log import AccessLog
from llm_router.accounting.booking import Attempt, Booking, LedgerRecord
from llm_router.accounting.drift import DriftBook
from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.metrics import Metrics
from llm_router.accounting.pricing import PriceTable
from llm_router.accounting.settle import Settler
from llm_router.accounting.store import Store
from llm_router.accounting.tokens import Counter

WORDS = ["the", "router", "streams", "tokens", "from", "a", "provider", "while", "each", "client", "waits", "for", "it"]
RNG = random.Random(7)


def text(size: int) -> str:
    """Prose of about `size` characters."""
    return " ".join(RNG.choices(WORDS, k=size // 6))


def chat(size: int) -> bytes:
    """A plain request of `size` bytes."""
    return orjson.dumps({"model": "router", "messages": [{"role": "user", "content": text(size)}]})


def agent(turns: int, tools: int = 30) -> list[bytes]:
    """The requests of an agent's conversation: each has the whole history and the same tools."""
    functions = [
        {
            "type": "function",
            "function": {"name": f"tool_{n}", "description": text(400), "parameters": {"a": text(600)}},
        }
        for n in range(tools)
    ]
    messages: list[dict[str, object]] = [{"role": "system", "content": text(12_000)}]
    requests = []
    for _ in range(turns):
        messages.append({"role": "user", "content": text(5_000)})
        requests.append(orjson.dumps({"model": "router", "stream": True, "tools": functions, "messages": messages}))
        messages.append({"role": "assistant", "content": text(3_000)})
    return requests


def completion() -> bytes:
    """A non-streamed answer of half a kilobyte."""
    usage = {"prompt_tokens": 250, "completion_tokens": 125, "total_tokens": 375}
    message = {"role": "assistant", "content": text(500)}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return orjson.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": choices, "usage": usage}
    )


def stream(chunks: int) -> list[bytes]:
    """The blocks of a streamed answer."""
    head = {"id": "chatcmpl-123456789", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    made = [
        {**head, "choices": [{"index": 0, "delta": {"content": text(24)}, "finish_reason": None}]}
        for _ in range(chunks)
    ]
    made.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    made.append({**head, "choices": [], "usage": {"prompt_tokens": 250, "completion_tokens": 4 * chunks}})
    return [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in made] + [b"data: [DONE]\n\n"]


Make = Callable[[int], Booking]


def maker(prices: PriceTable, request: bytes, answer: Sequence[bytes], is_stream: bool) -> Make:
    """Bookings of one kind; each with bytes of its own, as they come from a socket."""
    size = sum(map(len, answer))

    def make(number: int) -> Booking:
        return Booking(
            request_id=f"req-{number:010}-abcdef",
            started=time.time(),
            category="code",
            mode="local",
            model="openai/gpt-4o",
            provider="openai",
            stream=is_stream,
            client="0badc0de",
            attempts=(Attempt("openai/gpt-4o", "ok", 200, 12),),
            first_byte_ms=11.0,
            total_ms=12.0,
            request=bytes(bytearray(request)),
            answer=[bytes(bytearray(block)) for block in answer],
            answer_bytes=size,
            answer_is_stream=is_stream,
            price_info=prices.info("openai/gpt-4o"),
        )

    return make


def for_each(call: Callable[[Any], object], items: Sequence[Any]) -> None:
    """Calls with each item."""
    for item in items:
        call(item)


def parts(make: Make, encoding: Any, requests: int) -> dict[str, float]:
    """Microseconds of each part, on its own."""
    settler = Settler(lambda name: encoding, DriftBook())
    found: dict[str, float] = {}
    settled: list[LedgerRecord] = []

    def clock(name: str, call: Callable[[], object], count: int) -> None:
        began = time.process_time()
        call()
        found[name] = min(found.get(name, 1e9), (time.process_time() - began) / count * 1e6)

    for _ in range(3):
        bookings = [make(number) for number in range(requests)]
        settled.clear()
        clock("read, count, price", partial(settled.extend, map(settler.settle, bookings)), requests)
        batches = [settled[start : start + 50] for start in range(0, requests, 50)]
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            store.write(())
            clock("ledger, 50 a commit", partial(for_each, store.write, batches), requests)
            clock("hourly sums", partial(store.roll_up, 10**9), requests)
            store.close()
        clock("figures", partial(for_each, Metrics().observe, batches), requests)
        with open(os.devnull, "w") as nowhere:
            clock("access log, text", partial(for_each, AccessLog(nowhere.write), batches), requests)
            clock("access log, JSON", partial(for_each, AccessLog(nowhere.write, "json"), batches), requests)
    return found


def together(make: Make, encoding: Any, requests: int) -> dict[str, float]:
    """The bookkeeper as it runs: the event loop's side, and everything."""

    def once() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
            metrics = Metrics()
            keeper = Bookkeeper(
                Path(folder),
                find_encoding=lambda name: encoding,
                sinks=[metrics.observe, AccessLog(nowhere.write)],
            )
            keeper.start()
            bookings = [make(number) for number in range(requests)]
            whole, loop = time.process_time(), 0.0
            for start in range(0, requests, 100):
                began = time.thread_time()
                for one in bookings[start : start + 100]:
                    one.ticket = keeper.enter(one.request_id, one.started, client=one.client, model=one.model)
                    keeper.submit(one)
                loop += time.thread_time() - began
                time.sleep(0.01)
            keeper.flush(120)
            spent = time.process_time() - whole
            keeper.close()
            return loop / requests * 1e6, spent / requests * 1e6

    rounds = [once() for _ in range(3)]
    return {"event loop's side": min(r[0] for r in rounds), "all, as it runs": min(r[1] for r in rounds)}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    requests = parser.parse_args().requests
    began = time.process_time()
    encoding = ranks.build("o200k_base")
    print(f"encoding built in {time.process_time() - began:.3f} s CPU, RSS {rss():.0f} MiB")
    prices = PriceTable.parse(shipped.prices(), {})
    conversation = agent(40)
    kinds = {
        "1 KB, not streamed": (maker(prices, chat(1000), [completion()], False), requests),
        "1 KB, 100 chunks": (maker(prices, chat(1000), stream(100), True), max(requests // 10, 1)),
        "400 KB agent, 20 chunks": (maker(prices, conversation[-1], stream(20), True), max(requests // 50, 1)),
    }
    for name, (make, count) in kinds.items():
        print(f"\n{name} (CPU us a request)")
        for part, figure in {**parts(make, encoding, count), **together(make, encoding, count)}.items():
            print(f"  {part:24}{figure:10.1f}")
    counter = Counter(encoding)
    print("\n40 turns of a growing agent conversation, counted as they come")
    took = []
    for raw in conversation:
        began = time.process_time()
        count = counter.request(raw)
        took.append((time.process_time() - began) * 1e3)
    total = sum(map(len, conversation))
    print(f"  last request {len(conversation[-1]) // 1024} KB, {count.tokens} tokens; all {total // 1024} KB")
    share = counter.encoded_chars / len(conversation[-1])
    print(f"  tokenised {counter.encoded_chars // 1024} K characters: {share:.2f} of the last request")
    print(f"  CPU ms a turn: first {took[0]:.2f}, second {took[1]:.2f}, last {took[-1]:.2f}, sum {sum(took):.1f}")
    began = time.process_time()
    Counter(encoding).request(conversation[-1])
    print(f"  the last one alone, nothing known: {(time.process_time() - began) * 1e3:.1f} ms")


def rss() -> float:
    """The process's peak memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
