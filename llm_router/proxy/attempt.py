"""One attempt at one candidate: connect, send, wait for meaning. Gives what was won, or raises AttemptFailed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import orjson

from llm_router.config.values import Timeouts
from llm_router.errors import AttemptFailed, Failure, FailureKind
from llm_router.proxy.deadlines import Deadlines
from llm_router.proxy.gate import Verdict, judge_completion
from llm_router.proxy.relay import Relay
from llm_router.proxy.tap import Tap, TapBudget
from llm_router.proxy.upstream import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    InvalidCall,
    ResponseTooLarge,
    UpstreamClient,
    UpstreamError,
    UpstreamResponse,
)
from llm_router.routing.breaker import Permit
from llm_router.wire.chat import ChatRequest
from llm_router.wire.providers.base import Adapter, StreamTranslator, Target
from llm_router.wire.providers.errors import request_trouble
from llm_router.wire.restream import as_stream
from llm_router.wire.usage import Usage

ERROR_BODY_BYTES = 64 * 1024
ERROR_BODY_SECONDS = 5.0
WHOLE_BODY_BYTES = 64 * 1024 * 1024


class WonStream(NamedTuple):
    """A stream whose first meaning has come; `relay` carries on. `allowed` are upstream headers to pass on."""

    relay: Relay
    translator: StreamTranslator | None
    allowed: dict[str, str]


class WonWhole(NamedTuple):
    """A whole answer: the body for the client, as JSON or (`as_stream`) as the events of a stream."""

    body: bytes
    as_stream: bool
    usage: Usage | None
    allowed: dict[str, str]


Won = WonStream | WonWhole


class EmptyAnswer(AttemptFailed):
    """The provider answered with a well-formed nothing; `won` may be passed on when no candidate is left."""

    def __init__(self, failure: Failure, won: Won) -> None:
        super().__init__(failure)
        self.won = won


@dataclass(slots=True)
class Attempt:
    """Everything that one try needs. `seconds` bounds it up to the commit point."""

    chat: ChatRequest
    target: Target
    adapter: Adapter
    timeouts: Timeouts
    seconds: float
    mask: Callable[[str], str]
    budget: TapBudget
    deadlines: Deadlines
    connected: Callable[[Permit], None] | None = None
    permit: Permit | None = None

    async def run(self, upstream: UpstreamClient) -> Won:
        """Raises AttemptFailed (its message masked); cancellation closes the upstream at once."""
        seconds = self.seconds
        connect = self.timeouts.connect or seconds
        try:
            with self.deadlines.within(seconds):
                call = self.adapter.call(self.chat, self.target)
                response = await upstream.send(call, connect_timeout=connect if connect < seconds else seconds)
                if self.connected is not None and self.permit is not None:
                    self.connected(self.permit)
                try:
                    return await self._answer(response)
                except BaseException:
                    response.close()
                    raise
        except TimeoutError:
            message = f"no answer within {self.seconds:.3g} seconds"
            raise AttemptFailed(Failure(FailureKind.FIRST_BYTE_TIMEOUT, message)) from None
        except UpstreamError as error:
            raise AttemptFailed(Failure(_KINDS.get(type(error), _kind_of(error)), self.mask(str(error)))) from None

    async def _answer(self, response: UpstreamResponse) -> Won:
        if not 200 <= response.status < 300:
            raise AttemptFailed(await self._refusal(response))
        if self.chat.stream and not _is_whole(response):
            return await self._stream(response, self.adapter.translator(self.chat, self.target))
        if "html" in response.headers.get("content-type", ""):
            message = "the provider answered 200 with a web page"
            raise AttemptFailed(Failure(FailureKind.INVALID_RESPONSE, message, response.status))
        return self._whole(response, await response.read(WHOLE_BODY_BYTES))

    async def _refusal(self, response: UpstreamResponse) -> Failure:
        try:
            async with asyncio.timeout(min(ERROR_BODY_SECONDS, self.seconds)):
                body = await response.read(ERROR_BODY_BYTES)
        except (TimeoutError, UpstreamError):
            body = b""  # the status alone has to do
        failure = self.adapter.failure(response.status, response.headers, body, time.time())
        return _masked(failure, self.mask)

    async def _stream(self, response: UpstreamResponse, translator: StreamTranslator | None) -> WonStream:
        choices = self.chat.body.get("n")
        relay = Relay(
            response,
            translator,
            Tap(self.budget),
            choices=choices if isinstance(choices, int) and choices > 0 else 1,
            idle=self.timeouts.idle or float("inf"),
            mask=self.mask,
            loop=self.deadlines.loop,
        )
        response.attach(relay)
        try:
            verdict = await relay.verdict()
        except BaseException:
            relay.abandon()
            raise
        won = WonStream(relay, translator, _allowed(response, self.mask))
        if verdict is Verdict.COMMIT:
            return won
        relay.response.close()
        failure = _understood(relay.failure or relay.gate.failure(), self.mask)
        if failure.kind is FailureKind.EMPTY_COMPLETION and relay.gate.well_formed_empty:
            raise EmptyAnswer(failure, won)
        raise AttemptFailed(failure)

    def _whole(self, response: UpstreamResponse, body: bytes) -> WonWhole:
        if not body or body.isspace():
            raise AttemptFailed(
                Failure(FailureKind.EMPTY_COMPLETION, "the provider answered with nothing", response.status)
            )
        try:
            completion = self.adapter.completion(self.chat, self.target, body)
        except AttemptFailed as error:
            raise AttemptFailed(_understood(error.failure, self.mask)) from None
        parsed = completion.parsed
        if parsed is None:
            parsed = orjson.loads(completion.body)
        verdict = judge_completion(parsed)
        won: WonWhole | None = None
        if verdict.failure is None or verdict.well_formed_empty:
            data = as_stream(parsed, with_usage=self.chat.wants_usage) if self.chat.stream else completion.body
            won = WonWhole(data, self.chat.stream, completion.usage, _allowed(response, self.mask))
        if verdict.failure is None:
            assert won is not None
            return won
        failure = _understood(verdict.failure, self.mask)
        if won is not None:
            raise EmptyAnswer(failure, won)
        raise AttemptFailed(failure)


def _is_whole(response: UpstreamResponse) -> bool:
    """Whether the answer to a streaming request is no stream: JSON, or a page."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
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


def _allowed(response: UpstreamResponse, mask: Callable[[str], str]) -> dict[str, str]:
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


def _understood(failure: Failure, mask: Callable[[str], str]) -> Failure:
    """A 200 that failed; one about the request itself is nobody's fault, as it would be with a status of its own."""
    masked = _masked(failure, mask)
    kind = request_trouble(masked) if masked.kind is FailureKind.UPSTREAM_ERROR else None
    return masked if kind is None else replace(masked, kind=kind)


def _masked(failure: Failure, mask: Callable[[str], str]) -> Failure:
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


def _kind_of(error: UpstreamError) -> FailureKind:
    return FailureKind.CONNECT_ERROR if isinstance(error, ConnectFailed) else FailureKind.PROTOCOL_ERROR
