"""The TLS context for upstreams: the system's trust, or the one that SSL_CERT_FILE and SSL_CERT_DIR name."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from llm_router.errors import ConfigError


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
