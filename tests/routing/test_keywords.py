"""Keywords match whole words in any script, and the most specific hit wins."""

from __future__ import annotations

import pytest

from llm_router.config.values import Category
from llm_router.routing.classify import Brain, classify_by_keywords
from llm_router.routing.classify_keywords import compile_keywords
from llm_router.routing.turns import Turns


def first(text: str, **keywords: tuple[str, ...]) -> str | None:
    """The category of the best hit."""
    matcher = compile_keywords([Category(name, keywords=words) for name, words in keywords.items()])
    hits = matcher.find(text)
    return hits[0].category if hits else None


@pytest.mark.parametrize(
    ("text", "keyword", "hit"),
    [
        ("What is the capital of Peru?", "api", False),
        ("Call the API.", "api", True),
        ("call THE api!", "Api", True),
        ("therapist", "api", False),
        ("I use C++ daily", "c++", True),
        ("I use C daily", "c++", False),
        ("a node.js server", "node.js", True),
        ("a node js server", "node.js", False),
        ("read the stack trace", "stack trace", True),
        ("stack of traces", "stack trace", False),
        ("请帮我写诗一首", "写诗", True),
        ("写一首诗", "写诗", False),
        ("このコードを直して", "コード", True),
        ("코드를 고쳐줘", "코드", True),
        ("STRASSE", "straße", True),
        ("напиши СКРИПТ", "скрипт", True),
        ("скриптом", "скрипт", False),
        ("اكتب قصيدة", "قصيدة", True),
        ("एक कविता लिखो", "कविता", True),
        ("bir şiir yaz", "şiir", True),
        ("ＰＹＴＨＯＮ", "python", True),
        ("appelle l'API", "api", True),
    ],
)
def test_whole_words_in_any_script(text: str, keyword: str, hit: bool) -> None:
    """A keyword hits whole words, in any case; inside only where a script writes no spaces."""
    assert (first(text, code=(keyword,)) == "code") is hit


def test_longest_keyword_wins() -> None:
    """The longer, more specific keyword decides, however often the shorter one occurs."""
    assert first("sql sql sql: write a poem about sql", code=("sql",), verse=("write a poem",)) == "verse"


def test_more_hits_decide_between_equals() -> None:
    """Between keywords of one length the category with more hits wins."""
    assert first("java and ruby and ruby", a=("java",), b=("ruby",)) == "b"


def test_configuration_order_decides_at_last() -> None:
    """With everything equal the category that comes first in the configuration wins."""
    assert first("java ruby", a=("ruby",), b=("java",)) == "a"
    assert first("shared word", second=("shared",), first=("shared",)) == "second"


def test_no_hit_is_conversation(brain: Brain) -> None:
    """In keywords mode a text without any keyword is conversation, whatever it is about."""
    roster = brain.roster([Category("code", keywords=("cobol",)), Category("conversation")])
    found = classify_by_keywords(Turns("def f(x): return x"), roster)
    assert (found.category, found.mode) == ("conversation", "keywords")


def test_shipped_keywords_stand_in_where_there_are_none(brain: Brain) -> None:
    """Shipped keywords count in keywords mode only for categories without own ones."""
    roster = brain.roster(
        [
            Category("code", keywords=("cobol",)),
            Category("reasoning", shipped_keywords=("prove",)),
            Category("conversation"),
        ]
    )
    assert classify_by_keywords(Turns("please prove it"), roster).category == "reasoning"
    assert classify_by_keywords(Turns("cobol, prove it"), roster).evidence == (
        "keyword 'cobol' (code)",
        "keyword 'prove' (reasoning)",
    )


def test_keywords_can_choose_tools(brain: Brain) -> None:
    """The category that structure decides can be chosen by the user's keywords, in both modes."""
    roster = brain.roster([Category("tools", keywords=("browse the web",)), Category("code"), Category("conversation")])
    turns = Turns("browse the web for news about whales")
    assert classify_by_keywords(turns, roster).category == "tools"
    assert brain.classify(turns, roster).category == "tools"
    assert "tools" not in brain.classify(Turns("news about whales"), roster).scores


def test_many_categories_cost_one_pass() -> None:
    """Thousands of keywords are looked up, not tried one by one: only words of the text are compared."""
    categories = [Category(f"c{i}", keywords=tuple(f"word{i}x{j}" for j in range(20))) for i in range(500)]
    matcher = compile_keywords(categories)
    assert [hit.category for hit in matcher.find("nothing here but word499x19 and more")] == ["c499"]
    assert len(matcher.lengths) == 10_000


def test_head_and_tail_of_a_long_text_are_read() -> None:
    """In a long text keywords count at its start and at its end."""
    filler = "lorem ipsum " * 5_000
    assert first(f"sonnet {filler}", verse=("sonnet",)) == "verse"
    assert first(f"{filler} sonnet", verse=("sonnet",)) == "verse"
