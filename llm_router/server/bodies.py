"""Reading request bodies: bounded, never decompressed, and never longer in memory than they must be."""

from __future__ import annotations

import contextlib
from typing import NoReturn

from aiohttp import hdrs, web
from aiohttp.streams import StreamReader

from llm_router.errors import CLOSE, ApiError
from llm_router.server.connections import BodyEnded, Connection
from llm_router.server.limits import BIG_BODY_BYTES, VALUE_BYTES


async def expect_later(request: web.Request) -> None:
    """The `expect_handler` of routes that take a body: `read_body` sends the `100 Continue` once nothing forbids it."""


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes. A declared length above the limit is refused before anything is read.

    Raises ApiError: 400 for broken framing, 408 for silence, 413 for too long a body, 415 for a compressed one,
    503 where the router began to drain meanwhile.
    """
    headers = request.headers
    if headers.get(hdrs.CONTENT_ENCODING, "identity").lower() not in ("identity", ""):
        message = "Compressed request bodies are not taken; send the JSON as it is"
        raise ApiError(415, message, code="unsupported_content_encoding", headers=CLOSE)
    if (request.content_length or 0) > limit:
        _refuse_length(limit)
    payload = request.content
    if payload.is_eof() and payload.exception() is None:
        body = payload.read_nowait(-1)
        if len(body) > limit:
            _refuse_length(limit)
        return body
    if hdrs.EXPECT in headers and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # nothing of the answer itself has been sent
    return await read_on(request.protocol, request.content, limit)


def whole_body(payload: StreamReader) -> bytes | None:
    """A body that came whole before it was asked for; None for one that is still coming, or broke.

    The reader's own way to its parts counts and checks for a stream that goes on, which this one does not.
    """
    if not payload._eof or payload._exception is not None:
        return None
    parts = payload._buffer
    if len(parts) == 1:
        return parts.popleft()
    body = b"".join(parts)
    parts.clear()
    return body


async def await_whole(connection: Connection, payload: StreamReader) -> bytes:
    """A body of at most `BIG_BODY_BYTES` that is still coming: waits for its end once, not for each of its parts.

    Raises as `read_body`.
    """
    payload.set_read_chunk_size(BIG_BODY_BYTES)  # it may come without a pause
    connection.resume_reading()
    if payload._exception is None:
        with contextlib.suppress(web.RequestPayloadError):
            await payload.wait_eof()
    body = whole_body(payload)
    # what spoilt it is told where all bodies are read
    return body if body is not None else await read_on(connection, payload, BIG_BODY_BYTES)


async def read_on(connection: web.RequestHandler, payload: StreamReader, limit: int) -> bytes:
    """A body that is still coming. Raises as `read_body`."""
    parts: list[bytes] = []
    size = 0
    try:
        while part := await payload.readany():
            size += len(part)
            if size > limit:
                _refuse_length(limit)
            if size > BIG_BODY_BYTES and isinstance(connection, Connection):
                # A value of three bytes takes twenty times as many once it is parsed.
                connection.hold(len(part) + part.count(b",") * VALUE_BYTES)
            parts.append(part)
        return b"".join(parts)
    except BodyEnded as ended:
        raise ended.answer from None
    except web.RequestPayloadError:
        raise ApiError(400, "The body's framing is broken", code="bad_http", headers=CLOSE) from None
    finally:
        # The reader keeps its error, and that its frames: what was read must not wait with them for the collector.
        parts.clear()


def _refuse_length(limit: int) -> NoReturn:
    message = f"The request body may have {limit} bytes (ROUTER_MAX_BODY_BYTES)"
    raise ApiError(413, message, code="request_too_large", headers=CLOSE)
