"""Made-up logs, traces, diffs, configurations and shell sessions, as people paste them.

The templates are in frames/pastes.txt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from training.compose import parts_of

SEED = 20261123
_SLOT = re.compile("‹([a-z]+)›")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_KINDS = (("loglines", 700), ("traces", 240), ("diffs", 120), ("shells", 140), ("configs", 130), ("snippets", 420))


class _Maker:
    """Fills templates; slots are parts of the file, or t (a time), n, k (numbers), x (hexadecimal)."""

    def __init__(self) -> None:
        self.chance = random.Random(SEED)  # noqa: S311 - not a secret, the same prompts every time
        self.parts = parts_of(Path(__file__).parent / "frames" / "pastes.txt")
        self.stamp = self._stamps()

    def make(self, part: str) -> str:
        text = self.chance.choice(self.parts[part])
        while _SLOT.search(text):
            text = _SLOT.sub(self._slot, text)
        return text

    def _slot(self, match: re.Match[str]) -> str:
        chance, name = self.chance, match[1]
        if name == "t":
            return self.stamp()
        if name == "n":
            return str(chance.randint(2, 99_999))
        if name == "k":
            return str(chance.randint(1, 9))
        return f"{chance.getrandbits(40):010x}" if name == "x" else chance.choice(self.parts[name])

    def lines(self) -> str:
        """A log: one shape of line and of time, several lines."""
        self.stamp = self._stamps()
        shape = self.chance.choice(self.parts["loglines"])
        made = []
        for _ in range(self.chance.randint(1, 12)):
            text = shape
            while _SLOT.search(text):
                text = _SLOT.sub(self._slot, text)
            made.append(text)
        return "\n".join(made)

    def _stamps(self) -> Callable[[], str]:
        chance = self.chance
        year, month, day, hour = (chance.randint(*span) for span in ((2003, 2026), (1, 12), (1, 28), (0, 23)))
        forms = (
            "{y}-{m:02}-{d:02} {h:02}:{a:02}:{b:02},{c:03}",
            "{y}-{m:02}-{d:02}T{h:02}:{a:02}:{b:02}.{c:03}Z",
            "{M} {d:2} {h:02}:{a:02}:{b:02}",
            "[Mon {M} {d:02} {h:02}:{a:02}:{b:02} {y}]",
            "{y}{m:02}{d:02}-{h}:{a}:{b}:{c}",
            "11{c:03}8{b:02}3{a:02} {y}.{m:02}.{d:02}",
            "[{m:02}.{d:02} {h:02}:{a:02}:{b:02}]",
            "{c}{a:02}{b}",
            "{h:02}:{a:02}:{b:02}",
            "{d:02}/{m:02}/{h:02} {h:02}:{a:02}:{b:02}",
        )
        form = chance.choice(forms)

        def stamp() -> str:
            a, b, c = chance.randint(0, 59), chance.randint(0, 59), chance.randint(0, 999)
            return form.format(y=year, m=month, d=day, h=hour, a=a, b=b, c=c, M=_MONTHS[month - 1])

        return stamp


def rows() -> Iterator[tuple[str, str, str]]:
    """Text, label and family of every paste."""
    maker = _Maker()
    chance = maker.chance
    for kind, count in _KINDS:
        asks = "codeasks" if kind == "snippets" else "asks"
        for _ in range(count):
            body = maker.lines() if kind == "loglines" else maker.make(kind)
            if chance.random() < 0.2:
                body = f"```\n{body}\n```"
            ask = maker.make(asks) if chance.random() < 0.6 else ""
            both = [ask, body] if chance.random() < 0.7 else [body, ask]
            yield chance.choice(("\n", "\n\n", " ")).join(part for part in both if part), "code", f"paste-{kind}"
