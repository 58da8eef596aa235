"""What is kept of answers, and that it has bounds."""

from __future__ import annotations

from llm_router.proxy.tap import Tap, TapBudget


def test_past_its_bound_a_tap_counts_without_keeping() -> None:
    """The size stays true, the memory bounded, and the end of the answer known."""
    tap = Tap(TapBudget(), limit=1000)
    for number in range(100):
        tap.keep(b"%03d" % number * 10)
    assert tap.size == 3000
    assert tap.kept <= 1000
    assert tap.last_blocks()[0] == b"099" * 10


def test_all_taps_share_a_budget_and_give_it_back() -> None:
    """One stream's kept bytes leave less for the others until it is settled."""
    budget = TapBudget(limit=100)
    first, second = Tap(budget), Tap(budget)
    first.keep(b"x" * 80)
    second.keep(b"y" * 80)
    assert second.kept == 0
    first.release()
    assert budget.used == 0
    third = Tap(budget)
    third.keep(b"z" * 80)
    assert third.kept == 80
