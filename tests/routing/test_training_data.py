"""The prompts and word lists that the classifier learns from are well formed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from llm_router.routing.classify_features import extract
from training import prompts
from training.weights import keys_of, read_lexicons

LABELS = {"code", "reasoning", "creative", "conversation"}
LEXICONS = Path(prompts.__file__).parent / "lexicons.txt"


def test_every_prompt_has_a_known_label() -> None:
    """No prompt is empty or labelled with a word that is no label."""
    rows = list(prompts.rows())
    assert len(rows) > 10_000
    assert {label for _, label, _, _ in rows} == LABELS
    assert all(text.strip() and weight > 0 for text, _, _, weight in rows)


def test_no_seed_has_two_labels() -> None:
    """The same words are not taught under two labels."""
    labels = Counter(text.lower() for text, _ in {(text, label) for text, label, _, _ in prompts.seeds()})
    assert [text for text, count in labels.items() if count > 1] == []


def test_composed_prompts_are_the_same_every_time() -> None:
    """Training twice means training on the same prompts."""
    assert list(prompts.rows()) == list(prompts.rows())


def test_every_entry_of_the_lexicon_can_be_found() -> None:
    """A word, pair or stem of the lists is found in a text that has it, else it would be dead weight."""
    _, lexicon = read_lexicons(LEXICONS)
    lines = [line for line in LEXICONS.read_text(encoding="utf-8").splitlines() if line and line[0] not in "#["]
    entries = [entry.strip().lower() for line in lines for entry in line.partition(":")[2].split(",")]
    plain = [entry for entry in entries if keys_of(entry) and not entry.endswith("*")]
    assert len(plain) > 5_000
    assert [entry for entry in plain if not extract(entry, lexicon).groups] == []


def test_wishes_about_the_form_go_with_every_label() -> None:
    """Wishes stand behind prompts of each label, in the families of those prompts, so that they weigh nothing."""
    rows = list(prompts.constrained())
    assert {label for _, label, _, _ in rows} == LABELS
    assert {family for _, _, family, _ in rows} <= {family for _, _, family, _ in prompts.seeds()}
