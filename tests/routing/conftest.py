"""What the tests of routing share."""

from __future__ import annotations

from pathlib import Path

import pytest

import llm_router
from llm_router.config.values import BreakerSettings
from llm_router.routing.breaker import Circuits
from llm_router.routing.classify import Brain, Roster
from tests.routing.prompts import BUILTIN, CREATIVE

WEIGHTS = Path(llm_router.__file__).parent / "data" / "classifier.bin"
SUBJECTS = WEIGHTS.with_name("subjects.txt")


@pytest.fixture(scope="session")
def brain() -> Brain:
    """The shipped classifier."""
    return Brain.load(WEIGHTS.read_bytes(), SUBJECTS.read_bytes)


@pytest.fixture(scope="module")
def roster(brain: Brain) -> Roster:
    """The built-in categories and `creative`."""
    return brain.roster([*BUILTIN, CREATIVE])


@pytest.fixture
def circuits() -> Circuits:
    """Threshold 3, recovery 300 seconds."""
    return Circuits(BreakerSettings())
