"""Request heads: exactly what goes out, and what never does."""

from __future__ import annotations

import pytest

from llm_router import __version__
from llm_router.proxy.upstream.errors import InvalidCall
from llm_router.proxy.upstream.request import Origin, head_end, head_start, parse_url, request_line


def head(url: str, headers: dict[str, str], length: int = 2) -> bytes:
    endpoint = parse_url(url)
    return head_start(request_line(endpoint), endpoint, headers) + head_end(length)


def test_head_to_the_byte() -> None:
    """The head is what providers' front ends expect, and asks for an uncompressed answer."""
    assert head("https://api.test/v1/chat/completions", {"Authorization": "Bearer k", "X-Title": "t"}) == (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer k\r\nX-Title: t\r\n"
        b"User-Agent: llm-router/"
        + __version__.encode()
        + b"\r\nAccept-Encoding: identity\r\nContent-Length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("url", "origin", "path", "authority"),
    [
        ("http://h", Origin(False, "h", 80), "/", "h"),
        ("https://h/", Origin(True, "h", 443), "/", "h"),
        ("https://H.Test:443/a", Origin(True, "h.test", 443), "/a", "h.test"),
        ("http://h:443/a?b=c&d", Origin(False, "h", 443), "/a?b=c&d", "h:443"),
        ("https://h:80/a%20b#fragment", Origin(True, "h", 80), "/a%20b", "h:80"),
        ("http://127.0.0.1:11434/v1", Origin(False, "127.0.0.1", 11434), "/v1", "127.0.0.1:11434"),
        ("http://[::1]:8080/v1", Origin(False, "::1", 8080), "/v1", "[::1]:8080"),
        ("https://[2001:db8::1]/v1", Origin(True, "2001:db8::1", 443), "/v1", "[2001:db8::1]"),
    ],
)
def test_urls(url: str, origin: Origin, path: str, authority: str) -> None:
    """A URL says where to connect, what to ask for and what the Host header is."""
    endpoint = parse_url(url)
    assert (endpoint.origin, endpoint.path, endpoint.origin.authority) == (origin, path, authority)


@pytest.mark.parametrize(
    "url",
    [
        *("", "h/v1", "ftp://h/", "http://", "http:///v1", "http://h:99999/", "http://h:x/", "http://[::1/", "//h/v1"),
        *("http://h/a b", "http://h/a\r\nX: 1", "http://h/a\nb", "http://h/\tb", "http://h/\x00", "http://h\n/"),
        "http://h/ü",
    ],
)
def test_unusable_urls_are_refused(url: str) -> None:
    """A URL that could smuggle a line, or that names no host, is refused before anything is sent."""
    with pytest.raises(InvalidCall):
        parse_url(url)


@pytest.mark.parametrize("value", ["a\r\nX: 1", "a\nb", "a\rb", "a\x00b", "a\x7f", "\ud800"])
def test_header_values_cannot_break_lines(value: str) -> None:
    """Control characters in a value (a key pasted with its line end) are refused; the value is not repeated."""
    with pytest.raises(InvalidCall) as caught:
        head("http://h/", {"X-Key": f"s3cret{value}"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ü", "a\x00"])
def test_header_names_are_tokens(name: str) -> None:
    """A name that is no token is refused."""
    with pytest.raises(InvalidCall):
        head("http://h/", {name: "1"})


def test_framing_headers_are_ours() -> None:
    """What a caller says about framing, connection and coding does not get onto the wire."""
    callers = {"Host": "evil", "content-length": "9", "Transfer-Encoding": "chunked", "Connection": "close"}
    out = head("http://h/", {**callers, "ACCEPT-ENCODING": "br", "Expect": "100-continue", "TE": "trailers"})
    assert out.lower().count(b"content-length") == 1
    for word in (b"evil", b"chunked", b"close", b"br\r\n", b"expect", b"te:"):
        assert word not in out.lower()


def test_a_callers_user_agent_wins() -> None:
    """A User-Agent is added only where there is none."""
    out = head("http://h/", {"user-agent": "mine"})
    assert out.lower().count(b"user-agent") == 1
    assert b"user-agent: mine\r\n" in out


def test_credentials_in_the_url_become_a_header() -> None:
    """`user:password@` is sent as Basic authorization, never as part of the Host, and an explicit header wins."""
    out = head("http://us%40r:p%3Aw@h/", {})
    assert b"Host: h\r\n" in out
    assert b"Authorization: Basic dXNAcjpwOnc=\r\n" in out
    assert b"Basic" not in head("http://u:p@h/", {"authorization": "Bearer k"})
    assert "dXNAcjpwOnc" not in repr(parse_url("http://us%40r:p%3Aw@h/"))


def test_text_beyond_ascii_is_utf8() -> None:
    """A name that somebody gave to the router may have any letters."""
    assert "X-Title: Müller\r\n".encode() in head("http://h/", {"X-Title": "Müller"})


def test_absolute_form() -> None:
    """A forward proxy is told the whole address."""
    endpoint = parse_url("http://h:8080/v1?a")
    assert request_line(endpoint, absolute=True) == ("POST http://h:8080/v1?a HTTP/1.1\r\nHost: h:8080\r\n")
