"""What several commands share: the configuration as it would be served, tables, messages."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterable, Sequence

import tabulate

from llm_router.config.values import Snapshot
from llm_router.errors import ConfigError
from llm_router.proxy.config_file import ConfigFile
from llm_router.standard_error import complain

tabulate.MIN_PADDING = 0  # else two blanks more for each column, which terminals of 100 columns miss
# What drives a terminal, or has it show text in another order.
_DRIVING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def load_configuration(arguments: Namespace) -> Snapshot | None:
    """The configuration in force; None, with the reason on standard error, where it is not valid."""
    try:
        return ConfigFile(os.environ, {"config": arguments.config}).load()
    except ConfigError as error:
        complain(str(error))
        return None


def file_name(stated: str) -> str:
    """What messages call a file of the command line."""
    return "standard input" if stated == "-" else stated


def counted(number: int, noun: str) -> str:
    """`1 row`, `2 rows`, `1,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def harmless(text: str) -> str:
    """A text as a terminal may have it: keywords, for one, come from whoever may change the configuration."""
    return _DRIVING.sub("?", text)


def print_table(rows: Iterable[Sequence[object]], headers: Sequence[str], *, right: Iterable[int] = ()) -> None:
    """A plain table; the columns whose numbers are in `right` are aligned to the right."""
    alignment = ["right" if index in set(right) else "left" for index in range(len(headers))]
    cells = [["" if cell is None else harmless(str(cell)) for cell in row] for row in rows]
    if not cells:
        print("(none)")
        return
    print(tabulate.tabulate(cells, headers, tablefmt="simple", colalign=alignment, disable_numparse=True))


def dollars(amount: float | None) -> str:
    """USD with as many digits as matter; a question mark for an unknown amount."""
    if amount is None:
        return "?"
    if amount >= 1 or round(amount, 2) == amount:
        return f"{amount:,.2f}"
    return f"{amount:.8f}".rstrip("0") if 1e-8 <= amount < 1e-4 else f"{amount:.4g}"
