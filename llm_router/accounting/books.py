"""What the router asks of whoever keeps its books: a `Bookkeeper` of its own, or the keeper of many workers."""

from __future__ import annotations

from typing import Any, Protocol

from llm_router.accounting.booking import Booking
from llm_router.accounting.report import By
from llm_router.accounting.settle import CountMode


class Books(Protocol):
    """Takes requests from their admission to their record. See `Bookkeeper` for each method."""

    count: CountMode

    def enter(self, request_id: str, started: float, *, client: str = "", model: str = "") -> int:
        """Notes an admitted request; gives the ticket for its booking."""
        ...

    def submit(self, booking: Booking) -> None:
        """Hands over a request that has closed. Never waits."""
        ...

    def pending(self, request_id: str, client: str | None = None) -> bool:
        """Whether such a request is running here or not yet settled."""
        ...

    def pending_elsewhere(self, request_id: str, client: str | None = None) -> bool:
        """Whether such a request is running in another worker. May read the disk."""
        ...

    def request(self, request_id: str, client: str | None = None) -> dict[str, Any] | None:
        """The newest record of a request id. Reads the disk."""
        ...

    def usage(self, by: By = "model", since: float | None = None, client: str | None = None) -> list[dict[str, Any]]:
        """Sums from the ledger. Reads the disk."""
        ...

    def close(self, timeout: float = 5.0) -> bool:
        """Waits until all is settled; False if that took longer than `timeout` seconds."""
        ...


class Figures(Protocol):
    """Gives the live figures of the whole router."""

    async def figures(self, circuits: dict[str, Any], accept: str | None = None) -> tuple[bytes, str]:
        """JSON, or the text that `accept` asks for, and its content type. `circuits` is the router's own report."""
        ...
