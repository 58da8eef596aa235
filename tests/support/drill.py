"""The outage of a whole provider as a drill: `python -m tests.support.drill [--streams N]`.

Two upstream processes, one router, N concurrent streams (200). While half of the streams are under way and the other
half waits for its first token, the first upstream is killed with SIGKILL. No client that had not received a byte may
see an error; every other must see exactly one error event and no `[DONE]`. Prints what was seen; exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.chunks import DONE, finish, role, text
from tests.support.client import Answer
from tests.support.router import RouterProcess, chains, free_port
from tests.support.upstream import Exchange, Upstream

WORDS = 30
PACE = 0.1


async def _talk(exchange: Exchange) -> None:
    """Thirty words in three seconds; the first after a second where the prompt asks for patience."""
    await exchange.head()
    await exchange.body(role())
    if "slow" in exchange.request.json()["messages"][0]["content"]:
        await asyncio.sleep(1)
    for number in range(WORDS):
        await exchange.body(text(f"{number} "))
        await asyncio.sleep(PACE)
    await exchange.body(finish() + DONE)
    await exchange.finish()


async def serve(port: int) -> None:
    """An upstream in a process of its own, so that it can be killed as a provider dies."""
    upstream = Upstream(port)
    upstream.script = _talk
    await upstream.start()
    await asyncio.Event().wait()


async def _provider(port: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.support.drill", "--serve", str(port))
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        await writer.wait_closed()
        return process
    raise RuntimeError("the upstream did not start")


def outcome(answer: Answer) -> str:
    """What one client saw."""
    if answer.status == 200 and answer.ended == "whole":
        if answer.done and not answer.errors and answer.text == "".join(f"{number} " for number in range(WORDS)):
            return "whole"
        if not answer.done and not answer.finishes and len(answer.errors) == 1:
            return "one error event"
    return f"wrong: status {answer.status}, ended {answer.ended}, errors {len(answer.errors)}, done {answer.done}"


async def drill(streams: int) -> int:
    """Runs the drill; the number of clients that saw what they must not see."""
    ports = {"a": free_port(), "b": free_port()}
    first, second = await _provider(ports["a"]), await _provider(ports["b"])
    with tempfile.TemporaryDirectory() as folder:
        env = {"ROUTER_FIRST_BYTE_TIMEOUT": "10", "ROUTER_IDLE_TIMEOUT": "10"}
        router = RouterProcess(Path(folder), chains(ports, {"ab": ["a/m1", "b/m2"]}), env)
        await asyncio.to_thread(router.start)
        try:
            begun: set[int] = set()

            async def client(number: int) -> Answer:
                def note(_: Answer) -> bool:
                    begun.add(number)
                    return False

                content = "talk" if number % 2 else "talk slow"
                return await router.chat("router/ab", content=content, patience=30, until=note)

            running = [asyncio.ensure_future(client(number)) for number in range(streams)]
            await asyncio.sleep(0.7)
            before = set(begun)
            first.kill()
            answers = await asyncio.gather(*running)
        finally:
            await asyncio.to_thread(router.stop)
            for process in (first, second):
                if process.returncode is None:
                    process.send_signal(signal.SIGKILL)
                await process.wait()
    without = Counter(outcome(answer) for number, answer in enumerate(answers) if number not in before)
    with_bytes = Counter(outcome(answer) for number, answer in enumerate(answers) if number in before)
    print(f"{streams} concurrent streams; the first of two upstreams was killed with SIGKILL")
    print(f"  had no byte yet: {without.total():4}  saw: {dict(without)}")
    print(f"  had begun:       {with_bytes.total():4}  saw: {dict(with_bytes)}")
    return without.total() - without["whole"] + with_bytes.total() - with_bytes["one error event"]


def main() -> int:
    """Entry of the command."""
    parser = argparse.ArgumentParser(description="Kill one of two upstreams under many streams and count what is seen.")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return 0
    return asyncio.run(drill(arguments.streams))


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
