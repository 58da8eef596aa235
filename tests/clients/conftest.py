"""The fixtures that the black-box suites share."""

from tests.support.fixtures import launch, own, ports, shared_router, stage

__all__ = ["launch", "own", "ports", "shared_router", "stage"]
