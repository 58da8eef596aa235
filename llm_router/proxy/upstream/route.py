"""What a URL means for the client, worked out once: where to connect, by which proxy, and how the request starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_router.proxy.upstream.proxies import Proxy, proxy_for
from llm_router.proxy.upstream.request import Endpoint, head_end, head_start, parse_url, request_line

MAX_ROUTES = 512
MAX_HEADS = 16  # of one route: one for each key, usually


@dataclass(frozen=True, slots=True)
class Route:
    """`start` is the request line with the Host header; `extra` are header lines for a forward proxy."""

    endpoint: Endpoint
    proxy: Proxy | None
    start: str
    extra: tuple[str, ...] = field(default=(), repr=False)
    _heads: dict[tuple[tuple[str, str], ...], bytes] = field(default_factory=dict, repr=False, compare=False)

    def head(self, headers: Mapping[str, str], length: int) -> bytes:
        """The head of a request; all but its length is made once for the same headers. Raises InvalidCall."""
        key = tuple(headers.items())
        start = self._heads.get(key)
        if start is None:
            start = head_start(self.start, self.endpoint, headers, *self.extra)
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[key] = start
        return start + head_end(length)


def plan_route(method: str, url: str, environ: Mapping[str, str]) -> Route:
    """Takes a URL apart and finds its proxy. Raises InvalidCall or ConnectFailed."""
    endpoint = parse_url(url)
    proxy = proxy_for(endpoint.origin, environ)
    forwarded = proxy is not None and not endpoint.origin.secure
    extra: tuple[str, ...] = ()
    if forwarded and proxy is not None and proxy.authorization:
        extra = (f"Proxy-Authorization: {proxy.authorization}\r\n",)
    return Route(endpoint, proxy, request_line(method, endpoint, absolute=forwarded), extra)


class Routes:
    """Remembers routes; bounded, since a model's name may be part of a URL."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known: dict[tuple[str, str], Route] = {}

    def __repr__(self) -> str:
        return f"<Routes known={len(self._known)}>"

    def find(self, method: str, url: str) -> Route:
        """The route of a call. Raises InvalidCall or ConnectFailed."""
        route = self._known.get((method, url))
        if route is None:
            route = plan_route(method, url, self._environ)
            if len(self._known) >= MAX_ROUTES:
                self._known.clear()
            self._known[method, url] = route
        return route
