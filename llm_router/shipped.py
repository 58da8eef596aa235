"""What comes with the package as data: the price table, and what the classifier has learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_router.routing.classify import Brain

_FOLDER = Path(__file__).parent / "data"


def prices() -> bytes:
    """The price table, as `PriceTable.parse` takes it."""
    return (_FOLDER / "prices.json").read_bytes()


def brain() -> Brain:
    """The classifier; the list of subjects is read once a category needs it."""
    from llm_router.routing.classify import Brain  # who wants prices alone can do without

    return Brain.load((_FOLDER / "classifier.bin").read_bytes(), (_FOLDER / "subjects.txt").read_bytes)
