"""The TLS context for upstreams: the system's trust, or the one that SSL_CERT_FILE and SSL_CERT_DIR name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

from llm_router.errors import ConfigError
from llm_router.proxy.upstream.errors import TlsFailed


def create_tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Verifies certificates and host names. Reads files. Raises ConfigError for a trust store that cannot be read."""
    paths = ssl.get_default_verify_paths()
    file = environ.get("SSL_CERT_FILE") or None
    folder = environ.get("SSL_CERT_DIR") or None
    try:
        # What is not named stays as OpenSSL has it, as it would with these variables in the process' environment.
        context = ssl.create_default_context(
            cafile=file or (paths.cafile if folder else None), capath=folder or (paths.capath if file else None)
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError("SSL_CERT_FILE, SSL_CERT_DIR", f"no certificates could be read ({error})") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class Trust:
    """The context for all connections, loaded in a thread when the first one needs it: that takes 20 ms."""

    def __init__(self, context: ssl.SSLContext | None, environ: Mapping[str, str]) -> None:
        self._context = context
        self._environ = environ
        self._loading: asyncio.Future[ssl.SSLContext] | None = None

    def __repr__(self) -> str:
        return f"<Trust {'loaded' if self._context else 'not loaded'}>"

    async def context(self) -> ssl.SSLContext:
        """The context. Raises TlsFailed where the trust store cannot be read."""
        if self._context is None:
            if self._loading is None:
                loop = asyncio.get_running_loop()
                self._loading = loop.run_in_executor(None, create_tls_context, self._environ)
            loading = self._loading
            await asyncio.wait((loading,))  # shared: being cancelled here does not stop the others
            try:
                self._context = loading.result()
            except ConfigError as error:
                raise TlsFailed(f"no secure connection to the upstream: {error}") from error
            finally:
                self._loading = None
        return self._context
