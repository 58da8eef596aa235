"""How raw requests begin."""

from __future__ import annotations

HOST = b"Host: localhost\r\n"
HEAD = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
