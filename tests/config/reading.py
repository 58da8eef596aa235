"""A load of a configuration, as the tests of its meaning want it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_router.config.loading import load
from llm_router.config.values import Snapshot

NAME = "/etc/router_config.json"


def read(
    content: Any = None,
    environ: Mapping[str, str] | None = None,
    dotenv: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Snapshot:
    """A load of JSON-able content (None: no file) or raw bytes."""
    data = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
    return load({"HOME": "/home/u", **(environ or {})}, dotenv or {}, data, NAME, flags or {})
