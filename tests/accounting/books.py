"""A running bookkeeper, and looks at its ledger from outside."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from llm_router.accounting.ledger import Bookkeeper
from llm_router.accounting.store import LEDGER_NAME


@contextmanager
def keeping(folder: Path | None, **options: Any) -> Iterator[Bookkeeper]:
    """A running bookkeeper, closed at the end."""
    keeper = Bookkeeper(folder, **options)
    keeper.start()
    try:
        yield keeper
    finally:
        assert keeper.close(60)


def rows(folder: Path, name: str = LEDGER_NAME, columns: str = "request_id, outcome") -> list[tuple]:
    """What stands in a ledger, in the order of writing."""
    with closing(sqlite3.connect(f"file:{folder / name}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT {columns} FROM requests ORDER BY id").fetchall()


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Waits for what must happen, as long as a busy machine may need."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
