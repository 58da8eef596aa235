"""Answers in JSON: what every room of the server sends, errors included, each ending with a newline."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDict, istr

from llm_router.errors import CLOSE, ApiError
from llm_router.proxy.exchange import NONE, ROUTER_HEADERS

CHAT_PATHS: Final = ("/v1/chat/completions", "/chat/completions")
# For chat answers that were refused before anything was decided.
UNDECIDED: Final = {**dict.fromkeys(ROUTER_HEADERS, NONE), "x-router-attempts": "0"}

SERVER_NAME: Final = "llm-router"
REQUEST_ID: Final = web.RequestKey("request_id", str)
EXTRA_HEADERS: Final = web.RequestKey("extra_headers", dict[str, str])
ADMITTED: Final = web.RequestKey("admitted", bool)  # a chat request that runs: what becomes of it is settled
ERROR: Final = web.ResponseKey("error", ApiError)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_JSON = "application/json"
_SANE_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
X_REQUEST_ID: Final = istr("x-request-id")

logger = logging.getLogger(__name__)


def json_answer(payload: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A whole JSON answer."""
    fields = CIMultiDict(headers) if headers else CIMultiDict()
    fields[hdrs.CONTENT_TYPE] = _JSON
    fields[hdrs.SERVER] = SERVER_NAME
    body = orjson.dumps(payload, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, headers=fields)


def error_answer(error: ApiError) -> web.Response:
    """The answer that tells a client about `error`; a `Connection: close` among its headers is kept."""
    answer = json_answer(error.payload(), error.status, error.headers)
    answer[ERROR] = error
    if answer.headers.get(hdrs.CONNECTION) == "close":
        answer.force_close()
    return answer


def raw_answer(error: ApiError) -> bytes:
    """The same as it is sent outside any request: the connection ends with it."""
    body = orjson.dumps(error.payload(), option=orjson.OPT_APPEND_NEWLINE)
    phrase = HTTPStatus(error.status).phrase
    head = f"HTTP/1.1 {error.status} {phrase}\r\nServer: {SERVER_NAME}\r\nContent-Type: {_JSON}\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


_fresh_ids: list[str] = []


def _fresh_id() -> str:
    """An id that nobody can guess; randomness is fetched for many at a time, a system call each would cost more.

    It begins with the time, and of those made together the lowest goes first: the ledger's index of ids grows at its
    end and not everywhere at once.
    """
    if not _fresh_ids:
        since = f"req_{int(time.time() * 256):010x}"
        parts = secrets.token_bytes(8 * 256).hex(" ", -8).split()
        _fresh_ids.extend([since + part for part in sorted(parts, reverse=True)])
    return _fresh_ids.pop()


def request_id(request: web.BaseRequest) -> str:
    """The id of this request, the same at every call: the client's own `x-request-id` if it is a sane token."""
    try:
        return request[REQUEST_ID]
    except KeyError:
        known = request[REQUEST_ID] = sane_id(request.headers.get(X_REQUEST_ID))
        return known


def sane_id(sent: str | None) -> str:
    """The id that a client sent if it is a sane token, else a fresh one."""
    return sent if sent is not None and _SANE_TOKEN.fullmatch(sent) else _fresh_id()


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns what a handler raises into an answer; names it and us in the headers of answers that have not begun."""
    try:
        answer = await handler(request)
    except ApiError as error:
        answer = error_answer(error)
    except web.HTTPException as error:
        answer = error_answer(_from_http(request, error))
    except Exception as error:
        answer = _unexpected(request, error)
    if not answer.prepared:
        headers = answer.headers
        headers[hdrs.SERVER] = SERVER_NAME
        headers[X_REQUEST_ID] = request_id(request)
    return answer


def internal_error() -> ApiError:
    """A fault of ours."""
    return ApiError(500, "Internal error; the router's log has the details", "server_error", "internal")


def _unexpected(request: web.BaseRequest, error: Exception) -> web.Response:
    """A fault of ours, or a client that left while we were writing."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    # the path is the client's: repr keeps its line breaks out of the log
    logger.error("unexpected error while answering %s %r", request.method, request.path[:200], exc_info=error)
    if request.writer.output_size > 0:
        transport.abort()  # the clean end of a chunked body would make a broken answer look whole
        raise ConnectionResetError("the answer had begun")
    return error_answer(internal_error())


_NOT_OFFERED = [
    "responses",
    "messages",
    "embeddings",
    "completions",
    "images",
    "audio",
    "moderations",
    "files",
    "batches",
    "uploads",
    "fine_tuning",
    "vector_stores",
    "assistants",
    "threads",
    "realtime",
    "rerank",
    "videos",
    "containers",
    "evals",
    "api",  # Ollama's own
]


def _nothing_at(path: str) -> str:
    meant = path.rstrip("/").removeprefix("/v1")
    twice = meant.startswith("/v1/")  # some clients add it themselves
    room = meant.removeprefix("/v1").removeprefix("beta").strip("/").partition("/")[0]
    if meant.endswith("/chat/completions") and not twice:
        return f"There is nothing at {path}, but at /v1/chat/completions: the base URL for clients ends with /v1"
    if room in _NOT_OFFERED or _is_a_models_verb(path):
        return f"{path} is not offered here: this router speaks chat completions, at POST /v1/chat/completions"
    if twice:
        return f"There is nothing at {path}, but at {meant}: the base URL for this client goes without /v1"
    return f"There is nothing at {path}; /openapi.json describes every route"


def _is_a_models_verb(path: str) -> bool:
    """Google's `POST /v1/models/NAME:generateContent`: a route of another API, not a method of our list's entry."""
    return "/models/" in path and ":" in path


def _from_http(request: web.BaseRequest, error: web.HTTPException) -> ApiError:
    """aiohttp's own refusals in our words."""
    path = request.path[:200]
    headers: dict[str, str] = {}
    if error.status == 404 or (error.status == 405 and request.method == "POST" and _is_a_models_verb(path)):
        return ApiError(404, _nothing_at(path), "invalid_request_error", "unknown_url")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        headers["Allow"] = allowed
        message, code = f"{request.method} is not possible on {path}; it takes {allowed}", "method_not_allowed"
    elif error.status == 417:
        message, code = "Only 'Expect: 100-continue' is understood", "expectation_failed"
    else:
        message, code = f"{error.status} {error.reason}", "http_error"
    if error.status in (400, 408, 413, 417):
        headers |= CLOSE
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return ApiError(error.status, message, kind, code, headers=headers)
