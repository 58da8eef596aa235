"""What a URL means for the client, worked out once: where to connect, by which proxy, and how the request starts."""

from __future__ import annotations

from collections.abc import Mapping

from llm_router.proxy.upstream.proxies import Proxy, proxy_for
from llm_router.proxy.upstream.request import Endpoint, head_start, parse_url, request_line

MAX_ROUTES = 512
MAX_HEADS = 16  # of one route: one for each key, usually


class Route:
    """`start` is the request line with the Host header; `extra` are header lines for a forward proxy."""

    __slots__ = ("_heads", "_last", "endpoint", "extra", "proxy", "start")

    def __init__(self, endpoint: Endpoint, proxy: Proxy | None, start: str, extra: tuple[str, ...] = ()) -> None:
        self.endpoint = endpoint
        self.proxy = proxy
        self.start = start
        self.extra = extra
        self._heads: dict[tuple[tuple[str, str], ...], bytes] = {}
        # Usually it is the very same headers as before, kept with the model. They are held, so that they stay alone
        # in being themselves.
        self._last: tuple[Mapping[str, str] | None, bytes] = (None, b"")

    def __repr__(self) -> str:
        return f"<Route {self.endpoint.origin.authority} proxy={self.proxy!r}>"

    def head(self, headers: Mapping[str, str]) -> bytes:
        """The head of a request but for its end, made once for the same headers. Raises InvalidCall."""
        last, start = self._last
        if last is not headers:
            start = self._head(headers)
            self._last = headers, start
        return start

    def _head(self, headers: Mapping[str, str]) -> bytes:
        key = tuple(headers.items())
        start = self._heads.get(key)
        if start is None:
            start = head_start(self.start, self.endpoint, headers, *self.extra)
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[key] = start
        return start


def plan_route(url: str, environ: Mapping[str, str]) -> Route:
    """Takes a URL apart and finds its proxy. Raises InvalidCall or ConnectFailed."""
    endpoint = parse_url(url)
    proxy = proxy_for(endpoint.origin, environ)
    forwarded = proxy is not None and not endpoint.origin.secure
    extra: tuple[str, ...] = ()
    if forwarded and proxy is not None and proxy.authorization:
        extra = (f"Proxy-Authorization: {proxy.authorization}\r\n",)
    return Route(endpoint, proxy, request_line(endpoint, absolute=forwarded), extra)


class Routes:
    """Remembers routes; bounded, since a model's name may be part of a URL."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known: dict[str, Route] = {}

    def __repr__(self) -> str:
        return f"<Routes known={len(self._known)}>"

    def find(self, url: str) -> Route:
        """The route of a call. Raises InvalidCall or ConnectFailed."""
        route = self._known.get(url)
        if route is None:
            route = plan_route(url, self._environ)
            if len(self._known) >= MAX_ROUTES:
                self._known.clear()
            self._known[url] = route
        return route
