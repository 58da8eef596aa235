"""The request side of HTTP/1.1: an address taken apart, and the head of a request as bytes."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from llm_router import __version__
from llm_router.proxy.upstream.errors import InvalidCall

_UNSAFE_URL = re.compile(r"[^\x21-\x7e]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Framing, connection and coding are this client's business, whatever a caller says about them.
_OURS = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "accept-encoding", "te", "trailer", "expect", "upgrade"),
        *("connection", "keep-alive", "proxy-connection", "proxy-authorization"),
    )
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections go. `host` is a name or an IP literal without brackets; `key` stands for the three."""

    secure: bool
    host: str
    port: int
    key: str = field(init=False, repr=False, compare=False)  # a string keeps its hash

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{'https' if self.secure else 'http'}://{self.host} {self.port}")

    @property
    def authority(self) -> str:
        """The host as a Host header names it: brackets around IPv6, the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One URL, taken apart. `credentials` is the Authorization value of the URL's userinfo, if it has one."""

    origin: Origin
    path: str
    credentials: str | None = field(default=None, repr=False)


def parse_url(url: str) -> Endpoint:
    """Takes an absolute http(s) URL apart. Raises InvalidCall."""
    # urlsplit drops tabs and line breaks silently, so they are looked for first.
    if _UNSAFE_URL.search(url):
        raise InvalidCall("the URL has characters that do not belong into one")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidCall("the URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidCall("the URL must start with http:// or https:// and a host")
    secure = parts.scheme == "https"
    origin = Origin(secure, parts.hostname, port if port is not None else (443 if secure else 80))
    path = parts.path or "/"
    return Endpoint(origin, f"{path}?{parts.query}" if parts.query else path, basic_credentials(parts.netloc))


def basic_credentials(netloc: str) -> str | None:
    """The Basic authorization for `user:password@host`, None without userinfo."""
    userinfo, at, _ = netloc.rpartition("@")
    if not at:
        return None
    user, _, password = userinfo.partition(":")
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def request_line(endpoint: Endpoint, *, absolute: bool = False) -> str:
    """Request line and Host header; `absolute` names the whole URL, as a forward proxy wants it."""
    authority = endpoint.origin.authority
    target = f"http://{authority}{endpoint.path}" if absolute else endpoint.path
    return f"POST {target} HTTP/1.1\r\nHost: {authority}\r\n"


def head_end(length: int) -> bytes:
    """What differs from request to request: the length, the end of a head's last line, and the blank line."""
    return b"%d\r\n\r\n" % length


def head_start(start: str, endpoint: Endpoint, headers: Mapping[str, str], *extra: str) -> bytes:
    """The head but for `head_end`: `start` from request_line, the caller's headers, the `extra` lines, then ours.

    Names and values are checked; the caller's framing headers are left out. Raises InvalidCall.
    """
    lines = [start]
    names = set()
    for name, value in headers.items():
        lowered = name.lower()
        if lowered in _OURS:
            continue
        if not _TOKEN.fullmatch(name):
            raise InvalidCall("a header name is not a token")
        if _UNSAFE_VALUE.search(value):
            raise InvalidCall("a header value has control characters")
        names.add(lowered)
        lines.append(f"{name}: {value}\r\n")
    if "user-agent" not in names:
        lines.append(f"User-Agent: llm-router/{__version__}\r\n")
    if endpoint.credentials is not None and "authorization" not in names:
        lines.append(f"Authorization: {endpoint.credentials}\r\n")
    lines += extra
    lines.append("Accept-Encoding: identity\r\nContent-Length: ")
    try:
        return "".join(lines).encode()
    except UnicodeEncodeError:
        raise InvalidCall("a header value is not text") from None
