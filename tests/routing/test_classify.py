"""The local classifier tells tasks apart by what the person said, in many languages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.config.values import Category
from llm_router.routing.classify import Brain, Roster
from llm_router.routing.classify_features import bounded
from llm_router.routing.turns import Turns, read_turns
from tests.routing.conftest import WEIGHTS
from tests.routing.test_turns import openclaw, user

BUILTIN = [Category("tools"), Category("code"), Category("reasoning"), Category("conversation")]
CREATIVE = Category("creative", description="stories and poems", custom=True)

CLEAR = {
    "code": [
        "Write a TypeScript function that flattens a nested array",
        "Traceback (most recent call last):\n  File 'x.py', line 3\nZeroDivisionError: division by zero",
        "Warum wirft mein Python-Skript einen KeyError?",
        "Écris une requête SQL qui compte les commandes par mois",
        "¿Cómo hago un bucle infinito en Go con goroutines?",
        "Come creo un container docker con postgres?",
        "Como faço deploy de uma aplicação Node no Kubernetes?",
        "Как подключить библиотеку requests в Python?",
        "用Java实现一个队列",
        "JavaScriptで配列をソートする関数を書いて",
        "파이썬으로 웹 크롤러 코드를 작성해줘",
        "اكتب كود بلغة جافا لقراءة ملف",
        "पायथन में लूप का कोड लिखो",
        "Python'da bir dosyayı satır satır okuyan kod yaz",
    ],
    "reasoning": [
        "Solve 2x + 5 = 17 for x and show each step",
        "Prove that the product of two odd numbers is odd.",
        "Ein Auto fährt 180 km in 2 Stunden. Wie groß ist die Durchschnittsgeschwindigkeit?",
        "Calcule la dérivée de f(x) = x² + 3x",
        "Si 3 manzanas cuestan 6 euros, ¿cuánto cuestan 10 manzanas?",
        "Calcola la probabilità di ottenere due volte testa con una moneta",
        "Resolva a equação x² - 4x + 3 = 0",
        "Докажите, что сумма углов треугольника равна 180 градусам",
        "小明有12个苹果，吃了5个，还剩几个？",
        "半径3cmの円の面積を求めてください",
        "방정식 2x + 3 = 9를 풀어줘",
        "احسب مساحة مثلث قاعدته 4 وارتفاعه 6",
        "समीकरण 2x + 3 = 9 हल करो",
        "2x + 3 = 9 denklemini çöz",
    ],
    "creative": [
        "Write a poem about the sea in winter",
        "Tell me a short story about a fox who could not sleep",
        "Schreibe ein Gedicht über den Herbst",
        "Écris une courte histoire sur un vieux marin",
        "Escribe un poema sobre la luna",
        "Scrivi una favola su una volpe",
        "Escreva um conto sobre um gato mágico",
        "Сочини сказку про лису и зайца",
        "写一首关于春天的诗",
        "桜についての詩を書いてください",
        "가을에 대한 시를 써줘",
        "اكتب قصة قصيرة عن قطة",
        "बारिश पर एक कविता लिखो",
        "Deniz hakkında bir şiir yaz",
    ],
    "conversation": [
        "What is the capital of Portugal?",
        "How do I get better at small talk?",
        "Was sind gute Ausflugsziele rund um München?",
        "Quels sont les bienfaits du yoga ?",
        "¿Quién descubrió América?",
        "Chi ha scritto la Divina Commedia?",
        "Quais são os pontos turísticos de Lisboa?",
        "Какая погода обычно в Сочи в мае?",
        "推荐几个北京的旅游景点",
        "日本で一番高い山は何ですか？",
        "서울에서 가볼 만한 곳을 추천해줘",
        "ما هي أفضل الأطعمة الصحية؟",
        "भारत का राष्ट्रीय पक्षी कौन सा है?",
        "Türkiye'nin en kalabalık şehri hangisi?",
    ],
}
# Languages of which the classifier knows little more than the words that tell most.
FURTHER = {
    "code": [
        "Schrijf een functie in Python die een lijst omkeert",
        "Dlaczego moja funkcja w JavaScript zwraca undefined?",
        "Hur läser jag en fil rad för rad i Java?",
        "Viết một hàm Python đảo ngược chuỗi",
        "โค้ด Python ของฉันมี error ช่วยดูหน่อย",
        "چطور در جاوا یک فایل را بخوانم؟",
        "כתוב פונקציה בפייתון שהופכת רשימה",
        "Πώς γράφω μια συνάρτηση σε Python;",
    ],
    "reasoning": [
        "Bereken de omtrek van een cirkel met straal 3",
        "Rozwiąż równanie 4x - 8 = 12",
        "Lös ekvationen 2x + 9 = 21",
        "Giải phương trình 3x - 6 = 9",
        "แก้สมการ 3x - 6 = 9",
        "Hitung luas segitiga dengan alas 10 dan tinggi 6",
        "פתור את המשוואה 2x - 4 = 10",
        "Oldd meg az egyenletet: 2x - 4 = 10",
    ],
    "creative": [
        "Schrijf een sprookje over een eekhoorn",
        "Napisz wiersz o zimie",
        "Skriv en dikt om våren",
        "Viết một bài thơ về mùa xuân",
        "แต่งกลอนเกี่ยวกับฤดูหนาว",
        "Buatkan puisi tentang musim semi",
        "כתוב שיר על החורף",
        "Γράψε ένα ποίημα για την άνοιξη",
        "Scrie o poezie despre iarnă",
        "Напиши вірш про зиму",
        "বসন্ত নিয়ে একটি কবিতা লেখো",
    ],
    "conversation": [
        "Wat is de hoofdstad van Peru?",
        "Jaka jest stolica Peru?",
        "Vad är huvudstaden i Peru?",
        "Thủ đô của Peru là gì?",
        "เมืองหลวงของเปรูคืออะไร",
        "Apa ibu kota Peru?",
        "Ποια είναι η πρωτεύουσα του Περού;",
        "Mi Peru fővárosa?",
    ],
}
WISHES = (
    "Use at most 150 words and no commas.",
    "Format the answer as JSON.",
    "Give exactly 3 bullet points in Markdown.",
)


@pytest.fixture(scope="module")
def roster(brain: Brain) -> Roster:
    """The built-in categories and `creative`."""
    return brain.roster([*BUILTIN, CREATIVE])


@pytest.mark.parametrize(("label", "text"), [(label, text) for label, texts in CLEAR.items() for text in texts])
def test_clear_prompts(brain: Brain, roster: Roster, label: str, text: str) -> None:
    """Plain prompts of every category are recognised in every language."""
    found = brain.classify(Turns(text), roster)
    assert (found.category, found.mode) == (label, "local")


@pytest.mark.parametrize(("label", "text"), [(label, text) for label, texts in FURTHER.items() for text in texts])
def test_clear_prompts_in_further_languages(brain: Brain, roster: Roster, label: str, text: str) -> None:
    """Languages of which only the telling words are known are told apart by them."""
    assert brain.classify(Turns(text), roster).category == label


@pytest.mark.parametrize("wish", WISHES)
def test_wishes_about_the_form_of_the_answer_decide_nothing(brain: Brain, roster: Roster, wish: str) -> None:
    """How an answer shall look is no task: numbers in it are no mathematics, and JSON is no code."""
    for label, texts in CLEAR.items():
        for text in texts[:2]:
            assert brain.classify(Turns(f"{text} {wish}"), roster).category == label


def test_probabilities_add_up_and_evidence_is_in_words(brain: Brain, roster: Roster) -> None:
    """Scores are probabilities by category; the reasons can be read by people."""
    found = brain.classify(Turns("Evaluate $\\int_0^1 x^2\\,dx$"), roster)
    assert sum(found.scores.values()) == pytest.approx(1)
    assert found.confidence == found.scores[found.category] == max(found.scores.values())
    assert set(found.scores) == {"code", "reasoning", "conversation", "creative"}
    assert "a formula between dollar signs" in found.evidence
    assert "a creative form" in brain.classify(Turns("Write a limerick about tea"), roster).evidence


def test_nothing_said_is_conversation_by_structure(brain: Brain, roster: Roster) -> None:
    """Without words there is nothing to classify."""
    found = brain.classify(Turns("  "), roster)
    assert (found.category, found.mode) == ("conversation", "structure")


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


@pytest.mark.parametrize("label", list(CLEAR))
def test_openclaw_requests_are_judged_by_the_persons_words(brain: Brain, roster: Roster, label: str) -> None:
    """In the shape of a captured agent request every prompt keeps the category that it has by itself."""
    for text in CLEAR[label]:
        assert brain.classify(read_turns(openclaw(text)), roster).category == label


@settings(max_examples=60)
@given(prompt=st.text(max_size=120), label=st.sampled_from(list(CLEAR)), number=st.integers(0, 13))
def test_system_prompts_never_decide(brain: Brain, prompt: str, label: str, number: int) -> None:
    """Adding any system prompt leaves the classification exactly as it was."""
    roster = brain.roster([*BUILTIN, CREATIVE])
    messages: list[dict[str, Any]] = [user(CLEAR[label][number])]
    plain = brain.classify(read_turns(messages), roster)
    with_prompt = [{"role": "system", "content": prompt + " You write Python code and poems."}, *messages]
    assert brain.classify(read_turns(with_prompt), roster) == plain


@given(st.text(max_size=400))
def test_any_text_is_classified(brain: Brain, text: str) -> None:
    """Whatever is said, a category of the configuration comes out, with a confidence between 0 and 1."""
    found = brain.classify(Turns(text), brain.roster([*BUILTIN, CREATIVE]))
    assert found.category in {"code", "reasoning", "conversation", "creative"}
    assert 0 < found.confidence <= 1


def test_long_texts_are_read_in_part(brain: Brain, roster: Roster) -> None:
    """Only head and tail of a long text are read, so that its length costs nothing."""
    head, tail = "Summarize this story for me please. " + "It rained. " * 200, "It rained. " * 200
    first = brain.classify(Turns(head + "def f(): return 1; " * 20_000 + tail), roster)
    assert first == brain.classify(Turns(head + tail), roster)
    assert len(bounded("x" * 1_000_000)) < 2_000
    assert len(bounded("雨" * 1_000_000)) < 1_000


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


def test_results_are_kept_for_repeated_texts(brain: Brain, roster: Roster) -> None:
    """The same words under the same configuration are classified once; another configuration is another question."""
    turns = Turns("Is a tomato a fruit?")
    assert brain.classify(turns, roster) is brain.classify(turns, roster)
    assert "creative" not in brain.classify(turns, brain.roster(BUILTIN)).scores


@pytest.mark.parametrize(
    "broken", [b"", b"no weights", WEIGHTS.read_bytes()[:1000], WEIGHTS.read_bytes()[:-1] + b"\x99\x01"]
)
def test_broken_weights_are_refused(broken: bytes) -> None:
    """A damaged weights file is an error that says so, never a classifier that is wrong."""
    with pytest.raises(ValueError, match="classifier weights"):
        Brain.load(broken)


def test_shipped_weights_are_small() -> None:
    """The weights fit into 600 kB."""
    assert len(WEIGHTS.read_bytes()) < 600_000
