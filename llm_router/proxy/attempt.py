"""One attempt at one candidate: connect, send, wait for meaning. Gives what was won, or raises AttemptFailed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson

from llm_router.errors import AttemptFailed, Failure, FailureKind
from llm_router.proxy.gate import COMMIT, Verdict, judge_completion
from llm_router.proxy.live import Live, Way
from llm_router.proxy.parts import Parts, Slot
from llm_router.proxy.relay import Relay
from llm_router.proxy.tap import Tap
from llm_router.proxy.upstream import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    InvalidCall,
    NoResources,
    ResponseTooLarge,
    UpstreamError,
    UpstreamResponse,
)
from llm_router.routing.breaker import Permit
from llm_router.routing.plan import Candidate
from llm_router.wire.chat import ChatRequest, TooDeep
from llm_router.wire.providers.errors import read_failure, request_trouble
from llm_router.wire.restream import as_stream
from llm_router.wire.usage import Usage

# Validators repeat the whole request that they refuse, beside the words.
ERROR_BODY_BYTES = 1024 * 1024
ERROR_BODY_SECONDS = 5.0
WHOLE_BODY_BYTES = 64 * 1024 * 1024
# A value of three bytes takes twenty times as many once it is parsed, and compressed hardly any. The log probabilities
# of a long answer are two millions of them.
_BIG_BYTES = 1024 * 1024
_MOST_VALUES = 4_000_000

Mask = Callable[[str], str]


class Won:
    """An answer that can be sent; `allowed` are upstream headers to pass on.

    The contest notes whose it is, when its meaning came, and what has to be settled when it has ended.
    """

    candidate: Candidate
    committed_at: float  # the loop's clock
    committed_ms = 0.0  # from the attempt's beginning
    permit: Permit | None = None
    slot: Slot | None = None
    empty: Failure | None = None  # it is a well-formed empty answer that nobody could better
    allowed: Mapping[str, str]


class WonStream(Won):
    """A stream whose first meaning has come; `relay` carries on."""

    def __init__(self, relay: Relay, allowed: Mapping[str, str]) -> None:
        self.relay = relay
        self.allowed = allowed


class WonWhole(Won):
    """A whole answer: the body for the client, as JSON or (`as_stream`) as the events of a stream."""

    def __init__(self, body: bytes, as_stream: bool, usage: Usage | None, allowed: Mapping[str, str]) -> None:
        self.body = body
        self.as_stream = as_stream
        self.usage = usage
        self.allowed = allowed


class EmptyAnswer(AttemptFailed):
    """The provider answered with a well-formed nothing; `won` may be passed on when no candidate is left."""

    def __init__(self, failure: Failure, won: WonStream | WonWhole) -> None:
        super().__init__(failure)
        self.won = won
        won.empty = failure


class CancelledReported(asyncio.CancelledError):
    """Given up before the answer had meaning; the provider had said by then what it read."""

    def __init__(self, usage: Usage | None) -> None:
        super().__init__()
        self.usage = usage


async def attempt(
    parts: Parts, live: Live, chat: ChatRequest, way: Way, seconds: float, permit: Permit | None = None
) -> WonStream | WonWhole:
    """Asks one candidate; `seconds` bound it up to the commit point. The circuits are told that `permit` connected.

    Raises AttemptFailed (its message masked). Unless it gives an answer, the upstream is closed at once.
    """
    response: UpstreamResponse | None = None
    relay: Relay | None = None
    task = parts.deadlines.start(seconds)
    try:
        connect = way.connect
        response = await parts.upstream.send(
            way.adapter.call(chat, way.target), connect_timeout=connect if connect < seconds else seconds
        )
        if permit is not None:
            parts.circuits.connected(permit)
        if not 200 <= response.status < 300:
            raise AttemptFailed(await _refusal(response, live.mask))
        won: WonStream | WonWhole
        if chat.stream and not _is_whole(response):
            relay = _relay(response, chat, way, parts, live.mask)
            verdict = await relay.verdict()
            if verdict is not COMMIT and (body := relay.unlabelled()):
                won = _whole(response, body, chat, way, live.mask)
            else:
                won = _stream(relay, verdict, live.mask)
        else:
            _refuse_page(response)
            whole = response.take_whole(WHOLE_BODY_BYTES)
            if whole is None:
                whole = await response.read(WHOLE_BODY_BYTES)
            won = _whole(response, whole, chat, way, live.mask)
    except BaseException as error:
        if response is not None:
            response.close()
        late = parts.deadlines.stop(task) and isinstance(error, asyncio.CancelledError)
        failure = _late(response, live.mask, seconds) if late else _told_by(error, response, live.mask)
        usage = _reported(error, relay)
        if failure is None and usage is None:
            raise
        # The frames hold the future that holds the error: request and answer would wait for the collector.
        # For the same reason this frame holds nothing that it raises.
        error.__traceback__ = None
        if failure is not None:
            raise AttemptFailed(failure) from None
        raise CancelledReported(usage) from None
    parts.deadlines.stop(task)
    return won


def _reported(error: BaseException, relay: Relay | None) -> Usage | None:
    """What the provider of an answer that was given up had said by then."""
    return relay.usage if relay is not None and isinstance(error, asyncio.CancelledError) else None


def _late(response: UpstreamResponse | None, mask: Mask, seconds: float) -> Failure:
    if response is not None and not 200 <= response.status < 300:
        return _refused(response, b"", mask)  # the words did not come in time, the status did
    return Failure(FailureKind.FIRST_BYTE_TIMEOUT, f"no answer within {seconds:.3g} seconds")


def _told_by(error: BaseException, response: UpstreamResponse | None, mask: Mask) -> Failure | None:
    """What went wrong on the way; None for an exception that is not about the way."""
    if isinstance(error, UpstreamError):
        return Failure(kind_of(error), mask(str(error)))
    if not isinstance(error, TooDeep):
        return None
    if response is None:
        return Failure(FailureKind.INVALID_REQUEST, f"The request cannot be passed on: its {error}")
    return Failure(FailureKind.INVALID_RESPONSE, f"the provider's answer cannot be passed on: its {error}", 200)


async def _refusal(response: UpstreamResponse, mask: Mask) -> Failure:
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            body = await response.read(ERROR_BODY_BYTES)
    except (TimeoutError, UpstreamError):
        body = b""  # the status alone has to do
    return _refused(response, body, mask)


def _refused(response: UpstreamResponse, body: bytes, mask: Mask) -> Failure:
    return _masked(read_failure(response.status, response.headers, body, time.time()), mask)


def _relay(response: UpstreamResponse, chat: ChatRequest, way: Way, parts: Parts, mask: Mask) -> Relay:
    choices = chat.body.get("n")
    relay = Relay(
        response,
        way.adapter.translator(chat, way.target),
        Tap(parts.taps),
        choices=choices if isinstance(choices, int) and choices > 0 else 1,
        idle=way.idle,
        mask=mask,
        loop=parts.deadlines.loop,
    )
    response.attach(relay)
    return relay


def _stream(relay: Relay, verdict: Verdict, mask: Mask) -> WonStream:
    won = WonStream(relay, _allowed(relay.response, mask))
    if verdict is COMMIT:
        return won
    failure = _understood(relay.failure or relay.gate.failure(), mask)
    if failure.kind is FailureKind.EMPTY_COMPLETION and relay.gate.well_formed_empty:
        raise EmptyAnswer(failure, won)
    raise AttemptFailed(failure)


def _refuse_page(response: UpstreamResponse) -> None:
    if "html" in response.headers.get("content-type", ""):
        message = "the provider answered 200 with a web page"
        raise AttemptFailed(Failure(FailureKind.INVALID_RESPONSE, message, response.status))


def _whole(response: UpstreamResponse, body: bytes, chat: ChatRequest, way: Way, mask: Mask) -> WonWhole:
    if not body or body.isspace():
        message = "the provider answered with nothing"
        raise AttemptFailed(Failure(FailureKind.EMPTY_COMPLETION, message, response.status))
    if len(body) > _BIG_BYTES and body.count(b",") > _MOST_VALUES:
        message = "the answer has more values in it than any answer needs"
        raise AttemptFailed(Failure(FailureKind.RESPONSE_TOO_LARGE, message, response.status))
    try:
        completion = way.adapter.completion(chat, way.target, body)
    except AttemptFailed as error:
        raise AttemptFailed(_understood(error.failure, mask)) from None
    parsed = completion.parsed
    if parsed is None:
        parsed = orjson.loads(completion.body)
    verdict = judge_completion(parsed)
    failure = None if verdict.failure is None else _understood(verdict.failure, mask)
    if failure is not None and not verdict.well_formed_empty:
        raise AttemptFailed(failure)
    data = as_stream(parsed, with_usage=chat.wants_usage) if chat.stream else completion.body
    won = WonWhole(data, chat.stream, completion.usage, _allowed(response, mask))
    if failure is not None:
        raise EmptyAnswer(failure, won)
    return won


def _is_whole(response: UpstreamResponse) -> bool:
    """Whether the answer to a streaming request is no stream: JSON, or a page."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == "text/event-stream":
        return False
    kind = kind.strip().lower()
    return kind.endswith(("/json", "+json")) or "html" in kind


# Of an upstream's headers, these and no others reach the client.
_ALLOWED_HEADERS = frozenset(
    (
        "openai-processing-ms",
        "openai-version",
        "x-generation-id",
        "x-ratelimit-limit-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
    )
)
_HEADER_MOST = 200
_PLAIN = re.compile(r"[\x20-\x7e]*")


def _allowed(response: UpstreamResponse, mask: Mask) -> dict[str, str]:
    headers = response.headers
    if _ALLOWED_HEADERS.isdisjoint(headers):
        return {}
    return {
        name: value
        for name in _ALLOWED_HEADERS
        if (value := headers.get(name)) is not None
        and len(value) <= _HEADER_MOST
        and _PLAIN.fullmatch(value)
        and mask(value) == value
    }


def _understood(failure: Failure, mask: Mask) -> Failure:
    """A 200 that failed; one about the request itself is nobody's fault, as it would be with a status of its own."""
    masked = _masked(failure, mask)
    kind = request_trouble(masked) if masked.kind is FailureKind.UPSTREAM_ERROR else None
    return masked if kind is None else replace(masked, kind=kind)


def _masked(failure: Failure, mask: Mask) -> Failure:
    return Failure(
        failure.kind,
        mask(failure.message),
        failure.status,
        mask(failure.code) if failure.code else None,
        failure.type,
        mask(failure.param) if failure.param else None,
        failure.retry_after,
    )


_KINDS: dict[type[UpstreamError], FailureKind] = {
    ConnectTimeout: FailureKind.CONNECT_TIMEOUT,
    ConnectionLost: FailureKind.CONNECTION_LOST,
    ResponseTooLarge: FailureKind.RESPONSE_TOO_LARGE,
    InvalidCall: FailureKind.CONNECT_ERROR,  # a key or address of ours that HTTP cannot carry
}


def kind_of(error: UpstreamError) -> FailureKind:
    """What people and circuits are told of an upstream that did not answer."""
    if isinstance(error, ConnectFailed):
        return FailureKind.NO_RESOURCES if isinstance(error, NoResources) else FailureKind.CONNECT_ERROR
    return _KINDS.get(type(error), FailureKind.PROTOCOL_ERROR)
