"""Base URLs of providers: checked, without the tails that people copy along."""

from __future__ import annotations

from base64 import b64encode
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import unquote, urlsplit, urlunsplit

_ENDPOINTS = ("/chat/completions", "/v1/messages", "/messages", "/api/chat", "/api/generate")
# The path that is meant where a URL has none, and the tails that each dialect's adapter adds by itself.
_VERSION = {"openai": "/v1", "google": "/v1beta"}
_TAILS = {"google": ("/openai", "/models"), "ollama": ("/v1", "/api")}
_PATHS = {"openrouter.ai": "/api/v1"}


def base_url(text: str, dialect: str) -> str:
    """A provider's base URL in normal form: no trailing slash, no endpoint, a version where the dialect wants one.

    `dialect` is "openai", "anthropic", "google" or "ollama". Raises ValueError with the problem and the remedy; its
    text never repeats the URL, which may hold a secret.
    """
    if not all("!" <= char <= "~" for char in text):
        raise ValueError("must be plain ASCII without white space, such as https://api.example.org/v1")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a valid URL; write it like https://api.example.org/v1") from None
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise ValueError("must begin with http:// or https:// and a host name")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("must not have a query (?...) or a fragment (#...)")
    if port == 0:
        raise ValueError("names port 0, which nothing listens on")
    path = _path(parts.path, dialect) or _PATHS.get(host.lower()) or _VERSION.get(dialect, "")
    userinfo, at, address = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme.lower(), f"{userinfo}{at}{address.lower()}", path, "", ""))


def without_credentials(url: str) -> str:
    """A URL as it may be shown: `***` in the place of what stands before the host."""
    parts = urlsplit(url)
    _, at, address = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"***@{address}")) if at else url


def secrets_in(url: str) -> list[str]:
    """The password in an address, as it stands there, as it is meant, and as Basic authorization sends it.

    A user without a password is a token.
    """
    userinfo, at, _ = urlsplit(url).netloc.rpartition("@")
    if not at:
        return []
    user, _, password = userinfo.partition(":")
    secret = password or user
    return [secret, unquote(secret), b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()]


def ip_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is written as, None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _path(path: str, dialect: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") for segment in segments):
        raise ValueError("must not have . or .. in its path")
    clean = "".join(f"/{segment}" for segment in segments)
    for tails in (_ENDPOINTS, _TAILS.get(dialect, ())):
        clean = clean.removesuffix(next(filter(clean.endswith, tails), ""))
    return clean
