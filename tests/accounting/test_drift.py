"""What is learned about how far our counts are from what providers report."""

import pytest

from llm_router.accounting.drift import DriftBook


def taught(times: int, *tokens: int) -> DriftBook:
    """A book that has seen so many answers of `openai/m`: counted and reported input, counted and reported output."""
    book = DriftBook()
    for _ in range(times):
        book.learn("openai/m", *tokens)
    return book


@pytest.mark.parametrize(("times", "ratio"), [(4, (None, None)), (5, (2.0, 0.5))])
def test_a_few_answers_teach_nothing(times, ratio):
    """Not before five of them a ratio is believed; then it is what was reported over what was counted."""
    assert taught(times, 10, 20, 8, 4).ratio("openai/m") == ratio


@pytest.mark.parametrize(
    ("tokens", "ratio"),
    [
        ((0, 20, 8, 4), (None, 0.5)),
        ((10, 0, 8, 4), (None, 0.5)),
        ((10, 20, 0, 4), (2.0, None)),
        ((10, 20, 8, 0), (2.0, None)),
    ],
)
def test_a_side_that_either_lacks_teaches_nothing(tokens, ratio):
    """A report of nothing is no ratio, nor is a count of nothing; and neither spoils a known one."""
    book = taught(5, *tokens)
    assert book.ratio("openai/m") == ratio
    for _ in range(5):
        book.learn("openai/m", 10, 20, 8, 4)
    assert book.ratio("openai/m") == (2.0, 0.5)


@pytest.mark.parametrize(("reported", "ratio"), [(10_000, 20.0), (1, 0.1)])
def test_no_ratio_is_absurd(reported, ratio):
    """A provider that reports nonsense must not make bills of it."""
    assert taught(5, 100, reported, 100, reported).ratio("openai/m") == (ratio, ratio)


def test_older_answers_fade():
    """A provider that counts otherwise since today is believed once it has reported as much again."""
    book = taught(10, 1_000_000, 1_000_000, 1_000_000, 1_000_000)
    for _ in range(10):
        book.learn("openai/m", 1_000_000, 2_000_000, 1_000_000, 2_000_000)
    into, out = book.ratio("openai/m")
    assert into == out > 1.9


def test_counts_are_put_as_the_provider_would_report_them():
    """A side of which nothing is known stays as it was counted; a model of which nothing is known as a whole."""
    book = taught(5, 10, 20, 0, 4)
    assert book.calibrate("openai/m", 100, 100) == (200, 100)
    assert book.calibrate("openai/other", 100, 100) is None


def test_the_oldest_model_is_forgotten():
    """Clients may name any model: the book has an end."""
    book = DriftBook()
    for number in range(513):
        book.learn(f"openai/m{number}", 1, 1, 1, 1)
    names = [name for name, *_ in book.rows()]
    assert (len(names), names[0], names[-1]) == (512, "openai/m1", "openai/m512")


def test_what_was_saved_is_taken_over_where_nothing_newer_is_known():
    """Rows come back as they were written; what was learned since counts more."""
    rows = taught(5, 10, 20, 8, 4).rows()
    assert DriftBook(rows).rows() == rows
    book = taught(5, 10, 30, 8, 4)
    book.load(rows)
    assert book.ratio("openai/m") == (3.0, 0.5)
