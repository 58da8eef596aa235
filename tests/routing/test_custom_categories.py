"""The user's own categories: by name, description, examples and keywords."""

from __future__ import annotations

import pytest

from llm_router.config.values import Category
from llm_router.routing.classify import Brain
from llm_router.routing.turns import Turns
from tests.routing.prompts import BUILTIN, CLEAR, CREATIVE


@pytest.mark.parametrize(
    "category",
    [
        CREATIVE,
        Category("creative", custom=True),
        Category("creative", models=("openrouter/x",)),
        Category("creative-writing", description="fiction", custom=True),
        Category("stories", custom=True),
        Category("prose", description="Stories, poems and songs", custom=True),
        Category("fun", keywords=("story", "poem", "lyrics", "limerick"), custom=True),
        Category("kreativ", description="Gedichte und Geschichten", custom=True),
        Category("writing", description="creative writing: short stories, verse, screenplays", custom=True),
    ],
)
def test_creative_is_known_by_any_name(brain: Brain, category: Category) -> None:
    """A configured category that plainly means stories and verse gets what the model knows about them."""
    roster = brain.roster([*BUILTIN, category])
    for text in CLEAR["creative"]:
        assert brain.classify(Turns(text), roster).category == category.name
    for label in ("code", "reasoning", "conversation"):
        for text in CLEAR[label][:4]:
            assert brain.classify(Turns(text), roster).category == label


def test_without_a_creative_category_stories_are_conversation(brain: Brain) -> None:
    """What the configuration has no category for is conversation."""
    roster = brain.roster(BUILTIN)
    for text in CLEAR["creative"]:
        found = brain.classify(Turns(text), roster)
        assert (found.category, "creative" in found.scores) == ("conversation", False)


def test_custom_categories_work_from_description_and_examples(brain: Brain) -> None:
    """A custom category needs no training: its own words draw the prompts that share them, and no others."""
    legal = Category("legal", description="contracts, liability and tenancy law", custom=True)
    travel = Category(
        "travel",
        examples=("plan a weekend in Lisbon", "cheap flights to Tokyo in May", "hotel near the beach"),
        custom=True,
    )
    roster = brain.roster([*BUILTIN, CREATIVE, legal, travel])
    assert (
        brain.classify(Turns("Who bears the liability under tenancy law if a pipe bursts?"), roster).category == "legal"
    )
    found = brain.classify(Turns("plan a weekend in Porto with a cheap hotel near the beach"), roster)
    assert found.category == "travel"
    assert any("as in its description or examples" in reason for reason in found.evidence)
    sql = brain.roster([*BUILTIN, Category("sql", description="SQL queries and database design", custom=True)])
    assert brain.classify(Turns("Design a database with three tables in SQL"), sql).category == "sql"
    assert brain.classify(Turns("Reverse a string in Go"), sql).category == "code"
    for label, texts in CLEAR.items():
        assert brain.classify(Turns(texts[0]), roster).category == label


def test_several_creative_categories_are_told_apart(brain: Brain) -> None:
    """Several categories of stories, verse and play share what the model knows of them by their own words."""
    stories = Category("stories", description="short stories and novels", custom=True)
    poetry = Category("poetry", description="poems, haiku, sonnets", custom=True)
    play = Category("roleplay", description="role-play with characters", examples=("you are a dragon",), custom=True)
    roster = brain.roster([*BUILTIN, stories, poetry, play])
    for name, text in (
        ("stories", "Write a short story about a mouse"),
        ("poetry", "haiku on frost"),
        ("roleplay", "let's roleplay: a first date"),
    ):
        assert brain.classify(Turns(text), roster).category == name
    one = brain.classify(Turns("limerick on taxes"), brain.roster([*BUILTIN, poetry]))
    several = brain.classify(Turns("limerick on taxes"), roster).scores
    assert sum(several[c.name] for c in (stories, poetry, play)) == pytest.approx(one.scores["poetry"])


def test_custom_categories_work_where_words_are_not_spaced(brain: Brain) -> None:
    """One word of a description is enough in a short Chinese or Japanese question, as it is elsewhere."""
    law = Category("law", description="法律问题：合同、律师、诉讼", custom=True)
    trips = Category("trips", description="旅行の計画、ホテル、観光", custom=True)
    roster = brain.roster([*BUILTIN, CREATIVE, law, trips])
    assert brain.classify(Turns("打离婚官司要请律师吗"), roster).category == "law"
    assert brain.classify(Turns("京都で安いホテルを教えて"), roster).category == "trips"
    assert brain.classify(Turns("怎么跟女朋友道歉"), roster).category == "conversation"
    assert brain.classify(Turns("日本で一番高い山は？"), roster).category == "conversation"


def test_names_that_merely_contain_story_are_not_creative(brain: Brain) -> None:
    """`history` is no category of stories."""
    roster = brain.roster([*BUILTIN, Category("history", description="wars, empires, dates", custom=True)])
    assert brain.classify(Turns("Write a poem about the sea in winter"), roster).category == "conversation"
    assert brain.classify(Turns("Which empires fought wars in 1683?"), roster).category == "history"


def test_hundreds_of_custom_categories_do_not_drown_a_prompt(brain: Brain) -> None:
    """Categories that have nothing to do with a prompt take no share of its probability."""
    words = [f"{a}{b}{a}zorium" for a in "bcdfghklmnprstvwz" for b in "abcdefghijklmnopqr"]
    many = [Category(f"dept-{word}", description=f"tickets of department {word}", custom=True) for word in words]
    roster = brain.roster([*BUILTIN, CREATIVE, *many])
    for label, texts in CLEAR.items():
        assert brain.classify(Turns(texts[0]), roster).category == label
    assert brain.classify(Turns("open a ticket for department gigzorium"), roster).category == "dept-gigzorium"


def test_own_keywords_are_strong_evidence(brain: Brain) -> None:
    """A keyword of the user's pulls a doubtful prompt into its category, and is named as the reason."""
    text = "Something about Ferrovia please"
    plain = brain.roster(BUILTIN)
    with_keyword = brain.roster([Category("code", keywords=("ferrovia",)), *BUILTIN[2:]])
    assert brain.classify(Turns(text), plain).category != "code"
    found = brain.classify(Turns(text), with_keyword)
    assert found.category == "code"
    assert found.evidence[0] == "keyword 'ferrovia' (yours)"


def test_a_keyword_is_heard_among_hundreds_that_look_like_it(brain: Brain) -> None:
    """Only the categories that share most words with a text are compared; one whose keyword occurs always is."""
    many = [Category(f"c{number}", keywords=(f"topic {number}",), custom=True) for number in range(300)]
    found = brain.classify(Turns("let us talk about topic 277"), brain.roster([*BUILTIN, *many]))
    assert found.category == "c277"
    assert found.confidence > 0.5
