"""TLS: who is trusted, for which name, and that it carries what plain connections carry."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_router.errors import ConfigError
from llm_router.proxy.upstream import (
    ConnectFailed,
    ConnectionLost,
    TlsFailed,
    UpstreamClient,
    create_tls_context,
)
from llm_router.wire.providers.base import UpstreamCall
from tests.proxy.upstream.certs import Authority
from tests.proxy.upstream.peers import (
    LAST_CHUNK,
    STREAM_HEAD,
    WHOLE,
    Peer,
    Serve,
    Sink,
    a_few_turns,
    at_once,
    chunk,
    until,
    whole_forever,
)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_trusted_server(serve: Serve, trusting: UpstreamClient, server_tls: ssl.SSLContext, host: str) -> None:
    """A certificate under SSL_CERT_FILE's authority for the right name or address is accepted; it is kept alive."""
    server = await serve(whole_forever, tls=server_tls, host="127.0.0.1" if host == "localhost" else host)
    for number in range(3):
        response = await trusting.send(
            server.call(host="localhost" if host == "localhost" else None), connect_timeout=30
        )
        assert await response.read(9) == b"hello"
        assert response.reused is (number > 0)
    assert len(server.peers) == 1


async def test_wrong_name(serve: Serve, trusting: UpstreamClient, authority: Authority) -> None:
    """A good certificate of another host is refused, and no request is sent."""
    server = await serve(whole_forever, tls=authority.server_context("other", "DNS:other.test"))
    with pytest.raises(TlsFailed) as caught:
        await trusting.send(server.call(headers={"Authorization": "Bearer k"}), connect_timeout=30)
    assert str(caught.value).endswith("certificate is for another host")
    assert server.requests == []
    assert trusting.open == 0


async def test_unknown_authority(serve: Serve, client: UpstreamClient, server_tls: ssl.SSLContext) -> None:
    """A certificate that the system does not trust is refused with a reason."""
    server = await serve(whole_forever, tls=server_tls)
    with pytest.raises(TlsFailed) as caught:
        await client.send(server.call(), connect_timeout=30)
    assert "certificate" in str(caught.value)
    assert isinstance(caught.value, ConnectFailed)
    assert server.requests == []


async def test_plain_server_behind_https(serve: Serve, client: UpstreamClient) -> None:
    """A server that answers TLS with HTTP is a TLS failure."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await serve(script)
    with pytest.raises(TlsFailed):
        await client.send(UpstreamCall(f"https://127.0.0.1:{server.port}/", {}, b""), connect_timeout=30)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_server_leaves_in_the_handshake(serve: Serve, client: UpstreamClient, how: str) -> None:
    """A connection that ends inside the handshake is a TLS failure."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        getattr(peer, how)()

    server = await serve(script)
    with pytest.raises(TlsFailed):
        await client.send(UpstreamCall(f"https://127.0.0.1:{server.port}/", {}, b""), connect_timeout=30)
    assert client.open == 0


async def test_http11_is_negotiated(serve: Serve, trusting: UpstreamClient, authority: Authority) -> None:
    """A server that prefers HTTP/2 is told that we speak HTTP/1.1."""
    tls = authority.server_context("alpn", "IP:127.0.0.1")
    tls.set_alpn_protocols(["h2", "http/1.1"])
    chosen: list[str | None] = []

    async def script(peer: Peer) -> None:
        chosen.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await whole_forever(peer)

    server = await serve(script, tls=tls)
    await (await trusting.send(server.call(), connect_timeout=30)).read(9)
    assert chosen == ["http/1.1"]


async def test_stream_and_cut(serve: Serve, trusting: UpstreamClient, server_tls: ssl.SSLContext) -> None:
    """Streams come through TLS read by read; a missing end is a cut."""

    async def script(peer: Peer) -> None:
        kind = b"whole"
        while kind == b"whole":
            kind = (await peer.request()).body
            await peer.send(STREAM_HEAD)
            for word in (b"one", b"two"):
                await a_few_turns()
                await peer.send(chunk(word))
            if kind == b"whole":
                await peer.send(LAST_CHUNK)
        peer.reset() if kind == b"reset" else peer.close()

    server = await serve(script, tls=server_tls)
    for kind in (b"whole", b"close", b"reset"):
        sink = Sink()
        (await trusting.send(server.call(kind), connect_timeout=30)).attach(sink)
        error = await sink.end()
        assert sink.pieces == [b"one", b"two"]
        assert (error is None) is (kind == b"whole")
        assert error is None or isinstance(error, ConnectionLost)


async def test_stale_connection_is_replaced(serve: Serve, trusting: UpstreamClient, server_tls: ssl.SSLContext) -> None:
    """The quiet replacement of a dead reused connection works with TLS too."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(WHOLE)
        await peer.request()
        if peer is not server.peers[0]:
            await peer.send(WHOLE)

    server = await serve(script, tls=server_tls)
    for _ in range(2):
        response = await trusting.send(server.call(), connect_timeout=30)
        assert await response.read(9) == b"hello"
    assert len(server.peers) == 2


async def test_close_is_seen_at_once(serve: Serve, trusting: UpstreamClient, server_tls: ssl.SSLContext) -> None:
    """close does not wait for TLS's farewell."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD + chunk(b"a"))
        await peer.gone()

    server = await serve(script, tls=server_tls)
    response = await trusting.send(server.call(), connect_timeout=30)
    response.close()
    await at_once(lambda: server.peers[0].closed_at)


async def test_context_can_be_handed_in(serve: Serve, authority: Authority, server_tls: ssl.SSLContext) -> None:
    """A context made elsewhere is used as it is."""
    server = await serve(whole_forever, tls=server_tls)
    client = UpstreamClient(ssl_context=ssl.create_default_context(cafile=authority.certificate))
    response = await client.send(server.call(), connect_timeout=30)
    assert await response.read(9) == b"hello"
    await client.close()


def names(context: ssl.SSLContext) -> list[str]:
    return [dict(part[0] for part in one["subject"])["commonName"] for one in context.get_ca_certs()]  # type: ignore[misc]


def test_cert_file_replaces_the_systems(authority: Authority) -> None:
    """SSL_CERT_FILE names the authorities that count, as it does for OpenSSL."""
    context = create_tls_context({"SSL_CERT_FILE": str(authority.certificate)})
    assert names(context) == ["Test authority"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.fixture
def hashed(authority: Authority, tmp_path: Path) -> Path:
    """A folder of certificates under the names that OpenSSL looks for."""
    question = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.certificate)]
    name = subprocess.run(question, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(authority.certificate, tmp_path / f"{name}.0")
    return tmp_path


async def test_cert_dir(serve: Serve, server_tls: ssl.SSLContext, hashed: Path) -> None:
    """SSL_CERT_DIR is a folder of hashed certificates."""
    server = await serve(whole_forever, tls=server_tls)
    client = UpstreamClient(environ={"SSL_CERT_DIR": str(hashed)})
    assert await (await client.send(server.call(), connect_timeout=30)).read(9) == b"hello"
    await client.close()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unreadable_trust_is_a_configuration_error(tmp_path: Path, content: str | None) -> None:
    """A trust store that is missing or empty is said so, not ignored."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        create_tls_context({"SSL_CERT_FILE": str(file)})


async def test_trust_that_cannot_be_read_fails_the_connection(serve: Serve, tmp_path: Path) -> None:
    """Whoever did not look at the start is told by the first call, in our words; a later repair is noticed."""
    server = await serve(whole_forever)
    client = UpstreamClient(environ={"SSL_CERT_FILE": str(tmp_path / "missing.pem")})
    for _ in range(2):
        with pytest.raises(TlsFailed, match="SSL_CERT_FILE"):
            await client.send(UpstreamCall(f"https://127.0.0.1:{server.port}/", {}, b""), connect_timeout=30)
    assert (client.open, server.peers) == (0, [])
    await client.close()


async def test_trust_is_loaded_once(
    serve: Serve, trusting: UpstreamClient, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of first calls loads the trust store once, off the loop; one that leaves does not stop the others."""
    threads: list[int] = []
    left = threading.Event()

    def load(environ: Mapping[str, str]) -> ssl.SSLContext:
        threads.append(threading.get_ident())
        left.wait(30)
        return create_tls_context(environ)

    monkeypatch.setattr("llm_router.proxy.upstream.tls.create_tls_context", load)
    server = await serve(whole_forever, tls=server_tls)
    first, *others = [asyncio.ensure_future(trusting.send(server.call(), connect_timeout=30)) for _ in range(10)]
    await until(lambda: threads)
    first.cancel()
    await a_few_turns()
    left.set()
    for call in others:
        assert await (await call).read(9) == b"hello"
    assert first.cancelled()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_empty_variables_count_as_unset() -> None:
    """An empty SSL_CERT_FILE means the system's authorities."""
    context = create_tls_context({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""})
    assert context.verify_mode is ssl.CERT_REQUIRED
