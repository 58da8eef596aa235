"""The answer side of HTTP/1.1 as a machine: bytes in, head, body bytes, end and errors out.

httptools (llhttp) reads the grammar. What it leaves to its user is here: where a body without a length ends, upper
bounds on everything that is not body, interim answers, and whether another answer may follow on the connection.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping

import httptools

from llm_router.proxy.upstream.errors import ConnectionLost, ProtocolError, UpstreamError

MAX_HEAD_BYTES = 256 * 1024
HEADER_COST = 256  # what a header counts for, besides its bytes: about a thousand of them make the largest head
MAX_INTERIM_HEADS = 16
# Chunk sizes, chunk extensions and trailers carry nothing; this much of them may arrive without a byte of body.
MAX_OVERHEAD_BYTES = 64 * 1024
# Shorter than the keep-alive of the providers' front ends (60 s and more), so that it is rarely the server that closes
# first. Servers that close sooner (5 s is common for small ones) are noticed by their FIN.
IDLE_SECONDS = 15.0
# Taken off the idle time that a server grants, for the way there.
KEEP_ALIVE_MARGIN = 1.0
_KEEP_ALIVE = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_MAX_NAMES = 512
_MAX_NAME_BYTES = 64

# What servers tell browsers, caches and one another. Nobody here reads it, and of a provider's two dozen headers it is
# the larger half.
UNREAD = frozenset(
    (
        *("date", "server", "via", "x-powered-by", "x-served-by", "x-envoy-upstream-service-time", "x-request-time"),
        *("cache-control", "age", "expires", "pragma", "etag", "last-modified", "vary", "x-cache", "x-accel-buffering"),
        *("set-cookie", "p3p", "alt-svc", "nel", "report-to", "reporting-endpoints", "server-timing"),
        *("strict-transport-security", "x-content-type-options", "x-frame-options", "x-xss-protection"),
        *("content-security-policy", "referrer-policy", "permissions-policy", "cross-origin-opener-policy"),
        *("access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods"),
        *("access-control-allow-headers", "access-control-expose-headers", "access-control-max-age"),
        *("cf-ray", "cf-cache-status", "x-vercel-id", "x-vercel-cache", "x-cloud-trace-context"),
    )
)
# Header names as they came, and as we call them ("" for what is not read): providers send the same again and again.
_names: dict[bytes, str] = {}
# What a reader is left with after its end. Its own parser holds the reader in turn, and the collector should not have
# to find out.
_NO_PARSER = httptools.HttpResponseParser(object())


class ResponseReader:
    """Reads the answers of one connection one after another, skipping the interim ones before each.

    `status` and `headers` (lower-case names, values of a repeated name joined with `, `, nothing of what is UNREAD) are
    there once the head is complete; until then `status` is 0. `done` is set at the end of the message, and then `error`
    says if that end was a bad one and `reusable` whether the connection may carry another request, whose answer `again`
    makes ready for. Nothing may be fed after `done`, nor after `retire`.
    """

    __slots__ = (
        "_body_seen",
        "_fields",
        "_interim_heads",
        "_keep_alive",
        "_overhead",
        "_parser",
        "_pieces",
        "_room",
        "_until_close",
        "done",
        "error",
        "headers",
        "on_body",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.done = False
        self.error: UpstreamError | None = None
        self.reusable = False
        self._fields: dict[str, str] = {}  # of the head or trailer that is being read
        self._room = MAX_HEAD_BYTES  # for what is still to come of them
        self._overhead = 0
        self._interim_heads = 0
        self._keep_alive = False
        self._until_close = False
        self._body_seen = False
        # The parser calls the deque's own append: no Python frame for a piece of body. A list would be reallocated.
        self._pieces: deque[bytes] = deque()
        self.on_body = self._pieces.append
        self._parser = httptools.HttpResponseParser(self)
        # Answers with bare line feeds or blanks behind chunk sizes exist. Bytes that follow an answer never count.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)

    def __repr__(self) -> str:
        state = "done" if self.done else "body" if self.status else "head"
        return f"<ResponseReader {state} error={self.error!r}>"

    @property
    def started(self) -> bool:
        """Whether any byte of the answer has arrived."""
        return self._overhead > 0 or self._body_seen or self.status > 0

    def feed(self, data: bytes | memoryview) -> bytes:
        """Takes one read; gives a copy of the body bytes in it. What is wrong goes to `error`, after the body."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._stopped(error)
        pieces = self._pieces
        if pieces:
            self._body_seen = True
            self._overhead = 0
            if len(pieces) == 1:
                return pieces.pop()
            body = b"".join(pieces)
            pieces.clear()
            return body
        if not self.done:
            self._count_overhead(len(data))
        return b""

    def feed_eof(self) -> None:
        """The upstream closed its side: the end of a body without a length, a cut everywhere else."""
        if self.status and self._until_close:
            self._finish(None)
        else:
            self.lost()

    def lost(self) -> None:
        """The connection is gone."""
        what = "closed before the answer was complete" if self.started else "closed without an answer"
        self._finish(ConnectionLost(f"upstream connection {what}", started=self.started, body=self._body_seen))

    def again(self) -> None:
        """Makes ready for the next answer; only after one that left the connection `reusable`."""
        assert self.reusable
        self.status = 0
        self.done = self.reusable = self._body_seen = False
        self._room = MAX_HEAD_BYTES
        self._overhead = self._interim_heads = 0

    def retire(self) -> None:
        """Lets go of the parser: no more answers. Idempotent."""
        self._parser = _NO_PARSER

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self.done:
            # Bytes behind the end of the message: taken for an answer, they would answer the next request.
            self.reusable = False
            raise ProtocolError("bytes behind the end of the answer")
        self._fields.clear()  # the trailer of the answer before

    def on_header(self, name: bytes, value: bytes) -> None:
        known = _names.get(name)
        if known is None:
            known = _learned(name)
        if not known:
            return
        self._room -= len(name) + len(value) + HEADER_COST
        if self._room < 0:
            raise self._refuse("head or trailer is too large")
        text = value.decode("latin-1").strip(" \t")
        fields = self._fields
        fields[known] = f"{fields[known]}, {text}" if known in fields else text

    def on_headers_complete(self) -> None:
        headers, self._fields = self._fields, {}
        status = self._parser.get_status_code()
        kept = self._parser.should_keep_alive()
        if not kept or "connection" in headers:
            # Asked only where it matters: that is slow, and who keeps a connection without a word speaks HTTP/1.1.
            version = self._parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise self._refuse("unknown HTTP version")
            kept = kept and version == "1.1"
        if status < 200:
            self._skip(status)
            return
        self._until_close = not self._is_sized(headers) and status not in (204, 304)
        self._keep_alive = kept and not self._until_close
        self._overhead = 0
        self.headers = headers
        self.status = status

    def on_message_complete(self) -> None:
        if self.status:
            self.done = True
            # A 408 may have been meant for the silence before our request: what follows on it would be another's.
            self.reusable = self._keep_alive and self.status != 408

    # Details.

    def _skip(self, status: int) -> None:
        if status < 100 or status == 101:
            raise self._refuse("unexpected status")
        self._interim_heads += 1
        if self._interim_heads > MAX_INTERIM_HEADS:
            raise self._refuse("too many interim answers")

    def _is_sized(self, headers: Mapping[str, str]) -> bool:
        """Whether the head says where the body ends."""
        coding = headers.get("transfer-encoding")
        if coding is None:
            return "content-length" in headers
        if "content-length" in headers:
            raise self._refuse("both Content-Length and Transfer-Encoding")
        coding = coding.lower()
        if coding not in ("chunked", "identity"):
            raise self._refuse("unknown transfer coding")
        return coding == "chunked"

    def _count_overhead(self, size: int) -> None:
        self._overhead += size
        if self._overhead > (MAX_OVERHEAD_BYTES if self.status else MAX_HEAD_BYTES):
            self._finish(ProtocolError("framing without content" if self.status else "head is too large"))

    def _refuse(self, problem: str) -> ProtocolError:
        self.error = ProtocolError(f"upstream sent broken HTTP: {problem}")
        return self.error

    def _stopped(self, error: Exception) -> None:
        if self.done:
            self.reusable = False  # the answer itself was whole
        else:
            # llhttp's reasons are constants; what a callback of ours refused is in self.error already.
            self._finish(self.error or self._refuse(str(error)))

    def _finish(self, error: UpstreamError | None) -> None:
        self.done = True
        self.error = error
        self.reusable = False


def idle_seconds(keep_alive: str) -> float:
    """For how long a connection is kept after an answer with this Keep-Alive: ours, or less where it says so."""
    match = _KEEP_ALIVE.search(keep_alive)
    return min(IDLE_SECONDS, max(0.0, int(match[1]) - KEEP_ALIVE_MARGIN)) if match else IDLE_SECONDS


def _learned(name: bytes) -> str:
    lowered = name.decode("latin-1").lower()
    if lowered in UNREAD:
        lowered = ""
    if len(name) <= _MAX_NAME_BYTES:
        if len(_names) >= _MAX_NAMES:
            _names.clear()
        _names[name] = lowered
    return lowered
