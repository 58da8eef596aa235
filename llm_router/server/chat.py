"""The chat route: reads the request, hands it to the dispatcher, and is the client's side of the answer."""

from __future__ import annotations

import math

from aiohttp import HttpVersion11, web

from llm_router.errors import ApiError
from llm_router.proxy.exchange import NONE, Caller
from llm_router.proxy.relay import ClientStream
from llm_router.server.answers import common_headers, json_answer, request_id
from llm_router.server.bodies import read_body
from llm_router.server.guard import client_of
from llm_router.server.keys import ROUTER
from llm_router.wire.chat import parse_chat

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


JSON_HEADERS = {"Content-Type": "application/json"}
# For answers that were refused before anything was decided.
UNDECIDED = {f"x-router-{name}": NONE for name in ("category", "mode", "model", "provider")} | {
    "x-router-attempts": "0"
}


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions and /chat/completions."""
    try:
        return await _chat(request)
    except ApiError as error:
        error.headers = {**UNDECIDED, **error.headers}
        raise


async def _chat(request: web.Request) -> web.StreamResponse:
    router = request.app[ROUTER]
    if router.draining:
        raise ApiError(
            503,
            "The router is shutting down",
            type="server_error",
            code="shutting_down",
            headers={"Retry-After": "1", "Connection": "close"},
        )
    snapshot = router.snapshot
    parsed = parse_chat(await read_body(request, snapshot.max_body_bytes))
    caller = caller_in(request)
    if request.headers.get("x-router-dry-run") == "1":
        return json_answer(router.explain(parsed, caller))
    client = HttpDownstream(request)
    await router.answer(parsed, caller, client)
    assert client.response is not None
    return client.response


def caller_in(request: web.Request) -> Caller:
    """Who asks, and within which limits. Raises ApiError (400) for a limit that is no number."""
    return Caller(
        request_id=request_id(request),
        client=client_of(request),
        session=request.headers.get("x-session-id", ""),
        max_price=max_price_of(request),
    )


def max_price_of(request: web.Request) -> float | None:
    """The most that this request may cost, in USD, as its header says. Raises ApiError (400)."""
    text = request.headers.get("x-router-max-price")
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not math.isfinite(price) or price < 0:
        message = "the header x-router-max-price must be a number of USD, such as 0.05"
        raise ApiError(400, message, param="x-router-max-price")
    return price


class HttpDownstream:
    """One client connection for one answer, as the dispatcher sees it."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response: web.StreamResponse | None = None

    async def start_stream(self, headers: dict[str, str]) -> ClientStream:
        """Sends the head; what follows is written by `StreamWriter`."""
        response = web.StreamResponse(headers={**headers, **STREAM_HEADERS, **common_headers(self._request)})
        self.response = response
        await response.prepare(self._request)
        return StreamWriter(self._request, response)

    async def end_stream(self) -> None:
        """The clean end of the body."""
        assert self.response is not None
        await self.response.write_eof()

    async def send_whole(self, body: bytes, headers: dict[str, str], *, as_stream: bool) -> None:
        """A whole answer in one piece."""
        kind = STREAM_HEADERS if as_stream else JSON_HEADERS
        self.response = web.Response(body=body, headers={**headers, **kind})


class StreamWriter:
    """Writes whole events to the client's transport, framed by us, without waking a task.

    aiohttp's own `write` is a coroutine; here the caller is a data callback, which must not wait. Back-pressure is the
    transport's: `full` while its buffer is over the high-water mark, `drain` until it is not.
    """

    __slots__ = ("_chunked", "_protocol", "_response", "_transport")

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._chunked = request.version >= HttpVersion11
        self._protocol = request.protocol
        self._transport = request.transport
        self._response = response

    @property
    def full(self) -> bool:
        """Whether the client has not read enough yet."""
        return self._protocol.writing_paused

    def write(self, data: bytes) -> None:
        """Sends `data` as one chunk; nothing happens once the client is gone (the handler is being cancelled)."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        transport.write(data)

    async def drain(self) -> None:
        """Waits for the client to read. Raises ConnectionError if it left."""
        await self._response.drain()
