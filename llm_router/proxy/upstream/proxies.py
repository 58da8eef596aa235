"""Which forward proxy a connection takes: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read from a mapping."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from urllib.parse import urlsplit

from llm_router.config.urls import ip_of, secrets_in
from llm_router.proxy.upstream.errors import ConnectFailed
from llm_router.proxy.upstream.request import Origin, basic_credentials


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy. `authorization` is the value of Proxy-Authorization."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


def proxy_for(origin: Origin, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for an origin, None for a direct connection. Raises ConnectFailed for a proxy that we cannot use."""
    url = _variable(environ, "https_proxy" if origin.secure else "http_proxy")
    if not url or is_loopback(origin.host) or is_exempt(origin, _variable(environ, "no_proxy")):
        return None
    return parse_proxy(url)


def parse_proxy(url: str) -> Proxy:
    """Reads `[http://][user:password@]host[:port]`. Raises ConnectFailed."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise ConnectFailed("the proxy's URL cannot be read") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ConnectFailed("the proxy's URL must start with http:// and a host")
    return Proxy(parts.hostname, port if port is not None else 80, basic_credentials(parts.netloc))


def proxy_secrets(environ: Mapping[str, str]) -> list[str]:
    """What of the proxies' addresses nobody shall read: a proxy may repeat it in the error that it answers with."""
    secrets: list[str] = []
    for url in (_variable(environ, "http_proxy"), _variable(environ, "https_proxy")):
        with contextlib.suppress(ValueError):
            secrets += secrets_in(url if "://" in url else f"http://{url}")
    return secrets


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine: a proxy elsewhere would reach another one."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = ip_of(name)
    return address is not None and address.is_loopback


def is_exempt(origin: Origin, no_proxy: str) -> bool:
    """Whether one of NO_PROXY's entries matches: `*`, a host, a domain with all below it, a network, each `[:port]`."""
    return any(_matches(origin, entry) for raw in no_proxy.split(",") if (entry := raw.strip().lower()))


def _variable(environ: Mapping[str, str], name: str) -> str:
    # Lower case first, as curl has it.
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _matches(origin: Origin, entry: str) -> bool:
    if entry == "*":
        return True
    host = origin.host.rstrip(".").lower()
    address = ip_of(host)
    if address is not None and "/" in entry:
        return _in_network(address, entry)
    name, port = _split_port(entry)
    if port is not None and port != str(origin.port):
        return False
    if address is not None:
        return ip_of(name) == address
    domain = name.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _split_port(entry: str) -> tuple[str, str | None]:
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, rest.removeprefix(":") or None
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, None


def _in_network(address: IPv4Address | IPv6Address, entry: str) -> bool:
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False
