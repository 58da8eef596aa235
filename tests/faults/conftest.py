"""The fixtures that the black-box suites share."""

from tests.support.fixtures import Launch, Stage, launch, own, ports, shared_router, stage, start_upstreams

__all__ = ["Launch", "Stage", "launch", "own", "ports", "shared_router", "stage", "start_upstreams"]
