"""Follow-ups keep the category of their thread, and new topics leave it."""

from __future__ import annotations

import pytest

from llm_router.config.values import Category
from llm_router.routing.classify import Brain, Roster
from llm_router.routing.turns import Turns, read_turns
from tests.routing.prompts import BUILTIN, CLEAR
from tests.routing.test_turns import user


@pytest.mark.parametrize(
    ("thread", "followup"),
    [
        ("code", "and in rust?"),
        ("code", "now shorter"),
        ("code", "yes please"),
        ("reasoning", "why?"),
        ("reasoning", "try again"),
        ("reasoning", "is there another way to do it?"),
        ("creative", "make it longer"),
        ("creative", "no, the other way round"),
        ("creative", "noch eins"),
        ("creative", "继续"),
        ("conversation", "tell me more"),
        ("conversation", "ok, thanks"),
    ],
)
def test_followups_keep_their_threads_category(brain: Brain, roster: Roster, thread: str, followup: str) -> None:
    """A short continuation takes the category of what was asked before, through other short ones too."""
    for text in CLEAR[thread][:2]:
        assert brain.classify(Turns(followup, (text,)), roster).category == thread
        assert brain.classify(Turns(followup, ("go on", text)), roster).category == thread


@pytest.mark.parametrize(
    ("thread", "later"),
    [
        ("code", ("what happens if it is empty?",)),
        ("code", ("auf deutsch bitte",)),
        ("code", ("不要用循环", "再短一点")),
        ("code", ("the second one is too slow", "and without it?", "ok", "is that everything?")),
        ("reasoning", ("what if there were two of them?",)),
        ("reasoning", ("et si on double ?", "pourquoi ?")),
        ("creative", ("make the ending sadder", "she should have a brother", "in english please")),
        ("creative", ("sum up what happened so far",)),
        ("conversation", ("and in winter?", "how much does that cost")),
    ],
)
def test_rows_of_followups_keep_their_threads_category(
    brain: Brain, roster: Roster, thread: str, later: tuple[str, ...]
) -> None:
    """Follow-ups that say something, in whatever language and however many of them, are still about their thread."""
    turns = Turns(later[-1], (*later[-2::-1], CLEAR[thread][0]))
    assert brain.classify(turns, roster).category == thread


@pytest.mark.parametrize("thread", ["code", "creative", "conversation"])
def test_a_long_row_of_followups_keeps_the_category(brain: Brain, roster: Roster, thread: str) -> None:
    """Eight follow-ups in a row, which say nothing at all, are still about what was asked for first."""
    said = [CLEAR[thread][0], "continue", "ok", "go on", "yes", "more", "continue", "again please", "next"]
    for length in range(2, len(said) + 1):
        messages = [part for text in said[:length] for part in (user(text), {"role": "assistant", "content": "..."})]
        assert brain.classify(read_turns(messages[:-1]), roster).category == thread


@pytest.mark.parametrize(
    ("category", "text"),
    [
        (Category("legal", keywords=("contract", "lawsuit"), custom=True), "Can he break the contract before June?"),
        (
            Category("medical", description="symptoms, illness, medicine and doctors", custom=True),
            "Which medicine helps against the symptoms of an illness like measles?",
        ),
    ],
)
@pytest.mark.parametrize("followup", ["make it shorter", "and in german?", "why?", "yes please"])
def test_followups_keep_a_custom_category(brain: Brain, category: Category, text: str, followup: str) -> None:
    """What the user's own keywords or description decided holds for the follow-ups, too."""
    roster = brain.roster([*BUILTIN, category])
    assert brain.classify(Turns(text), roster).category == category.name
    assert brain.classify(Turns(followup, (text,)), roster).category == category.name


def test_a_keyword_decides_in_a_followup_too(brain: Brain) -> None:
    """The user's keyword in the newest words weighs more than the thread."""
    roster = brain.roster([*BUILTIN, Category("legal", keywords=("contract",), custom=True)])
    turns = Turns("and put it in a contract", (CLEAR["code"][0],))
    assert brain.classify(turns, roster).category == "legal"


@pytest.mark.parametrize(
    ("before", "text", "category"),
    [
        ("code", "Thanks! Different question: which museums in Vienna are open today?", "conversation"),
        ("creative", "Nice. By the way, how do I delete a branch in git?", "code"),
        ("conversation", "Danke. Andere Frage: was ist 12 mal 17 minus 9?", "reasoning"),
        ("reasoning", "谢谢。换个话题，写一首关于大海的诗", "creative"),
    ],
)
def test_a_topic_that_is_openly_new_is_no_followup(
    brain: Brain, roster: Roster, before: str, text: str, category: str
) -> None:
    """Who says that something else comes now is judged by what comes."""
    assert brain.classify(Turns(text, (CLEAR[before][0],)), roster).category == category


@pytest.mark.parametrize("before", ["code", "reasoning", "conversation"])
def test_a_new_topic_changes_the_category(brain: Brain, roster: Roster, before: str) -> None:
    """A whole request in the middle of a conversation is judged by itself."""
    turns = Turns("Write a poem about a sleepy dragon who collects teacups", (CLEAR[before][0],))
    assert brain.classify(turns, roster).category == "creative"
