"""`llm-router serve`: runs the proxy."""

from __future__ import annotations

import mimetypes
import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

_FLAGS = ("host", "port", "workers", "config", "demo", "allow_unauthenticated", "log_level", "log_format")
_TRUST_STORE = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def run(arguments: Namespace) -> int:
    """Serves until told to stop."""
    # A reload before anything was read has nothing to do; it must not end a router that is about to start.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with only_modules():
        from llm_router.server.app import run as run_server

    return run_server({name: getattr(arguments, name) for name in _FLAGS})


@contextmanager
def only_modules() -> Iterator[None]:
    """Imports within find neither certificates nor the machine's table of file types.

    aiohttp reads both as it is imported: the certificates, twice, for its client, the table for files that it serves.
    Here nobody uses either, and they cost 2.5 MiB and a tenth of the start. What talks to the upstreams reads the
    certificates when it first needs them.
    """
    variables = {name: os.environ.get(name) for name in _TRUST_STORE}
    tables = mimetypes.knownfiles
    os.environ.update(dict.fromkeys(_TRUST_STORE, os.devnull))
    mimetypes.knownfiles = []
    try:
        yield
    finally:
        mimetypes.knownfiles = tables
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
