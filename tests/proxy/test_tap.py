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


def test_what_was_granted_and_not_used_is_given_back_once() -> None:
    """A block that is too large for what is left ends the keeping: the figures stay true, and so does the budget."""
    budget = TapBudget(limit=100_000)
    tap = Tap(budget, limit=5000)
    tap.keep(b"x" * 10)
    tap.keep(b"y" * 6000)
    tap.keep(b"z")
    assert (tap.kept, tap.size) == (10, 6011)
    assert budget.used == 10
    tap.release()
    assert budget.used == 0


def test_the_end_of_a_huge_block_is_enough() -> None:
    """What is kept of the end must hold a finish, not megabytes of an image."""
    tap = Tap(TapBudget(), limit=100)
    for _ in range(20):
        tap.keep(b"x" * 1_000_000 + b"end")
    assert sum(map(len, tap.last_blocks())) <= 8 * 65536
    assert tap.last_blocks()[0].endswith(b"end")


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
