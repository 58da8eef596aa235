"""The stages of the fault suite serve these stories too."""

from tests.faults.conftest import launch, own, ports, shared_router, stage

__all__ = ["launch", "own", "ports", "shared_router", "stage"]
