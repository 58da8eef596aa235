"""Prompts put together from hand-written frames and fillers. The same call always gives the same prompts."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

FRAMES = Path(__file__).parent / "frames"
SEED = 1123
_TIMES = 7  # prompts made from a frame
_SLOT = re.compile(r"\{(\w+)\}")

Rows = Iterator[tuple[str, str, str]]


def rows() -> Rows:
    """Text, label and family of every composed prompt."""
    chance = random.Random(SEED)  # noqa: S311 - the same prompts every time, not a secret
    for path in sorted(FRAMES.glob("??.txt")):
        yield from _framed(path, chance)
    yield from _numbers(chance)
    yield from _text_work(chance)
    yield from _roles(chance)
    yield from _problems(chance)
    for line in parts_of(FRAMES / "logic_en.txt")["reasoning"]:
        yield line, "reasoning", "logic"


def parts_of(path: Path) -> dict[str, list[str]]:
    """Lines of a file by the "# name" above them ("" where there is none)."""
    parts: dict[str, list[str]] = {}
    current = parts.setdefault("", [])
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            current = parts.setdefault(line[2:].strip(), [])
        elif line.strip():
            current.append(line.replace("\\n", "\n"))
    return parts


def _fill(frame: str, chance: random.Random, fillers: dict[str, list[str]]) -> str:
    """Each slot {x} from fillers[x], no filler twice in one prompt; other braces stay."""
    used: set[str] = set()

    def pick(match: re.Match[str]) -> str:
        choices = fillers.get(match[1])
        if not choices:
            return match[0]
        for _ in range(8):
            choice = chance.choice(choices)
            if choice not in used:
                break
        used.add(choice)
        return choice

    return _SLOT.sub(pick, frame)


def _framed(path: Path, chance: random.Random) -> Rows:
    parts = parts_of(path)
    topics = parts["topics"]
    for label in ("creative", "conversation", "code", "reasoning"):
        for frame in parts.get(label, []):
            for _ in range(_TIMES):
                text = _fill(frame, chance, {"t": topics, "u": topics})
                yield _roughen(text, chance), label, f"frames-{label}-{path.stem}"


def _numbers(chance: random.Random) -> Rows:
    names = (FRAMES / "names.txt").read_text(encoding="utf-8").split("\n")[:-1]
    for path in (FRAMES / "math_en.txt", FRAMES / "math_zh.txt"):
        for frame in parts_of(path)[""]:
            for _ in range(6):
                digits = {key: [str(chance.randint(2, 60))] for key in "ab"} | {"c": [str(chance.randint(2, 9))]}
                text = _fill(frame, chance, digits | {"n": names, "m": names, "o": names})
                yield text, "reasoning", f"numbers-{path.stem}"


def _text_work(chance: random.Random) -> Rows:
    for path in sorted(FRAMES.glob("textwork_*.txt")):
        language = path.stem.partition("_")[2]
        passages = parts_of(FRAMES / f"passages_{language}.txt")[""]
        for frame in parts_of(path)[""]:
            for passage in chance.sample(passages, min(8, len(passages))):
                yield frame.replace("{p}", passage), "conversation", f"textwork-{language}"


def _roles(chance: random.Random) -> Rows:
    parts = parts_of(FRAMES / "roles_en.txt")
    people = parts["characters"]
    fillers = {"c": people, "d": people, "v": parts["asks"], "w": parts["whats"]}
    for frame in parts["creative"]:
        for _ in range(12):
            yield _roughen(_fill(frame, chance, fillers), chance), "creative", "roles"
    fillers = {"e": parts["experts"], "x": parts["trades"], "m": parts["matters"]}
    fillers |= {"p": parts["programmers"], "q": parts["tasks"]}
    for label in ("conversation", "code"):
        for frame in parts[label]:
            for _ in range(12):
                yield _roughen(_fill(frame, chance, fillers), chance), label, f"roles-{label}"


def _problems(chance: random.Random) -> Rows:
    parts = parts_of(FRAMES / "problems_en.txt")
    for frame in parts[""]:
        for _ in range(12):
            digits = {key: [str(chance.randint(1, 60))] for key in "abc"}
            yield _fill(frame, chance, parts | digits), "code", "problems"


def _roughen(text: str, chance: random.Random) -> str:
    """Write it as people in a hurry do, now and then."""
    roll = chance.random()
    if roll < 0.12:
        return text.lower().rstrip(".?")
    if roll < 0.17 and len(text) > 12:
        at = chance.randrange(3, len(text) - 3)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if roll < 0.24:
        return chance.choice(("please ", "Hi, ", "hey ", "Can you help? ", "I need this for tomorrow: ")) + text
    if roll < 0.29:
        return text + chance.choice((" please", " thanks!", " Be concise.", " Answer in detail.", " asap"))
    return text
