"""What the tests of routing share."""

from __future__ import annotations

from pathlib import Path

import pytest

import llm_router
from llm_router.routing.classify import Brain

WEIGHTS = Path(llm_router.__file__).parent / "data" / "classifier.bin"


@pytest.fixture(scope="session")
def brain() -> Brain:
    """The shipped classifier."""
    return Brain.load(WEIGHTS.read_bytes())
