"""Forward proxies: CONNECT for https, the absolute form for http."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llm_router.proxy.upstream import ConnectFailed, ConnectTimeout, TlsFailed, UpstreamClient
from llm_router.proxy.upstream.proxies import Proxy
from llm_router.proxy.upstream.request import Origin
from llm_router.proxy.upstream.tunnel import connect_head
from llm_router.wire.providers.base import UpstreamCall
from tests.proxy.upstream.certs import Authority
from tests.proxy.upstream.peers import ESTABLISHED, ConnectProxy, Peer, Serve, Server, at_once, until, whole_forever

CALL = UpstreamCall("https://upstream.test/v1", {"Authorization": "Bearer k"}, b"{}")


@pytest.fixture(scope="module")
def tls(authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Our context and the upstream's."""
    ours = ssl.create_default_context(cafile=authority.certificate)
    return ours, authority.server_context("upstream", "DNS:upstream.test")


@asynccontextmanager
async def behind(
    proxy: Server, context: ssl.SSLContext | None = None, userinfo: str = "", **environ: str
) -> AsyncIterator[UpstreamClient]:
    """A client that is told to use the proxy for everything."""
    url = f"http://{userinfo}127.0.0.1:{proxy.port}"
    client = UpstreamClient(ssl_context=context, environ={"HTTP_PROXY": url, "HTTPS_PROXY": url, **environ})
    try:
        yield client
    finally:
        await client.close()


async def test_https_goes_through_a_tunnel(serve: Serve, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """The proxy learns host and port and its own password, never the key; the certificate is the upstream's."""
    server = await serve(whole_forever, tls=tls[1])
    proxy = ConnectProxy(server, b"HTTP/1.1 100 Continue\r\n\r\n" + ESTABLISHED)
    async with behind(await serve(proxy.script), tls[0], "us%40r:p%3Aw@") as client:
        for _ in range(2):
            assert await (await client.send(CALL, connect_timeout=30)).read(9) == b"hello"
    assert proxy.heads == [
        b"CONNECT upstream.test:443 HTTP/1.1\r\nHost: upstream.test:443\r\n"
        b"Proxy-Authorization: Basic dXNAcjpwOnc=\r\n\r\n"
    ]
    assert "proxy-authorization" not in server.requests[0].headers
    assert server.requests[0].line == "POST /v1 HTTP/1.1"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nVia: x\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 204 Fine\r\n\r\n",
    ],
)
async def test_proxies_say_yes_in_many_ways(
    serve: Serve, tls: tuple[ssl.SSLContext, ssl.SSLContext], answer: bytes
) -> None:
    """Any 2xx opens the tunnel, whatever headers come with it."""
    proxy = ConnectProxy(await serve(whole_forever, tls=tls[1]), answer)
    async with behind(await serve(proxy.script), tls[0]) as client:
        assert await (await client.send(CALL, connect_timeout=30)).read(9) == b"hello"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", "407"),
        (b"HTTP/1.1 502 Bad\r\n\r\nno such host upstream.test", "502"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n", "302"),
        (b"nonsense\r\n\r\n", "not speak HTTP"),
        (ESTABLISHED + b"early bytes", "of its own"),
        (b"", "closed"),
        (b"HTTP/1.1 200", "closed"),
    ],
)
async def test_proxy_says_no(
    serve: Serve, tls: tuple[ssl.SSLContext, ssl.SSLContext], answer: bytes, words: str
) -> None:
    """A proxy that refuses, babbles or leaves is a failed connection, told without its words or addresses."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer)
        if answer.endswith(b"\n") or b"early" in answer:
            await peer.gone()

    async with behind(await serve(script), tls[0]) as client:
        with pytest.raises(ConnectFailed, match=words) as caught:
            await client.send(CALL, connect_timeout=30)
        assert "upstream.test" not in str(caught.value)
        assert client.open == 0


async def test_certificate_is_checked_through_the_tunnel(
    serve: Serve, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """A proxy that leads elsewhere is noticed."""
    server = await serve(whole_forever, tls=tls[1])
    proxy = ConnectProxy(server)
    async with behind(await serve(proxy.script), tls[0]) as client:
        with pytest.raises(TlsFailed):
            await client.send(UpstreamCall("https://other.test/v1", {}, b""), connect_timeout=30)
    assert server.requests == []


@pytest.mark.parametrize("leave", ["timeout", "cancel"])
async def test_leaving_while_the_proxy_thinks(
    serve: Serve, tls: tuple[ssl.SSLContext, ssl.SSLContext], leave: str
) -> None:
    """The connect timeout covers the proxy's answer, and leaving closes the connection within 100 ms."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.gone()

    server = await serve(script)
    async with behind(server, tls[0]) as client:
        call = asyncio.ensure_future(client.send(CALL, connect_timeout=0.5 if leave == "timeout" else 5))
        await until(lambda: server.peers)
        await asyncio.sleep(0.05)
        if leave == "cancel":
            call.cancel()
        with pytest.raises((ConnectTimeout, asyncio.CancelledError)):
            await call
        await at_once(lambda: server.peers[0].closed_at)


async def test_http_is_forwarded_in_the_absolute_form(serve: Serve) -> None:
    """A plain request goes to the proxy with the whole address and the proxy's password."""
    server = await serve(whole_forever)
    async with behind(server, None, "u:p@") as client:
        for _ in range(2):
            call = UpstreamCall("http://upstream.test:8080/v1?a=b", {}, b"{}")
            assert await (await client.send(call, connect_timeout=30)).read(9) == b"hello"
    assert [request.line for request in server.requests] == ["POST http://upstream.test:8080/v1?a=b HTTP/1.1"] * 2
    assert server.requests[0].headers["host"] == "upstream.test:8080"
    assert server.requests[0].headers["proxy-authorization"] == "basic dtpw"
    assert len(server.peers) == 1


async def test_loopback_goes_direct(serve: Serve) -> None:
    """A local upstream is asked directly, whatever the variables say."""
    proxy, server = await serve(whole_forever), await serve(whole_forever)
    async with behind(proxy) as client:
        for host in ("127.0.0.1", "localhost"):
            assert await (await client.send(server.call(host=host), connect_timeout=30)).read(9) == b"hello"
    assert proxy.peers == []


def test_connect_names_ipv6_in_brackets() -> None:
    """The tunnel's target is an authority, with its port always."""
    head = connect_head(Origin(True, "2001:db8::1", 443), Proxy("p", 80))
    assert head == b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n"
