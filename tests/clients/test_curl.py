"""curl as people type it."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from tests.support.chunks import DONE, answer, finish, role, text
from tests.support.client import chat_body
from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, reply, stream

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


async def curl(stage: Stage, *arguments: str, path: str = "/v1/chat/completions") -> tuple[int, bytes]:
    """Exit code and output of `curl -sS ARGUMENTS URL`."""
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-sS",
        "--max-time",
        "10",
        *arguments,
        f"http://127.0.0.1:{stage.router.port}{path}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output


def body(**more: object) -> str:
    """A chat body as typed on a command line."""
    return json.dumps(chat_body("router/ab", **more))


async def test_stream(stage: Stage) -> None:
    """`curl -N -d` without a Content-Type gets the stream byte for byte."""
    code, output = await curl(stage, "-N", "-d", body())
    assert (code, output) == (0, b"".join(answer()))


async def test_the_words_come_as_they_are_made(stage: Stage) -> None:
    """With -N the first word is on the terminal before the provider has said the second."""
    read = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.body(text("one "))
        await read.wait()
        await exchange.body(text("two ") + finish() + DONE)
        await exchange.finish()

    stage.a.script = script
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-sSN",
        "-d",
        body(),
        f"http://127.0.0.1:{stage.router.port}/v1/chat/completions",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert b"one " in await process.stdout.readuntil(b"\n\n")
    read.set()
    rest = await process.stdout.read()
    await process.wait()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert b"error" not in rest


async def test_errors_end_with_a_newline(stage: Stage) -> None:
    """An error is one line of JSON that leaves the prompt on a line of its own."""
    for arguments in (("-d", "{"), ("-d", "{}"), ("-X", "GET")):
        code, output = await curl(stage, *arguments)
        assert code == 0
        assert output.endswith(b"}\n")
        assert json.loads(output)["error"]["message"]


async def test_interrupting_curl_stops_the_provider(stage: Stage) -> None:
    """Ctrl-C closes the upstream."""
    stage.a.script = stream([role(), text("a")], end="hang")
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-sSN",
        "-d",
        body(),
        f"http://127.0.0.1:{stage.router.port}/v1/chat/completions",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.read(10)
    process.send_signal(2)
    await process.wait()
    await process.stdout.read()
    await stage.turns()
    assert stage.a.last.closed_at is not None


async def test_large_bodies_expect_continue(stage: Stage) -> None:
    """Above 1 MB curl asks before it sends; it is told to go on at once."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--expect100-timeout", "60", "--max-time", "30", "-d", "@-", f"http://127.0.0.1:{stage.router.port}/v1/chat/completions",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate(body(content="x" * 2_000_000).encode())
    assert output == b"".join(answer())


async def test_a_cut_is_a_clean_end_for_curl(stage: Stage) -> None:
    """A broken provider is an error event, not curl's exit 18."""
    stage.a.script = stream([role(), text("a")], end="reset")
    code, output = await curl(stage, "-N", "-d", body())
    assert code == 0
    assert b"upstream_truncated" in output


async def test_compressed_is_not_forced(stage: Stage) -> None:
    """`--compressed` gets readable answers, streams stay uncompressed."""
    code, output = await curl(stage, "--compressed", "-N", "-d", body())
    assert (code, output) == (0, b"".join(answer()))
    stage.a.script = reply(500, b"")
    code, output = await curl(stage, "--compressed", path="/metrics")
    assert (code, "requests" in json.loads(output)) == (0, True)


async def test_http2_prior_knowledge_is_refused_cleanly(stage: Stage) -> None:
    """A client that insists on HTTP/2 gets an error, and the router goes on."""
    code, _ = await curl(stage, "--http2-prior-knowledge", path="/health")
    assert code != 0
    code, _ = await curl(stage, "--http1.0", path="/health")
    assert code == 0
