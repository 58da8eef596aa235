"""The fixtures that the black-box suites share; the soak test runs only where its marker was asked for."""

from __future__ import annotations

import pytest

from tests.support.fixtures import Launch, Stage, launch, own, ports, shared_router, stage, start_upstreams

__all__ = ["Launch", "Stage", "launch", "own", "ports", "shared_router", "stage", "start_upstreams"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the soak test unless `-m` names it."""
    if "soak" in (config.option.markexpr or ""):
        return
    soaking = [item for item in items if item.get_closest_marker("soak")]
    if soaking:
        config.hook.pytest_deselected(items=soaking)
        items[:] = [item for item in items if item not in soaking]
