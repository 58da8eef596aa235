"""How likely a text goes on with what was said before it, and what both say together.

A text leans on its thread if it is short, begins like a continuation ("and", "what if"), has words that point back
("it", "the second") and says little by itself. That its own words look like plain conversation speaks less against it
than that they look like another task: most follow-ups name nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

from llm_router.routing.classify_features import tokens
from llm_router.routing.classify_model import softmax

_LONGEST = 20  # words of a text that can still be a follow-up
_FAINT = 0.2  # what is less likely counts as not at all: the thread is then not read
_OWN = 0.1  # how much a follow-up's own words weigh beside its thread
_ABSENT = 4.0  # how far behind the rest a category is that was left out of the scores
_READ = 300  # characters of such a text

# Weights of the signs in the logarithm of the odds, fitted on threads and on prompts that begin one.
_BASE = 3.5
_PER_WORD = -0.47
_REFERS = 0.8
_BEGINS = 2.2
_POINTS = 1.15
_TURNS_AWAY = -2.75
_PER_PLAIN_LEAD = -0.6  # for every unit by which conversation leads, and any other category
_PER_LEAD = -1.05
_WIDEST = 5.0

_LATER_SCRIPTS = "\u0e00"
_HANGUL = ("\uac00", "\ud7af")

_BEGINNINGS = """
and but or so then what_if how_about what_about which_one which_of also only even just still again wait no not nope yes
hmm hm more less same next part with without for by at on because since why really else suppose say too the make_it
make_the change_the remove_the keep_the use_the replace_the add remove keep go_on go_ahead sum_up recap summary tl_dr
und aber oder dann also nur nein ja noch mehr weniger mit ohne für warum wieso was_ist_mit wie_wäre sondern doch
und_wenn etwas ein_bisschen jetzt der die das mach_es mach_den mach_die mach_das füge ändere entferne lass fasse
et mais ou alors donc non oui plus moins avec sans pour pourquoi encore seulement et_si en le la les ajoute enlève
change remplace résume
y pero o entonces solo sólo no sí más menos con sin para por_qué otra otro ahora el los las añade agrega quita cambia
hazlo resume
e ma allora quindi sì più meno senza per perché ancora anche ora il aggiungi togli cambia rendilo riassumi
mas então só sim não mais menos com sem por_que agora os as adicione tire mude deixe resuma
и а но или тогда только нет да ещё еще больше меньше с без для почему пусть теперь добавь убери сделай измени поменяй
maar of dan alleen nee nog meer minder met zonder voor waarom nu het maak_het voeg verander
ale albo więc tylko nie tak jeszcze bardziej mniej z bez dlaczego teraz dodaj usuń zmień
і або тоді тільки ні ще більше менше з чому тепер додай прибери зміни зроби
och men eller då bara nej mer mindre med utan varför lägg_till ändra
ve ama veya peki sadece hayır evet daha biraz neden şimdi ekle çıkar değiştir
và nhưng hoặc vậy chỉ không thêm hơn tại_sao
tapi atau jadi hanya tidak ya lagi lebih kenapa tambahkan hapus ubah
و لكن أو إذن فقط لا نعم أكثر أقل مع بدون لماذا أضف احذف غير
और लेकिन या तो केवल नहीं हाँ ज़्यादा क्यों
"""
# What may stand before a beginning ("ok, but ...").
_PREAMBLES = """
ok okay oh ah well hm hmm great nice cool thanks thx sorry now please bitte
"""
_POINTERS = """
it its he she him her his they them theirs their that those these this one ones other others both else again instead too
last first second third fourth next shorter longer simpler harder easier better worse bigger smaller darker funnier
sadder cheaper friendlier above previous earlier
er sie ihn ihm ihr ihnen es dies diese dieser dieses davon dazu damit dafür darin beide andere anderen anderes erste
zweite dritte letzte nächste kürzer länger einfacher
il elle ils elles lui leur ça cela celui celle ceux autre autres premier deuxième dernier même
él ella ellos ellas eso esto ese esa otro otra primero segundo último mismo
lei loro quello questo altro altra primo secondo ultimo stesso ci
ele ela eles isso isto esse essa outro outra primeiro mesmo
он она они его её ее их ему ей им это этот эта другой первый второй последний там
hij zij ze hem haar hun dit deze ander eerste tweede laatste daar
ona oni jego jej ich inny pierwszy drugi ostatni
він вона вони його її їх це цей інший перший другий останній
onu bu şu diğer ilk ikinci son
"""
# Scripts without spaces, and Hangul: what a continuation begins with, whether it joins on or points back.
_STARTS = """
那 再 还 但 而 如果 要是 换 不 为什么 为何 把 能不能 可以 有没有 请用 好的 按 更 也 这 它 他 她
もっと じゃあ では でも それ その 次 なぜ どうして 他 もう 最後 やっぱり これ 同じ あと いや
加 去掉 改 删 总结 用
그럼 그 더 반대로 왜 다른 그리고 하지만 다시 마지막 이 좀 조금 근데
"""
# Wishes for an answer in another language.
_IN_LANGUAGE = (
    "in english", "in german", "in french", "in spanish", "in italian", "in portuguese", "in russian", "in chinese",
    "in japanese", "in korean", "in arabic", "in hindi", "in turkish", "in dutch", "in polish", "auf deutsch",
    "auf englisch", "auf französisch", "auf spanisch", "auf italienisch", "auf türkisch", "auf russisch", "en français",
    "en anglais", "en allemand", "en espagnol", "en español", "en inglés", "en ingles", "en alemán", "en francés",
    "in inglese", "in italiano", "in tedesco", "in francese", "em português", "em inglês", "em espanhol", "на русском",
    "на английском", "по-русски", "по-английски", "用中文", "用英文", "用英语", "用日语", "日本語で", "英語で",
    "中国語で", "한국어로", "영어로", "일본어로", "بالعربية", "بالإنجليزية", "हिंदी में", "हिन्दी में", "अंग्रेज़ी में",
    "türkçe", "ingilizce", "in het nederlands", "in het engels", "po polsku", "po angielsku",
)  # fmt: skip
_NEW_TOPIC = (
    "different question", "different topic", "new topic", "new question", "something else", "by the way", "btw",
    "unrelated", "another question", "change of topic", "changing the subject", "on another note", "was anderes",
    "andere frage", "anderes thema", "übrigens", "autre question", "autre sujet", "au fait", "changeons de sujet",
    "otra pregunta", "otro tema", "por cierto", "cambiando de tema", "altra domanda", "a proposito",
    "cambiando argomento", "outra pergunta", "outro assunto", "aliás", "другой вопрос", "другая тема", "кстати",
    "换个话题", "换个问题", "另一个问题", "顺便问", "话说", "ところで", "別の質問", "話は変わ",
    "다른 질문", "başka bir soru", "bu arada", "andere vraag", "trouwens", "inne pytanie", "przy okazji", "سؤال آخر",
)  # fmt: skip


def _phrases(listed: str) -> frozenset[str]:
    return frozenset(phrase.replace("_", " ") for phrase in listed.split())


_BEGINS_WITH = _phrases(_BEGINNINGS)
_BEFORE_THAT = _phrases(_PREAMBLES)
_STARTS_WITH = tuple(_phrases(_STARTS))
_POINTS_BACK = _phrases(_POINTERS)


def may_follow(text: str) -> bool:
    """Whether a text is short enough to go on with another; a quick look."""
    return len(text) <= _READ


def follows(text: str, *, refers: bool, lead: float, plain: bool) -> float:
    """How likely a text goes on with the one before it, 0 to 1.

    `refers`: it has words that refer back. `lead`: by how much its first category leads; `plain`: that is conversation.
    """
    if not may_follow(text):
        return 0.0
    head = text.strip().lower()
    words = [token for token in tokens(head) if token[0].isalnum()]
    size = sum(map(_length, set(words)))
    if size > _LONGEST:
        return 0.0
    odds = _BASE + _PER_WORD * size + (_PER_PLAIN_LEAD if plain else _PER_LEAD) * min(lead, _WIDEST)
    odds += _REFERS * refers + _BEGINS * _joins_on(head, words) + _POINTS * _points_back(head, words)
    odds += _TURNS_AWAY * any(map(head.__contains__, _NEW_TOPIC))
    likely = 1 / (1 + math.exp(-odds))
    return likely if likely >= _FAINT else 0.0


def joined(own: Mapping[str, float], before: Mapping[str, float], likely: float, rest: str) -> dict[str, float]:
    """Scores of a text that goes on with the one before it as `likely` as it begins anew; `rest`: the category for all
    that is no other. A category that is left out of the text's own scores has nothing in common with it.

    The two readings are mixed as probabilities: were the scores added up, a text that is about something else would
    drag its thread along however unlikely that is, and a row of weak follow-ups would outvote their thread.
    """
    names = tuple(dict.fromkeys((*own, *before)))
    thread = (before.get(name, before[rest] - _ABSENT) for name in names)
    following = softmax([_OWN * own.get(name, own[rest]) + score for name, score in zip(names, thread, strict=True)], 1)
    alone = softmax([own.get(name, own[rest] - _ABSENT) for name in names], 1)
    mixed = [likely * a + (1 - likely) * b for a, b in zip(following, alone, strict=True)]
    return {name: math.log(max(share, sys.float_info.min)) for name, share in zip(names, mixed, strict=True)}


def _length(token: str) -> float:
    """One word; where they are not spaced, two characters are taken for one."""
    if token < _LATER_SCRIPTS or _HANGUL[0] <= token[0] <= _HANGUL[1]:
        return 1.0
    return max(1.0, len(token) / 2)


def _points_back(head: str, words: Sequence[str]) -> bool:
    return not _POINTS_BACK.isdisjoint(words) or any(map(head.__contains__, _IN_LANGUAGE))


def _joins_on(head: str, words: Sequence[str]) -> bool:
    if head.startswith(_STARTS_WITH) or _begins(words):
        return True
    return len(words) > 1 and words[0] in _BEFORE_THAT and _begins(words[1:3])


def _begins(words: Sequence[str]) -> bool:
    candidates: Iterable[str] = (" ".join(words[:count]) for count in (1, 2, 3))
    return any(candidate in _BEGINS_WITH for candidate in candidates)
