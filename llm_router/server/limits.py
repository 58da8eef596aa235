"""The limits of the HTTP server, and what must be refused although aiohttp would take it."""

from __future__ import annotations

import re
import resource
import socket
from typing import Final

from aiohttp import hdrs, http_parser, web
from aiohttp.http import HttpProcessingError, HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import InvalidURLError, LineTooLong

from llm_router.errors import CLOSE, ApiError, ConfigError
from llm_router.vanished import watch

KEEPALIVE_S: Final = 75.0
LINGER_S: Final = 5.0  # reading on after a refusal, so that the client sees it before the connection goes
FAREWELL_S: Final = 1.0  # the same where the process is about to end
# One wish to stop may come as two signals: `timeout` and wrappers tell the process, and its group too.
ONE_WISH_S: Final = 0.25
LINGER_BYTES: Final = 67_108_864
MAX_LINE_BYTES: Final = 8_190
MAX_FIELD_BYTES: Final = 16_380
MAX_FIELDS: Final = 100
MAX_HEAD_BYTES: Final = 65_536
MAX_SWEEP_S: Final = 1.0
LOOK_EVERY_S: Final = 5.0  # for clients that vanished
MOST_CONNECTIONS: Final = 32_768
# Twice this is read of a body before its reader takes any: fewer pauses while an agent's prompt comes in.
READ_AHEAD_BYTES: Final = 262_144
BIG_BODY_BYTES: Final = 1_048_576
MOST_HELD_BYTES: Final = 536_870_912  # of big bodies and what they are parsed to, all connections together
VALUE_BYTES: Final = 40  # of memory for a value of a body, at the least
SPARE_DESCRIPTORS: Final = 64  # of what is no connection, half of it for those who were refused one
_QUOTED = re.compile(r"\n\s*\n|b?['\"]")
_MOST_LENGTH_DIGITS = 15


def framing_problem(request: web.BaseRequest) -> ApiError | None:
    """What aiohttp's parser lets through though two servers in a row could read it differently."""
    headers = request.headers
    version = request.version
    problem, status, code = None, 400, "bad_http"
    if version is not HttpVersion11 and version != HttpVersion10:
        problem = "Only HTTP 1.1 and 1.0 are spoken here"
    elif request.method == hdrs.METH_CONNECT:
        problem = "This is no forward proxy"
    elif (coding := headers.get(hdrs.TRANSFER_ENCODING)) is not None:
        if version is not HttpVersion11 or coding.strip().lower() != "chunked":
            problem = "The only Transfer-Encoding is 'chunked', from HTTP 1.1 on"
    elif len(headers.get(hdrs.CONTENT_LENGTH, "")) > _MOST_LENGTH_DIGITS:
        problem = "The Content-Length is absurd"
    if (expected := headers.get(hdrs.EXPECT)) is not None and expected.lower() != "100-continue":
        problem, status, code = "Only 'Expect: 100-continue' is understood", 417, "expectation_failed"
    if problem is None:
        return None
    return ApiError(status, problem, code=code, headers=CLOSE)


def bad_http(error: HttpProcessingError) -> tuple[int, str, str]:
    """Status, message and code for bad HTTP. The parser's own words quote what was sent, and are left out."""
    if isinstance(error, LineTooLong) or "Too many headers" in error.message:
        return 431, f"The request has too long a line or too many headers ({MAX_FIELDS} at most)", "headers_too_large"
    return 400, "The request is not valid HTTP", "bad_http"


def parser_words(error: HttpProcessingError) -> str:
    """What the parser found wrong, on one line, without what it quotes: that may be a line with a key in it."""
    words, *quoted = _QUOTED.split(error.message, maxsplit=1)
    if not quoted and isinstance(error, InvalidURLError):
        words = "cannot be read"  # it has no words but the URL
    return f"{type(error).__name__}: {' '.join(words.split())}"


def check_parser() -> None:
    """Raises ConfigError where aiohttp runs without its C parser: the Python one is slower and less strict."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise ConfigError(
            "aiohttp",
            "its C extension is missing, and its pure-Python HTTP parser is not safe to serve with; "
            "install a binary wheel and unset AIOHTTP_NO_EXTENSIONS",
        )


def prepare_listener(listener: socket.socket) -> None:
    """Sets what every connection that it accepts shall have, which spares the system calls for each."""
    watch(listener)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def connection_limit() -> int:
    """How many clients may be connected: each needs a descriptor for itself and one for its upstream."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(8, min(MOST_CONNECTIONS, (soft - SPARE_DESCRIPTORS) // 2))


def raise_descriptor_limit() -> None:
    """Takes as many descriptors as the system gives us, up to what `MOST_CONNECTIONS` can use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS + SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    while soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return
        except (ValueError, OSError):
            # macOS has a limit beside the hard one, which says "unlimited" there.
            wanted //= 2
