"""`llm-router serve`: runs the proxy."""

from __future__ import annotations

from argparse import Namespace

_FLAGS = ("host", "port", "workers", "config", "demo", "allow_unauthenticated", "log_level", "log_format")


def run(arguments: Namespace) -> int:
    """Serves until told to stop."""
    from llm_router.server.app import run as run_server

    return run_server({name: getattr(arguments, name) for name in _FLAGS})
