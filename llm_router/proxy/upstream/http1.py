"""The answer side of HTTP/1.1 as a machine: bytes in, head, body bytes, end and errors out.

httptools (llhttp) reads the grammar. What it leaves to its user is here: where a body without a length ends, upper
bounds on everything that is not body, interim answers, and whether another answer may follow on the connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httptools

from llm_router.proxy.upstream.errors import ConnectionLost, ProtocolError, UpstreamError

MAX_HEAD_BYTES = 256 * 1024
MAX_HEADERS = 1000
MAX_INTERIM_HEADS = 16
# Chunk sizes, chunk extensions and trailers carry nothing; this much of them may arrive without a byte of body.
MAX_OVERHEAD_BYTES = 64 * 1024
# Taken off the idle time that a server grants, for the way there.
KEEP_ALIVE_MARGIN = 1.0
_KEEP_ALIVE = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and headers of a final answer: lower-case names, values of a repeated name joined with `, `."""

    status: int
    headers: Mapping[str, str]


class ResponseReader:
    """Reads one final answer, skipping the interim ones before it.

    `head` is there once it is complete. `done` is set at the end of the message, and then `error` says if that end was
    a bad one and `reusable` whether the connection may carry another request. Nothing may be fed after `done`.
    """

    __slots__ = (
        "_body_seen",
        "_head_bytes",
        "_headers",
        "_interim",
        "_interim_heads",
        "_keep_alive",
        "_overhead",
        "_parse",
        "_parser",
        "_pieces",
        "_until_close",
        "done",
        "error",
        "head",
        "on_body",
        "reusable",
    )

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.done = False
        self.error: UpstreamError | None = None
        self.reusable = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._overhead = 0
        self._interim = False
        self._interim_heads = 0
        self._keep_alive = False
        self._until_close = False
        self._body_seen = False
        self._pieces: list[bytes] = []
        # The parser calls the list's own append: no Python frame for a piece of body.
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # Answers with bare line feeds or blanks behind chunk sizes exist. Bytes that follow an answer never count.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._parse: Callable[[bytes | memoryview], None] = self._parser.feed_data

    def __repr__(self) -> str:
        state = "done" if self.done else "body" if self.head else "head"
        return f"<ResponseReader {state} error={self.error!r}>"

    @property
    def started(self) -> bool:
        """Whether any byte has arrived."""
        return self._overhead > 0 or self._body_seen or self.head is not None

    def feed(self, data: bytes | memoryview) -> bytes:
        """Takes one read; gives a copy of the body bytes in it. What is wrong goes to `error`, after the body."""
        try:
            self._parse(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._stopped(error)
        pieces = self._pieces
        if len(pieces) == 1:
            self._body_seen = True
            self._overhead = 0
            return pieces.pop()
        if pieces:
            self._body_seen = True
            self._overhead = 0
            body = b"".join(pieces)
            pieces.clear()
            return body
        if not self.done:
            self._count_overhead(len(data))
        return b""

    def feed_eof(self) -> None:
        """The upstream closed its side: the end of a body without a length, a cut everywhere else."""
        if self.head is not None and self._until_close:
            self._finish(None)
        else:
            self.lost()

    def lost(self) -> None:
        """The connection is gone."""
        what = "closed before the answer was complete" if self.started else "closed without an answer"
        self._finish(ConnectionLost(f"upstream connection {what}", started=self.started, body=self._body_seen))

    def close(self) -> None:
        """Lets go of the parser: the two hold one another, and the collector should not have to find out."""
        self._parser = None
        self._parse = _closed

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self.done:
            # Bytes behind the end of the message: taken for an answer, they would answer the next request.
            self.reusable = False
            raise ProtocolError("bytes behind the end of the answer")
        self._headers.clear()

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self._head_bytes += len(name) + len(value or b"") + 4
        if self._head_bytes > MAX_HEAD_BYTES or len(self._headers) >= MAX_HEADERS:
            raise self._refuse("head or trailer is too large")
        self._headers.append((name, value or b""))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise self._refuse("unknown HTTP version")
        if status < 100 or status == 101:
            raise self._refuse("unexpected status")
        self._interim = status < 200
        if self._interim:
            self._interim_heads += 1
            if self._interim_heads > MAX_INTERIM_HEADS:
                raise self._refuse("too many interim answers")
            return
        headers = _joined(self._headers)
        self._headers.clear()
        self._frame(status, headers)
        self._keep_alive = version == "1.1" and not self._until_close and self._parser.should_keep_alive()
        self.head = ResponseHead(status, headers)
        self._overhead = 0

    def on_message_complete(self) -> None:
        if not self._interim:
            self.done = True
            self.reusable = self._keep_alive

    # Details.

    def _frame(self, status: int, headers: Mapping[str, str]) -> None:
        coding = headers.get("transfer-encoding")
        if coding is not None and "content-length" in headers:
            raise self._refuse("both Content-Length and Transfer-Encoding")
        if coding is not None and coding.lower() not in ("chunked", "identity"):
            raise self._refuse("unknown transfer coding")
        sized = "content-length" in headers or (coding is not None and coding.lower() == "chunked")
        self._until_close = not sized and status not in (204, 304)

    def _count_overhead(self, size: int) -> None:
        self._overhead += size
        limit = MAX_HEAD_BYTES if self.head is None else MAX_OVERHEAD_BYTES
        if self._overhead > limit:
            self._finish(ProtocolError("head is too large" if self.head is None else "framing without content"))

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


def idle_limit(headers: Mapping[str, str]) -> float | None:
    """For how many seconds a server says it keeps an idle connection, less a margin; None if it does not say."""
    match = _KEEP_ALIVE.search(headers.get("keep-alive", ""))
    return max(0.0, int(match[1]) - KEEP_ALIVE_MARGIN) if match else None


def _closed(data: bytes | memoryview) -> None:
    raise AssertionError("fed after its end")


def _joined(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.decode("latin-1").lower()
        value = raw_value.decode("latin-1").strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
