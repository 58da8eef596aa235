"""The relay between a scripted upstream answer and a recording client."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router.errors import Failure, FailureKind
from llm_router.proxy.gate import Verdict
from llm_router.proxy.relay import End, error_event
from llm_router.proxy.upstream import ConnectionLost
from llm_router.wire.chat import TooDeep
from tests.proxy.relaying import DONE, PING, ROLE, STOP, TEXT, Client, make, pieces


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(0, 4))
async def test_any_cut_and_any_moment_of_opening_give_the_same_bytes(sizes: list[int], opens: int) -> None:
    """However reads are cut and whenever the client's side opens, the client gets the provider's bytes."""
    whole = PING + ROLE + TEXT + PING + TEXT + STOP + DONE
    relay, _ = make()
    client = Client()
    waiting, opened = 0, False
    for piece in pieces(whole, sizes):
        if piece:
            relay.body_received(piece)
        if relay._verdict is Verdict.COMMIT and not opened:
            if waiting == opens:
                relay.open(client)
                opened = True
            waiting += 1
    if not opened:
        relay.open(client)
    assert client.sent == whole
    assert relay.end is End.COMPLETED


async def test_nothing_is_sent_before_meaning() -> None:
    """Preambles wait; the verdict comes with the first words, and reading pauses until the client's side is open."""
    relay, response = make()
    verdict = asyncio.ensure_future(relay.verdict())
    relay.body_received(PING + ROLE)
    await asyncio.sleep(0)
    assert not verdict.done()
    relay.body_received(TEXT)
    assert await verdict is Verdict.COMMIT
    assert response.calls == ["pause"]


class Unwritable:
    """A translator that passes everything on, but for one moment at which nothing can be written."""

    usage = None

    def __init__(self, fails: str) -> None:
        self.fails = fails

    def feed(self, data: bytes) -> bytes:
        """Fails where `fails` says so."""
        if self.fails.encode() in data:
            raise TooDeep("too deep")
        return data

    def close(self) -> bytes:
        """The same."""
        if self.fails == "the end":
            raise TooDeep("too deep")
        return b""


@pytest.mark.parametrize("fails", ["x", "the end"])
async def test_what_cannot_be_translated_ends_the_answer(fails: str) -> None:
    """A failed attempt before the meaning, a cut after it; never an answer that nobody ends."""
    early, _ = make(translator=Unwritable(fails))
    early.body_received(ROLE)
    late, _ = make(translator=Unwritable(fails))
    late.body_received(ROLE + TEXT)
    client = Client()
    late.open(client)
    for relay in (early, late):
        relay.body_received(b": x\n\n")
        relay.body_ended(None)
    assert await early.verdict() is Verdict.REJECT
    assert early.failure is not None
    assert early.failure.kind is FailureKind.INVALID_RESPONSE
    assert late.end is End.CUT
    assert client.ended
    assert b'"upstream_error"' in client.sent


@pytest.mark.parametrize("before", [b"", PING, ROLE])
@pytest.mark.parametrize("together", [True, False], ids=["in one read", "in two"])
async def test_what_comes_with_the_meaning_is_looked_at(before: bytes, together: bool) -> None:
    """An error that came before the client's side was open is told as ours, never passed on."""
    relay, _ = make()
    client = Client()
    error = b'data: {"error":{"message":"sk-secret-key is wrong"}}\n\n'
    if before:
        relay.body_received(before)
    for block in (TEXT + error,) if together else (TEXT, error):
        relay.body_received(block)
    relay.open(client)
    assert relay.end is End.CUT
    assert client.sent.startswith(before + TEXT + b'data: {"error":')
    assert b"sk-secret-key" not in client.sent


async def test_done_ends_the_answer_though_the_upstream_goes_on() -> None:
    """Bytes behind [DONE] are not passed on, and the connection is let go in peace."""
    relay, response = make()
    client = Client()
    relay.body_received(ROLE + TEXT)
    relay.open(client)
    relay.body_received(STOP + DONE + b": late\n\n")
    relay.body_received(b": later\n\n")
    assert client.sent == ROLE + TEXT + STOP + DONE
    assert response.calls[-1] == "release"


@pytest.mark.parametrize(
    ("tail", "added"),
    [(STOP, DONE), (STOP.rstrip() + b"\n", b"\n" + DONE), (STOP + b'data: {"half', DONE)],
)
async def test_a_finish_without_done_gets_one(tail: bytes, added: bytes) -> None:
    """After a finish and a clean end [DONE] is appended; a last event gets its blank line, half an event is dropped."""
    relay, _ = make()
    client = Client()
    relay.body_received(ROLE + TEXT)
    relay.open(client)
    relay.body_received(tail)
    relay.body_ended(None)
    kept = tail.partition(b'data: {"half')[0]
    assert client.sent == ROLE + TEXT + kept + added
    assert relay.end is End.COMPLETED


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (None, FailureKind.TRUNCATED, b"upstream_truncated"),
        (ConnectionLost("it broke off"), FailureKind.CONNECTION_LOST, b"upstream_truncated"),
    ],
)
async def test_a_cut_answer_never_looks_complete(error: ConnectionLost | None, kind: FailureKind, code: bytes) -> None:
    """One error event, no [DONE], and the upstream is closed."""
    relay, response = make()
    client = Client()
    relay.body_received(ROLE + TEXT)
    relay.open(client)
    relay.body_ended(error)
    assert client.sent.startswith(ROLE + TEXT + b'data: {"error":')
    assert client.sent.count(b"\n\n") == 3
    assert code in client.sent
    assert b"DONE" not in client.sent
    assert relay.failure is not None
    assert relay.failure.kind is kind
    assert response.calls[-1] == "close"


async def test_half_of_two_choices_is_cut() -> None:
    """With n=2 both choices must have finished."""
    relay, _ = make(choices=2)
    client = Client()
    relay.body_received(TEXT)
    relay.open(client)
    relay.body_received(STOP)
    relay.body_ended(None)
    assert relay.end is End.CUT


async def test_error_events_are_masked_and_end_the_answer() -> None:
    """The provider's words are kept, its secrets are not, and nothing follows."""
    relay, _ = make()
    client = Client()
    relay.body_received(TEXT)
    relay.open(client)
    relay.body_received(b'data: {"error":{"message":"key sk-secret-key is bad"}}\n\n' + STOP + DONE)
    assert b"is bad" in client.sent
    assert b"sk-secret" not in client.sent
    assert b"stop" not in client.sent
    assert relay.end is End.CUT


@pytest.mark.parametrize(("field", "blank"), [(b"data: ", b"\n\n"), (b"", b"\n\n"), (b"", b"")])
@pytest.mark.parametrize("careless", [b'"a\t\\ud83d"', b'"a\t\\ud83d","code":' + b"9" * 30])
async def test_an_error_gets_out_whatever_is_in_its_words(careless: bytes, field: bytes, blank: bytes) -> None:
    """Half characters and numbers beyond 64 bits cannot be written: the client is told of the error all the same."""
    relay, _ = make()
    client = Client()
    relay.body_received(ROLE + TEXT)
    relay.open(client)
    relay.body_received(field + b'{"error":{"message":' + careless + b"}}" + blank)
    relay.body_ended(None)
    event = client.sent.removeprefix(ROLE + TEXT).removeprefix(b"data: ")
    assert orjson.loads(event)["error"]["message"] == "a\t\ufffd"
    assert relay.end is End.CUT


async def test_a_full_client_pauses_its_upstream() -> None:
    """Reading stops while the client does not read, and goes on afterwards."""
    relay, response = make()
    client = Client()
    relay.body_received(TEXT)
    relay.open(client)
    running = asyncio.ensure_future(relay.run())
    await asyncio.sleep(0)
    client.full = True
    relay.body_received(TEXT)
    assert response.calls[-1] == "pause"
    await asyncio.sleep(0)
    client.readable.set()
    await asyncio.sleep(0.01)
    assert response.calls[-1] == "resume"
    relay.body_received(STOP + DONE)
    assert await running is End.COMPLETED


async def test_the_idle_clock_stands_still_for_a_client_that_does_not_read() -> None:
    """Only the upstream's silence is cut; a slow client is no reason."""
    relay, _ = make()
    client = Client()
    relay.body_received(TEXT)
    relay.open(client)
    client.full = True
    relay.check_idle(1000.0)
    assert relay.end is None
    client.full = False
    relay.check_idle(1000.0)
    assert relay.end is End.CUT
    assert b"upstream_idle_timeout" in client.sent


async def test_nothing_is_cut_between_a_client_that_reads_on_and_an_upstream_that_is_read_again() -> None:
    """When the client has just made room, the silence until the upstream is read again is still ours."""
    relay, _ = make()
    client = Client()
    relay.body_received(TEXT)
    relay.open(client)
    running = asyncio.ensure_future(relay.run())
    await asyncio.sleep(0)
    client.full = True
    relay.body_received(TEXT)
    await asyncio.sleep(0)
    client.full = False
    relay.check_idle(1e9)
    assert relay.end is None
    client.readable.set()
    await asyncio.sleep(0.01)
    relay.body_received(STOP + DONE)
    assert await running is End.COMPLETED


async def test_what_comes_after_the_end_changes_nothing() -> None:
    """A connection that breaks, or a router that stops, when the answer is over makes no cut of it."""
    relay, _ = make()
    client = Client()
    relay.body_received(TEXT)
    relay.open(client)
    relay.body_received(STOP + DONE)
    relay.body_ended(ConnectionLost("gone"))
    relay.stop(Failure(FailureKind.SHUTTING_DOWN, "too late"))
    assert (relay.end, relay.failure, client.sent) == (End.COMPLETED, None, TEXT + STOP + DONE)


async def test_a_break_between_the_meaning_and_the_client_is_told() -> None:
    """What breaks off before the client's side is open is a cut as soon as it is, not a stream without end."""
    relay, _ = make()
    client = Client()
    relay.body_received(TEXT)
    relay.body_ended(ConnectionLost("gone"))
    assert await relay.verdict() is Verdict.COMMIT
    relay.open(client)
    assert relay.end is End.CUT
    assert client.sent.startswith(TEXT + b'data: {"error"')
    assert b"upstream_truncated" in client.sent


@pytest.mark.parametrize("broken", [False, True])
async def test_only_a_whole_body_may_turn_out_to_be_json(broken: bool) -> None:
    """Half of an answer reads like a whole one where a blank line stands in its middle."""
    relay, _ = make()
    whole = b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    relay.body_received(whole)
    relay.body_ended(ConnectionLost("gone") if broken else None)
    assert await relay.verdict() is Verdict.REJECT
    assert relay.unlabelled() == (b"" if broken else whole)


@pytest.mark.parametrize("event", [TEXT, b"event: x\n" + TEXT], ids=["plain", "odd"])
async def test_a_client_that_is_full_pauses_its_upstream(event: bytes) -> None:
    """At the first bytes as at later ones, whatever kind of event they are; it is read again when there is room."""
    relay, response = make()
    client = Client()
    relay.body_received(TEXT)
    response.calls.clear()
    client.full = True
    relay.open(client)
    assert set(response.calls) == {"pause"}
    running = asyncio.ensure_future(relay.run())
    await asyncio.sleep(0)
    client.readable.set()
    await asyncio.sleep(0.01)
    assert response.calls[-1] == "resume"
    client.readable.clear()
    client.full = True
    relay.body_received(event)
    assert response.calls[-1] == "pause"
    await asyncio.sleep(0)
    relay.check_idle(1e9)
    assert relay.end is None
    client.readable.set()
    await asyncio.sleep(0.01)
    assert response.calls[-1] == "resume"
    # The silence from now on is the upstream's, but not the one before.
    now = asyncio.get_running_loop().time()
    relay.check_idle(now + relay.idle / 2)
    assert relay.end is None
    relay.check_idle(now + relay.idle + 1)
    assert await running is End.CUT


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (FailureKind.IDLE_TIMEOUT, "upstream_idle_timeout"),
        (FailureKind.TRUNCATED, "upstream_truncated"),
        (FailureKind.CONNECTION_LOST, "upstream_truncated"),
        (FailureKind.PROTOCOL_ERROR, "upstream_truncated"),
        (FailureKind.SHUTTING_DOWN, "upstream_truncated"),
        (FailureKind.UPSTREAM_ERROR, "upstream_error"),
        (FailureKind.RESPONSE_TOO_LARGE, "upstream_error"),
    ],
)
def test_a_cut_has_one_of_three_codes(kind: FailureKind, code: str) -> None:
    """Clients tell by it whether the provider went silent, left, or said what went wrong."""
    event = error_event(Failure(kind, "why"), str)
    error = orjson.loads(event.removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == (code, "server_error")


@pytest.mark.parametrize(
    ("failure", "type"),
    [
        (Failure(FailureKind.UPSTREAM_ERROR, "Overloaded", 200, type="overloaded_error"), "server_error"),
        (Failure(FailureKind.UPSTREAM_ERROR, "No", 200, code="401", type="authentication_error"), "server_error"),
        (Failure(FailureKind.UPSTREAM_ERROR, "too long", 200, code="context_length_exceeded"), "invalid_request_error"),
        (Failure(FailureKind.UPSTREAM_ERROR, "flagged", 200, code="content_policy_violation"), "invalid_request_error"),
        (Failure(FailureKind.CONNECTION_LOST, "context length exceeded"), "server_error"),
    ],
)
def test_agents_read_in_the_type_of_a_cut_whether_to_try_again(failure: Failure, type: str) -> None:
    """OpenCode repeats a turn whose error says `server_error`, and gave up over a type that is no API's."""
    assert orjson.loads(error_event(failure, str).removeprefix(b"data: "))["error"]["type"] == type


@pytest.mark.parametrize(("choices", "done"), [(1, b""), (1, DONE), (2, b""), (2, DONE)])
async def test_an_empty_answer_ends_like_any_other(choices: int, done: bytes) -> None:
    """As it came; where it was whole, but for the end that says so, the client gets that too."""
    relay, _ = make(choices)
    relay.body_received(PING + ROLE + STOP + done)
    relay.body_ended(None)
    client = Client()
    relay.pass_on_empty(client)
    assert await relay.run() is End.COMPLETED
    assert client.ended
    assert client.sent == PING + ROLE + STOP + (done or (DONE if choices == 1 else b""))
    assert b"".join(relay.tap.kept_blocks()) == client.sent


@pytest.mark.parametrize("behind", [PING, TEXT, b'data: {"error":{"message":"sk-secret-key"}}\n\n'])
async def test_the_first_done_ends_an_empty_answer(behind: bytes) -> None:
    """What the provider says behind it reaches nobody, though it came in the same read."""
    relay, _ = make()
    relay.body_received(STOP + DONE + behind)
    client = Client()
    relay.pass_on_empty(client)
    assert client.sent == STOP + DONE
    assert b"".join(relay.tap.kept_blocks()) == client.sent


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n"])
async def test_an_error_without_a_field_name_is_no_empty_answer(ending: bytes) -> None:
    """Before the commit point as after it: the attempt has failed by the provider's words, with their end or not."""
    relay, _ = make()
    relay.body_received(STOP + b'{"error":{"message":"boom"}}' + ending)
    relay.body_ended(None)
    assert await relay.verdict() is Verdict.REJECT
    failure = relay.gate.failure()
    assert (failure.kind, failure.message) == (FailureKind.UPSTREAM_ERROR, "boom")
    assert not relay.gate.well_formed_empty


async def test_an_endless_event_is_cut() -> None:
    """A line without end costs its bound and then the attempt."""
    relay, _ = make()
    for _ in range(20):
        relay.body_received(b"data: " + b"x" * 1024 * 1024)
    assert relay._verdict is Verdict.REJECT
    assert relay.failure is not None
    assert relay.failure.kind is FailureKind.RESPONSE_TOO_LARGE
