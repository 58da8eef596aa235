"""Prompts written for this project, as rows to learn from.

`seeds/*.txt` were written by hand: "# label language" begins a part, then one prompt a line, "\\n" is a line break.
`compose.py` puts hand-written frames and fillers together, `pastes.py` makes logs, traces, diffs and the like.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from training import compose, pastes

SEEDS = Path(__file__).parent / "seeds"
_CONSTRAINED = 0.4  # share of the seeds that are told once more with wishes about the answer's form


def rows() -> Iterator[tuple[str, str, str, float]]:
    """Text, label, family (what is left out together when judging) and weight of every prompt."""
    yield from seeds()
    yield from constrained()
    yield from followups()
    for text, label, family in compose.rows():
        yield text, label, family, 0.5
    for text, label, family in pastes.rows():
        yield text, label, family, 0.5


def followups() -> Iterator[tuple[str, str, str, float]]:
    """Follow-ups of every kind of thread: the same words under each label, so that they weigh nothing."""
    for line in (SEEDS.parent / "followups.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("# "):
            for label in ("code", "reasoning", "creative", "conversation"):
                yield line, label, "followups", 1.0


def constrained() -> Iterator[tuple[str, str, str, float]]:
    """Seeds with wishes about the answer's form (so many words, as JSON), which say nothing of the kind of task."""
    chance = random.Random(compose.SEED)  # noqa: S311 - the same prompts every time, not a secret
    wishes = {
        tuple(name.split()): lines for name, lines in compose.parts_of(compose.FRAMES / "constraints.txt").items()
    }
    before = wishes["en", "before"]
    after = {name[0]: lines for name, lines in wishes.items() if name and name[1] != "before"}
    for text, label, family, _ in seeds():
        known = after.get(family.split("-")[2])
        if not known or chance.random() > _CONSTRAINED:
            continue
        said = chance.sample(known, chance.choice((1, 1, 2, 2, 3)))
        head = chance.choice(before) if known is after["en"] and chance.random() < 0.3 else ""
        yield f"{head}{text}{chance.choice((' ', ' ', chr(10)))}{' '.join(said)}", label, family, 0.5


def seeds() -> Iterator[tuple[str, str, str, float]]:
    """The hand-written prompts."""
    for path in sorted(SEEDS.glob("*.txt")):
        label = language = ""
        count = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                label, language = line[2:].split()[:2]
            elif line.strip():
                count += 1
                yield line.replace("\\n", "\n"), label, f"seeds-{label}-{language}-{count // 60}", 2.0
