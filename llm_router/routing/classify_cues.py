"""Structure of a text as evidence: fences, traces, diffs, formulas, questions, lengths; each the name of a feature."""

from __future__ import annotations

import re
from collections.abc import Iterator

# name -> (what it is called in evidence, characters of which one must occur or "" for always, pattern)
_TABLE: dict[str, tuple[str, str, str]] = {
    "fence": ("a fenced code block", "`~", r"```|^~~~"),
    "tick": ("inline code", "`", r"(?<!`)`[^`\n]{1,80}`(?!`)"),
    "trace": (
        "a stack trace",
        "\n:(",
        r"Traceback \(most recent|^\s+File \"[^\"\n]+\", line \d|^\s+at [\w$.<>/]+ ?\([^)\n]*\)|^panic: "
        r"|goroutine \d+ \["
        r"|^Caused by: |thread '[^']+' panicked|^\s*\^~*\s*$",
    ),
    "exception": (
        "an error name",
        "EenF",
        r"\b[A-Za-z.]{0,60}(?:Error|Exception|Fault|Warning)\b\s*[:(\[]|\b[A-Z][a-z]+(?:[A-Z][a-z]+)*(?:Error"
        r"|Exception)\b"
        r"|\bE[A-Z]{5,}\b|\berror(?:\[\w+\])?:|\bSIG[A-Z]{3,5}\b|Segmentation fault|exit (?:code|status) \d",
    ),
    "diff": ("a diff", "-+@", r"^@@ -\d|^diff --git |^(?:\+\+\+|---) [ab]/|^<{7} |^>{7} "),
    "log": (
        "log lines",
        ":0123456789",
        r"^\W{0,3}(?:\w+ )?(?:\d{4}[-/.]\d\d[-/.]\d\d|\d{8}|[A-Z][a-z]{2} +\d{1,2}"
        r"|\d\d/\d\d/\d\d)[T :-]+\d\d[:.]?\d\d[:.]?\d\d"
        r"|^\[?\d\d[:.]\d\d[:.]\d\d|\b(?:INFO|WARN|WARNING|ERROR|DEBUG|FATAL|TRACE|notice)\]?[:\s]+\S"
        r"|\b\w+\[\d{2,6}\]: ",
    ),
    "shell": ("a shell command", "$#>-|/", r"^\s*(?:[$>]|[\w.-]+@[\w.-]+[:~ ][^\n$#]*[$#]) \w"
        r"|\s--?[a-z][\w-]+(?:[ =]|$)|\s\|\s\w+"),
    "sql": (
        "SQL",
        "SsCcIiUuDdAa",
        r"\b(?:SELECT|INSERT INTO|CREATE (?:TABLE|INDEX|VIEW)|ALTER TABLE|DELETE FROM|UPDATE \w+ SET|INNER JOIN"
        r"|LEFT JOIN|GROUP BY)\b"
        r"|\bselect\b[^\n]{1,200}\bfrom\b \w",
    ),
    "html": ("markup", "<", r"</?[a-z][\w-]*(?: [^<>\n]*)?/?>"),
    "def": (
        "a definition in code",
        "",
        r"^\s*(?:export |public |private |protected |static |async |final |abstract )*(?:def|function|class|fn"
        r"|func|interface|struct"
        r"|enum|impl|trait|module|namespace|sub|proc)\s+\w+\s*[({:<\[]|^\s*(?:import|from|using|package|require"
        r"|include|use)\s+[\w.{*\"'<:]+.*"
        r"(?:;|import)|#include\s*[<\"]|\b(?:const|let|var|int|float|double|char|bool|auto|string"
        r"|String)\s+\w+\s*=|\bpublic static void\b|\blambda \w+:",
    ),
    "semi": ("statements that end in semicolons", ";{}", r"[;{}]\s*$"),
    "op": ("operators of code", "=&|-:!+", r"[=!]==?(?=\s?[\w\"'])|&&|\|\||=>|->|::|\+=|\+\+|:="),
    "call": ("a call", "(", r"\b[A-Za-z_]\w*(?:\.\w+)*\([^)\n]{0,60}\)"),
    "attr": ("an attribute access", "._", r"\b[a-z_]\w+\.[a-z_]\w+\b(?:\(|\.|\[)|\b[a-z]+_[a-z_]+\b"),
    "camel": ("a camelCase name", "", r"\b[a-z]+[A-Z][a-z]+\w*\b|\b[A-Z][a-z]+[A-Z][a-z]+[A-Z]?\w*\b"),
    "file": (
        "a file name",
        "./",
        r"\b[\w-]+\.(?:py|js|ts|tsx|jsx|java|cpp|cc|hpp|c|h|cs|go|rs|rb|php|sh|sql|html|css|scss|json|ya?ml"
        r"|toml|xml|md|txt|csv|ini|cfg"
        r"|conf|log|env|lock|ipynb|vue|svelte|kt|swift|scala|gradle|tf|dockerfile|exe|dll|so|jar)\b|(?:^"
        r"|\s)(?:~|\.{1,2})?/(?:[\w.-]+/)+[\w.-]*",
    ),
    "url": ("a link", ":", r"https?://"),
    "json": ("JSON", "{[", r"[{\[,]\s*\"[^\"\n]{1,60}\"\s*[:,\]]|^\s*[{\[]\s*$"),
    "yaml": ("configuration lines", ":=", r"(?:^[ \t]*-?\s*[\w.-]+:[ \t]+\S[^\n]{0,80}\n){2}|^\[[\w. -]+\]\s*$"
        r"|^\w+\s?=\s?\S+$"),
    "indent": ("indented lines", "\n", r"\n(?: {4}|\t)\S"),
    "hex": ("hexadecimal values", "x#-", r"\b0x[0-9a-fA-F]+\b|\b[0-9a-f]{8}-[0-9a-f]{4}-|#[0-9a-fA-F]{6}\b"
        r"|\b(?=[a-f]*\d)[0-9a-f]{12,40}\b"),
    "array": ("a list of values", "[", r"\[\s*-?(?:\d+|['\"]\w+['\"])\s*(?:,\s*-?(?:[\w.]+"
        r"|['\"][^'\"\n]*['\"])\s*)+\]"),
    "io": ("input and output of a program", ":=", r"\b(?:[Ii]nput|[Oo]utput|[Ee]xample \d?|assert|stdin"
        r"|stdout)\s*[:=(]|\bassert\b"),
    "latex": ("a LaTeX formula", "$\\", r"\$[^$\n]{1,200}\$|\\(?:frac|sqrt|begin|sum|int|left|cdot|times"
        r"|mathbb?|mathrm|text|overrightarrow|angle|leq?|geq?|alpha|theta|pi|in|[(\[])\b"),
    "symbol": ("mathematical symbols", "", r"[∑∫√≤≥≠±×÷π∞∈∉∀∃→⇒⇔∧∨¬∪∩⊂⊆∠△⊥∥²³°≡≈]"),
    "arith": ("arithmetic", "+-*/×÷^=", r"\d\s*[-+*/×÷^]\s*[\d(]|\)\s*[-+*/]\s*\("),
    "equation": ("an equation", "=<>", r"\b[a-zA-Z]\w?\s*\(?[a-z]?\)?\s*[=<>]\s*-?[\d\w(\\√|]|\d[a-z]\s*[-+=]"
        r"|[xyzn]\s?\^?\d\s*[-+=]"),
    "percent": ("percentages", "%％", r"\d\s?[%％]"),
    "money": ("amounts of money", "$€£¥₹", r"[$€£¥₹]\s?\d|\d\s?[€£¥₹]"),
    "fraction": ("fractions", "/", r"(?<![\d/])\d{1,3}/\d{1,3}(?![\d/])"),
    "options": ("answers to choose from", "", r"(?:^|[\s\n(])A[.):、．]\s?\S[^\n]{0,200}?[\s\n(]B[.):、．]\s?\S"
        r"|\([aA]\).{1,200}\([bB]\)|Options:"),
    "blank": ("a blank to fill", "_(（", r"_{2,}|\(\s{1,6}\)|（\s*）"),
    "logicform": ("logical form", "", r"\b[Ii]f\b[^.\n]{3,80}\bthen\b|\b[Aa]ll \w+ are\b|\b[Ss]ome \w+ are\b"
        r"|\b[Nn]o \w+ are\b"),
    "quoted": ("quoted text", "\"“«「『", r"[\"“«「『][^\"”»」』\n]{20,}[\"”»」』]"),
    "colonend": ("ends in a colon", ":：", r"[:：]\s*\Z"),
    "equalsend": ("ends in an equals sign", "=?", r"=\s*\??\s*\Z"),
    "questionend": ("ends in a question", "?？؟", r"[?？؟]\s*\Z"),
    "manyq": ("several questions", "?？؟", r"[?？؟].+[?？؟]"),
    "exclaim": ("an exclamation", "!！", r"[!！]"),
    "emoji": ("emoji", "", r"[\U0001f300-\U0001faff❤☺]"),
    "bullets": ("a list", "\n", r"(?:^\s*(?:[-*•]|\d+[.)])\s+\S[^\n]*\n?){2}"),
    "dialogue": ("a dialogue", ":：", r"(?:^[A-Z一-鿿][\w ]{0,20}[:：]\s?\S[^\n]*\n+){2}"),
    "firstperson": ("speaks of oneself", "", r"\b(?:I|I'm|I've|my|me)\b"),
    "shout": ("words in capitals", "", r"\b[A-Z]{4,}\b"),
}  # fmt: skip
DESCRIPTIONS: dict[str, str] = {name: row[0] for name, row in _TABLE.items()}
_CUES = tuple(
    (name, frozenset(chars), re.compile(pattern, re.MULTILINE)) for name, (_, chars, pattern) in _TABLE.items()
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_LENGTHS = (3, 8, 16, 32, 64, 128, 256, 512, 1024)


def cues(text: str) -> Iterator[str]:
    """Names of the structure features that a (bounded) text shows."""
    chars = set(text)
    for name, needed, pattern in _CUES:
        if (not needed or not needed.isdisjoint(chars)) and pattern.search(text):
            yield name
    numbers = len(_NUMBER.findall(text)) if not chars.isdisjoint("0123456789") else 0
    for least in (1, 2, 3, 5, 8):
        if numbers >= least:
            yield f"numbers{least}"
    if numbers and numbers * 40 > len(text):
        yield "numbersdense"
    if numbers >= 2 and not chars.isdisjoint("?？؟"):
        yield "numbersasked"
    lines = text.count("\n")
    for least in (1, 3, 8):
        if lines >= least:
            yield f"lines{least}"
    size = len(text)
    for least in _LENGTHS:
        if size >= least:
            yield f"chars{least}"


def describe(name: str) -> str:
    """A cue's name in words."""
    if name in DESCRIPTIONS:
        return DESCRIPTIONS[name]
    if name.startswith("numbers"):
        return "numbers"
    return "several lines" if name.startswith("lines") else "its length"
