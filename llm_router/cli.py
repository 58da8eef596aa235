"""The command line: parses, then hands over to one small module per command, which imports what it needs."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TextIO

from llm_router import __version__, exits
from llm_router.standard_error import complain

_DESCRIPTION = """\
An OpenAI-compatible proxy in front of OpenRouter, OpenAI, Anthropic, Google AI, Ollama and your own providers.
Clients ask for the model "router"; the router finds out what kind of task it is, picks the first able model of that
category, streams its answer, and takes the next model where one fails before its first word."""

_EPILOG = """\
first steps:
  llm-router serve --demo            try it without any key
  OPENROUTER_API_KEY=... llm-router  run it (the same as `llm-router serve`)
  llm-router check                   every setting, its source, what is missing
  llm-router init                    write a router_config.json to start from

Keys are read from environment variables (OPENROUTER_API_KEY, OPENAI_API_KEY, ANTHROPIC_API_KEY, GOOGLE_API_KEY, ...)
or from a .env file, never from the command line.

exit codes:
  0   success
  1   the command ran and what it was asked for failed
  2   the command line was not understood
  69  the address cannot be used (port taken)
  78  a variable, .env or the configuration file is not valid; it is named
  130 interrupted"""

_LAID_OUT = re.compile(r"^\s|:$", re.MULTILINE)

AddCommand = Callable[..., argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    _hold_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale without a letter is no reason to fail
    arguments = make_parser().parse_args(_with_command(list(sys.argv[1:] if argv is None else argv)))
    command = import_module(f"llm_router.commands.{arguments.command}")
    try:
        code: int = command.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        code = exits.PIPE_CLOSED  # the reader of our output has left (`| head`)
    except OSError as error:
        # The machine's fault, and most likely that of the disk which the output goes to: a stack trace tells no more.
        complain(f"{error.filename or 'the output'}: {error.strerror or error}")
        code = exits.FAILED
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    return code


def _let_go(stream: TextIO) -> None:
    """Its reader may have left, its disk be full: the interpreter must not fail on its way out, and end otherwise."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _hold_standard_streams() -> None:
    """What the caller closed is the null device: else a socket would get its number, and what is written there."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free: this one
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


class _Paragraphs(argparse.HelpFormatter):
    """Fits paragraphs to the terminal; lists keep their lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if _LAID_OUT.search(part) else textwrap.fill(" ".join(part.split()), width)
            for part in text.split("\n\n")
        )


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        "llm-router",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_Paragraphs,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"llm-router {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    add = partial(commands.add_parser, formatter_class=_Paragraphs, allow_abbrev=False)
    for add_command in (_add_serve, _add_check, _add_explain, _add_usage, _add_init, _add_evaluate):
        _add_config(add_command(add))
    return parser


def _with_command(argv: list[str]) -> list[str]:
    """Without a command it serves; only help and version stand alone."""
    if argv and (not argv[0].startswith("-") or argv[0] in ("-h", "--help", "--version")):
        return argv
    return ["serve", *argv]


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration file (default: ROUTER_CONFIG_FILE, ./router_config.json, the XDG configuration folder)",
    )


def _add_serve(add: AddCommand) -> argparse.ArgumentParser:
    parser = add(
        "serve",
        help="run the proxy (also without any command)",
        description="Runs the proxy until SIGTERM or Ctrl-C; SIGHUP reads the configuration again.",
    )
    for flag, metavar, words in (
        ("host", "H", "address to listen on (default 127.0.0.1)"),
        ("port", "P", "port to listen on (default 3456; 0 takes a free one)"),
        ("workers", "N", "processes that answer requests, for more cores (default 1)"),
    ):
        parser.add_argument(f"--{flag}", metavar=metavar, type=partial(_value, flag), help=words)
    parser.add_argument(
        "--demo", action="store_true", help="made-up providers on loopback: no key, no network, no cost, no real ledger"
    )
    parser.add_argument(
        "--allow-unauthenticated",
        action="store_true",
        default=None,
        help="listen beyond loopback without ROUTER_API_KEY: whoever reaches the port spends your money",
    )
    parser.add_argument(
        "--log-level",
        metavar="L",
        type=partial(_value, "log_level"),
        help="one of debug, info, warning, error, critical (default info)",
    )
    parser.add_argument(
        "--log-format", type=str.lower, choices=("text", "json"), help="how log lines look (default text)"
    )
    return parser


def _value(flag: str, text: str) -> object:
    """What the flag's text means, as the table of settings says: a mistake here is one of the command line."""
    from llm_router.config.settings import flag_value
    from llm_router.errors import ConfigError

    try:
        return flag_value(flag, text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(error.problem) from None


def _add_check(add: AddCommand) -> argparse.ArgumentParser:
    parser = add(
        "check",
        help="validate environment and configuration, and show what is in force",
        description="Prints every setting with its value (secrets masked) and source, the providers, the chains with\n"
        "prices, models without a price, and what looks like a mistake. Calls nobody without --live.",
    )
    parser.add_argument(
        "--live", action="store_true", help="ask each configured model for a short answer; this costs a little"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default text)")
    return parser


def _add_explain(add: AddCommand) -> argparse.ArgumentParser:
    parser = add(
        "explain",
        help="what would be chosen for a request, and why",
        description="Shows category, evidence, candidates with estimated cost, and what is skipped and why.\n"
        "Calls nobody and leaves no trace.",
    )
    parser.add_argument("text", nargs="*", help="what a person would ask; - reads standard input")
    parser.add_argument(
        "--request", metavar="FILE", help="a whole chat request as JSON instead; - reads standard input"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default text)")
    return parser


def _add_usage(add: AddCommand) -> argparse.ArgumentParser:
    parser = add(
        "usage",
        help="report requests, tokens and cost from the ledger",
        description="Sums of the ledger. Works while the router runs, and reads only.",
    )
    parser.add_argument(
        "--by",
        choices=("model", "provider", "category", "client", "day"),
        default="model",
        help="what to sum by (default model)",
    )
    parser.add_argument(
        "--since", metavar="WHEN", help="a span such as 24h, 7d, 4w, or a date such as 2026-11-01 (UTC)"
    )
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default table")
    return parser


def _add_init(add: AddCommand) -> argparse.ArgumentParser:
    return add(
        "init",
        help="write a router_config.json to start from",
        description="Writes a configuration file for the providers whose keys are set: where --config or\n"
        "ROUTER_CONFIG_FILE says, by default into the working directory. A file that exists is never overwritten: it\n"
        "is checked instead, and what the router makes of it is shown. Files of the project that this one grew from\n"
        "are read as they are.",
    )


def _add_evaluate(add: AddCommand) -> argparse.ArgumentParser:
    parser = add(
        "evaluate",
        help="score the routing on your own labelled requests",
        description="Classifies every row of a JSONL file with the configuration in force and compares. A row is\n"
        '{"label": "code", "text": "..."} or {"label": "code", "request": {a chat request}}; "accept" may list\n'
        "further labels that are right as well. Nothing leaves this machine.",
    )
    parser.add_argument("file", metavar="FILE", help="labelled rows, one JSON object a line; - reads standard input")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default text)")
    return parser
