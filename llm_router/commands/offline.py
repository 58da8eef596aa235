"""A router that decides and plans as the served one would, and calls nobody."""

from __future__ import annotations

import os
import time

from llm_router import __version__, shipped
from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.metrics import Metrics
from llm_router.proxy.config_file import ConfigFile
from llm_router.proxy.dispatch import Router
from llm_router.proxy.parts import Memory
from llm_router.proxy.state import CircuitFile
from llm_router.proxy.upstream import UpstreamClient
from llm_router.routing.breaker import Circuits


def offline_router(config: str | None) -> Router:
    """With the configuration in force and the circuits as they were last saved; no ledger. Raises ConfigError.

    Make it inside a running event loop.
    """
    config_file = ConfigFile(os.environ, {"config": config})
    snapshot = config_file.load()
    circuits = Circuits(snapshot.breaker)
    CircuitFile(snapshot.state_dir).load(circuits, time.time())
    return Router(
        snapshot,
        shipped_prices=shipped.prices(),
        brain=shipped.brain(),
        upstream=UpstreamClient(),
        bookkeeper=Bookkeeper(None),
        metrics=Metrics(__version__),
        config_file=config_file,
        memory=Memory(circuits),
    )
