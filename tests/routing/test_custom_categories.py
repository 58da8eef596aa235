"""The user's own categories: by name, description, examples and keywords."""

from __future__ import annotations

import pytest

from llm_router.config.values import Category
from llm_router.routing.classify import Brain
from llm_router.routing.classify_features import extract
from llm_router.routing.classify_subjects import Subjects
from llm_router.routing.turns import Turns
from tests.routing.conftest import SUBJECTS
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


@pytest.mark.parametrize(
    ("category", "texts"),
    [
        (
            Category("medical", description="health, symptoms, medication", custom=True),
            ("is ibuprofen safe every day", "my knee hurts since the fracture", "síntomas de anemia", "头痛吃什么药"),
        ),
        (
            Category("recht", description="Mietrecht, Verträge, Klagen", custom=True),
            (
                "Kündigungsfrist bei Eigenbedarf vor Gericht",
                "who inherits without a testament",
                "хозяин подал иск в суд",
            ),
        ),
        (
            Category("trips", examples=("cheap flights to Tokyo in May", "which hotel near the old town"), custom=True),
            ("what luggage may I take on a flight with a layover", "vuelos y hoteles en Roma"),
        ),
        (Category("cooking", custom=True), ("how do I simmer lentils with onion", "脆い豆腐の炒めレシピ")),
        (
            Category("green", description="house plants and gardening", custom=True),
            ("slugs ate all my lettuce", "was hilft gegen Blattläuse", "绿萝多久浇水一次"),
        ),
        (
            Category("sky", description="stars, planets, telescopes", custom=True),
            ("when is the next lunar eclipse", "pourquoi la lune devient-elle rouge pendant une éclipse"),
        ),
        (
            Category("hr", description="vacation, payroll, sick leave, benefits", custom=True),
            ("how do I apply for parental leave", "my payslip is wrong"),
        ),
    ],
)
def test_a_category_is_known_by_its_subject(brain: Brain, category: Category, texts: tuple[str, ...]) -> None:
    """A category that is about a known subject gets prompts that share no word with it, in whatever language."""
    roster = brain.roster([*BUILTIN, CREATIVE, category])
    for text in texts:
        found = brain.classify(Turns(text), roster)
        assert found.category == category.name, text
        assert any("of its subject" in reason for reason in found.evidence)
    for label, clear in CLEAR.items():
        assert brain.classify(Turns(clear[0]), roster).category == label


def test_words_of_other_subjects_speak_against_a_category(brain: Brain) -> None:
    """One word of a category's subject among as many of another one's does not make a prompt its own."""
    roster = brain.roster([*BUILTIN, Category("finance", description="investing, taxes, budgets", custom=True)])
    assert brain.classify(Turns("which dividends are taxed"), roster).category == "finance"
    assert brain.classify(Turns("a recipe for soup with stock, garlic and onion"), roster).category == "conversation"
    assert brain.classify(Turns("write a budget class in Kotlin with unit tests"), roster).category == "code"


def test_fiction_about_a_subject_is_not_about_it(brain: Brain) -> None:
    """A verse about a tenant is no question of law, whether or not there is a category for verses."""
    legal = Category("legal", description="contracts, tenancy, employment law", custom=True)
    text = Turns("write a limerick about a tenant with eleven parrots")
    assert brain.classify(text, brain.roster([*BUILTIN, legal])).category == "conversation"
    assert brain.classify(text, brain.roster([*BUILTIN, CREATIVE, legal])).category == "creative"


def test_words_that_merely_stand_beside_a_subject_weigh_less(brain: Brain) -> None:
    """What is personal belongs to "personal finance" only where money comes in."""
    finance = Category("finance", description="personal finance, taxes, investing", custom=True)
    roster = brain.roster([*BUILTIN, CREATIVE, finance])
    assert brain.classify(Turns("my personal taxes"), roster).category == "finance"
    assert brain.classify(Turns("third person limited or omniscient?"), roster).category == "conversation"


def test_categories_of_one_subject_are_told_apart_by_their_own_words(brain: Brain) -> None:
    """What several categories are about draws prompts to them; which one it is their own words tell."""
    billing = Category("billing", description="invoices, payments, charges", custom=True)
    shipping = Category("shipping", description="delivery, tracking, parcels", custom=True)
    roster = brain.roster([*BUILTIN, billing, shipping])
    assert brain.classify(Turns("my invoice was paid twice"), roster).category == "billing"
    assert brain.classify(Turns("the tracking of my parcel stands still"), roster).category == "shipping"


def test_subjects_are_read_only_where_a_category_may_need_them(brain: Brain) -> None:
    """Configurations without categories of their own, or with creative ones alone, hold no list of subjects."""
    asked: list[int] = []
    counting = Brain(brain.model, lambda: asked.append(1) or b"")  # type: ignore[func-returns-value]
    counting.roster([*BUILTIN, CREATIVE])
    assert asked == []
    counting.roster([*BUILTIN, Category("legal", custom=True)])
    assert asked == [1]


def test_every_word_of_the_subjects_can_be_found(brain: Brain) -> None:
    """A word, stem or pair of the list is a feature of a text that has it, and tells at most two subjects."""
    subjects = Subjects.parse(SUBJECTS.read_text("utf-8"))
    assert len(subjects.words) > 8_000
    lost = [
        word
        for word in subjects.words
        if not any(word in extract(word.rstrip("*") + rest, {}).grams for rest in ("", "xxx", "가나다"))
    ]
    assert lost == []
    assert max(map(len, subjects.words.values())) == 2


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
