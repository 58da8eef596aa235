"""The local classifier tells tasks apart by what the person said, in many languages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router.routing.classify import Brain, Roster
from llm_router.routing.classify_cues import cues
from llm_router.routing.classify_features import bounded, extract
from llm_router.routing.turns import Turns, read_turns
from tests.routing.conftest import WEIGHTS
from tests.routing.prompts import BUILTIN, CLEAR, CREATIVE
from tests.routing.test_turns import openclaw, user

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


def test_latin_words_in_another_script_are_seen(brain: Brain, roster: Roster) -> None:
    """Names in Latin letters tell a developer's question in another script; units, points and formulas do not."""
    text = "Redisのキャッシュが timeout で消える"
    assert "latin2" in cues(text)
    assert "Latin words in another script" in brain.classify(Turns(text), roster).evidence
    assert "latin1" not in cues("三角形ABCの辺の長さは5 kmで、x=3です")
    assert "latin1" not in cues("plain English words")
    assert "latin1" not in cues("où sont passées les clés de l’été dernier")


def test_a_name_with_its_version_is_the_name(brain: Brain) -> None:
    """Rails7 is Rails: a version written without a space hides no word of the lexicon."""
    names = {brain.model.groups[group] for group in extract("mysql8", brain.model.lexicon).groups}
    assert names == {brain.model.groups[group] for group in extract("mysql", brain.model.lexicon).groups} != set()


def test_bare_signs_are_no_evidence(brain: Brain, roster: Roster) -> None:
    """A sign that is a feature, too, tells nobody anything."""
    found = brain.classify(Turns("what is 3^4 % 7 + 2^5 % 3 ^ 2"), roster)
    assert [reason for reason in found.evidence if reason in ("word '^'", "word '%'", "word '@'")] == []


def test_a_sign_before_a_number_is_no_beginning(brain: Brain, roster: Roster) -> None:
    """The mark of a feature that begins a text is told from the sign that looks like it."""
    evidence = brain.classify(Turns("solve x^2 - 4 = 0"), roster).evidence
    assert [reason for reason in evidence if reason.startswith("begins with ' ")] == []
