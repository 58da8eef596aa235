"""Structure of a text as evidence: fences, traces, diffs, formulas, questions, lengths; each the name of a feature.

Built to be cheap: strings that must occur are looked for first, line by line patterns are tried at line starts only.
"""

from __future__ import annotations

import re
from string import ascii_uppercase

_LINES = 40  # lines whose beginnings are looked at

# Cues that some fixed strings give away: name -> (what it is called in evidence, the strings).
_STRINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fence": ("a fenced code block", ("```", "~~~")),
    "trace": (
        "a stack trace",
        ("Traceback (most recent", "Caused by: ", "panic: ", "goroutine ", " panicked at", "\n    at ", "\n\tat ",
         'File "'),
    ),
    "exception": (
        "an error name",
        ("Error:", "Exception", "Error]", "Error(", "error:", "error[", "ERROR:", "Segmentation fault", "exit code",
         "exit status", "SIGSEGV", "SIGKILL", "ENOENT", "ECONN", "EADDR", "errno"),
    ),
    "diff": ("a diff", ("\n@@ -", "diff --git ", "\n+++ ", "<<<<<<< ", ">>>>>>> ")),
    "loglevel": ("log levels", ("INFO", "WARN", "ERROR", "DEBUG", "FATAL", "[error]", "[notice]", "level=")),
    "sql": (
        "SQL",
        ("SELECT ", "INSERT INTO", "CREATE TABLE", "ALTER TABLE", "DELETE FROM", "INNER JOIN", "LEFT JOIN", "GROUP BY",
         "select * ", "ORDER BY"),
    ),
    "markup": ("markup", ("</", "/>", "<div", "<p>", "<a ", "<html", "<?php", "<script", "<br")),
    "declares": (
        "a definition in code",
        ("#include", "public static", "public class", "def ", "const ", "std::", "console.log", "System.out", "printf(",
         "print(", "func ", "fn ", "var ", "int main", "return ", "lambda ", "import ", "=> {", "() {", "){", ") {",
         "self.", "this.", "!= null", "nullptr", "elif ", "endif", "#!/"),
    ),
    "operator": ("operators of code", ("==", "!=", "&&", "||", "=>", "->", "::", "+=", "++", ":=", "<=", ">=", "//")),
    "empty call": ("a call", ("()", "();", "(self", "({", "['", '["', "[0]", "[i]")),
    "url": ("a link", ("http://", "https://", "localhost:", "127.0.0.1")),
    "io": ("input and output of a program", ("nput:", "utput:", "Input", "Output", "assert ", "stdin", "stdout")),
    "latex": (
        "a LaTeX formula",
        ("\\frac", "\\sqrt", "\\begin{", "\\sum", "\\int", "\\left", "\\cdot", "\\times", "\\math", "\\text", "\\(",
         "\\[", "\\angle", "\\overrightarrow", "\\alpha", "\\theta", "\\pi", "\\le", "\\ge", "\\in ", "$$", "\\log",
         "\\sin", "\\cos"),
    ),
    "choice": ("answers to choose from", ("A) ", "(A)", "(a)", "\nA. ", "\nA:", "A、", "A．", "Options:", "a) ")),
    "hex": ("hexadecimal values", ("0x", "\\x", "#0", "#f", "#F")),
    "self": (
        "speaks of oneself",
        (" I ", "I'm ", "I've ", "I'd ", "\nI ", "I am ", "I want ", "I need ", "I have ", " my "),
    ),
    "ifthen": ("an if-then", (" then ", "If and only", "if and only", "implies")),
}  # fmt: skip
# Cues that need a pattern: name -> (what it is called, characters of which one must occur or "", the pattern).
_PATTERNS: dict[str, tuple[str, str, str]] = {
    "tick": ("inline code", "`", r"`[^`\n]{1,80}`"),
    "flag": ("a shell command", "-|", r" --?[a-z][\w-]+|\| \w"),
    "call": ("a call", "(", r"\w\([^)\n]{0,60}\)"),
    "snake": ("names with underscores", "_", r"[a-z0-9]_[a-z]"),
    "camel": ("a camelCase name", ascii_uppercase, r"[a-z][A-Z][a-z]"),
    # (begins with the dot, for which a text is searched quickest)
    "attribute": ("an attribute access", ".", r"\.(?:(?<=[a-z_]\.)[a-z_]\w*[(.\[]|(?<=\w\.)[a-z]\w*\()"),
    "file": (
        "a file name",
        ".",
        r"\.(?:py|js|ts|tsx|jsx|java|cpp|cc|hpp|c|h|cs|go|rs|rb|php|sh|sql|html|css|scss|json|ya?ml|toml|xml|md|txt|csv"
        r"|ini|cfg|conf|log|env|lock|ipynb|vue|svelte|kt|swift|scala|gradle|tf|exe|dll|so|jar)\b",
    ),
    "path": ("a path", "/", r"(?:[ \"'(=`]|^)(?:~|\.{1,2})?/[\w.-]+/[\w.-]*"),
    "array": ("a list of values", "[", r"\[\s*(?:-?\d+|['\"]\w+['\"]|\[)\s*[,\[]"),
    "keyvalue": (
        "configuration or data",
        '"=:',
        r"\"[\w -]{1,40}\"\s*:|^\w+\s?=\s?\S+$|^[ \t]*-?\s*[\w.-]+: ?\S[^\n]{0,80}\n[ \t]*-?\s*[\w.-]+:",
    ),
    "semicolon": ("statements that end in semicolons", ";{}", r"[;{}]\s*$"),
    "dollars": ("a formula between dollar signs", "$", r"\$[^$\n]{1,200}[\\^_=+<>{|][^$\n]{0,200}\$|\$[a-zA-Z]\$"),
    "symbol": ("mathematical symbols", "∑∫√≤≥≠±×÷π∞∈∉∀∃→⇒⇔∧∨¬∪∩⊂⊆∠△⊥∥²³°≡≈", r""),
    "arithmetic": ("arithmetic", "+-*/×÷^", r"\d\s*[-+*/×÷^]\s*[\d(]|\)\s*[-+*/]\s*\("),
    "equation": (
        "an equation",
        "=<>",
        r"[a-zA-Z)]\s*[=<>]\s*-?[\d(\\√|]|\d[a-z]\s*[-+=]|[a-z]\([a-z]\)\s*=|[xyzn]\s?\^?\d\s*[-+=]",
    ),
    "percent": ("percentages", "%％", r"\d\s?[%％]"),
    "money": ("amounts of money", "$€£¥₹", r"[$€£¥₹]\s?\d|\d\s?[€£¥₹]"),
    "fraction": ("fractions", "/", r"\b\d{1,3}/\d{1,3}\b"),
    "blank": ("a blank to fill", "_(（", r"_{2,}|\(\s{1,6}\)|（\s*）"),
    "quoted": ("quoted text", "\"“«「『", r"[\"“«「『][^\"”»」』\n]{20,}[\"”»」』]"),
    "colonend": ("ends in a colon", ":：", r"[:：]\s*\Z"),
    "equalsend": ("ends in an equals sign", "=", r"=\s*[?？]?\s*\Z"),
    "questionend": ("ends in a question", "?？؟", r"[?？؟]\s*\Z"),
    "questions": ("several questions", "?？؟", r"[?？؟][^?？؟]+[?？؟]"),
    "exclaim": ("an exclamation", "!！", r""),
    "emoji": ("emoji", "", r"[\U0001f300-\U0001faff❤☺]"),
    "capitals": ("words in capitals", ascii_uppercase, r"[A-Z]{4}"),
}  # fmt: skip
# Beginnings of lines: name -> (what it is called, the pattern, lines that must begin so).
_STARTS: dict[str, tuple[str, str, int]] = {
    "logline": (
        "log lines",
        r"\W{0,3}(?:\w+ )?(?:\d{4}[-/.]\d\d[-/.]\d\d|\d{8}|[A-Z][a-z]{2} +\d{1,2}|\d\d/\d\d/\d\d)[T :.-]+\d\d[:.]?\d\d"
        r"|\[?\d\d[:.]\d\d[:.]\d\d|(?:- )?\d{9,} |\[\w+ \w+ +\d+ \d\d:\d\d|\w+ \d+ \d+ |<\d+>",
        1,
    ),
    "prompt": ("a shell prompt", r"(?:[$>#] |[\w.-]+@[\w.-]+[:~ ][^\n$#]{0,60}[$#] |PS [A-Z]:|>>> )\S", 1),
    "hunk": ("changed lines", r"[-+]\S?\s{2,}|[-+]\w", 3),
    "codeline": (
        "lines of code",
        r"(?:def|class|function|import|from|for|while|if|else|elif|return|public|private|static|const|let|var|int|void|fn|func"
        r"|using|namespace|package|struct|try|except|catch|end|begin|SELECT|FROM|WHERE|#include|print|@\w+|\}|\{|//|/\*)\b.*"
        r"[:;({})=]|[}\])];?,?$|\w+(?:\.\w+)*\(.*\)[;:]?$|\w+(?:\[\w+\])? ?[-+*]?= ?\S",
        2,
    ),
    "bullet": ("a list", r"(?:[-*•]|\d+[.)、])\s+\S", 2),
    "speaker": ("a dialogue", r"[A-Z一-鿿][\w ]{0,20}[:：]\s?\S", 2),
    "option": ("answers to choose from", r"\(?[A-Ea-e][).:、．]\s?\S", 2),
    "table": ("a table", r"\|.*\||.*\t.*\t", 2),
}  # fmt: skip
DESCRIPTIONS: dict[str, str] = {
    name: str(row[0]) for table in (_STRINGS, _PATTERNS, _STARTS) for name, row in table.items()
}
_FIXED = tuple(
    (name, tuple((string, frozenset(string)) for string in strings)) for name, (_, strings) in _STRINGS.items()
)
_SEARCHED = tuple(
    (name, frozenset(chars), re.compile(pattern, re.MULTILINE).search)
    for name, (_, chars, pattern) in _PATTERNS.items()
)
_BEGUN = tuple((name, re.compile(pattern).match, least) for name, (_, pattern, least) in _STARTS.items())
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_DIGITS = frozenset("0123456789")
_LATIN = re.compile(r"[A-Za-z]{2,}[a-z]")  # neither units nor the names of points and variables
_QUESTION = frozenset("?？؟")
_COUNTS = (1, 2, 3, 5, 8)
_LENGTHS = (3, 8, 16, 32, 64, 128, 256, 512, 1024)


def cues(text: str) -> list[str]:
    """Names of the structure features that a (bounded) text shows."""
    chars = set(text)
    shown = [name for name, strings in _FIXED if any(needed <= chars and string in text for string, needed in strings)]
    shown += [
        name for name, needed, search in _SEARCHED if (not needed or not needed.isdisjoint(chars)) and search(text)
    ]
    lines = text.split("\n")
    first = lines[:_LINES] if len(lines) > 1 else []
    for name, match, least in _BEGUN if first else _BEGUN[:2]:
        if sum([1 for line in first or lines if match(line.lstrip())]) >= least:
            shown.append(name)
    if not chars.isdisjoint(_DIGITS):
        numbers = len(_NUMBER.findall(text))
        shown += [f"numbers{least}" for least in _COUNTS if numbers >= least]
        if numbers * 40 > len(text):
            shown.append("numbersdense")
        if numbers >= 2 and not chars.isdisjoint(_QUESTION):
            shown.append("numbersasked")
    shown += [f"lines{least}" for least in (2, 4, 9) if len(lines) >= least]
    size = len(text)
    if not text.isascii() and _is_foreign(text, chars):
        latin = len(set(_LATIN.findall(text)))
        shown += [f"latin{least}" for least in (1, 2, 4) if latin >= least]
    shown += [f"chars{least}" for least in _LENGTHS if size >= least]
    return shown


def _is_foreign(text: str, chars: set[str]) -> bool:
    """Whether a text is for the most part in letters other than Latin ones."""
    if len(text.encode("utf-8", "surrogatepass")) < 1.25 * len(text):
        return False
    return any("\u0400" <= char < "\u1e00" or char >= "\u3040" for char in chars)


def describe(name: str) -> str:
    """A cue's name in words."""
    if name in DESCRIPTIONS:
        return DESCRIPTIONS[name]
    if name.startswith("numbers"):
        return "numbers"
    if name.startswith("latin"):
        return "Latin words in another script"
    return "several lines" if name.startswith("lines") else "its length"
