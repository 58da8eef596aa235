"""`llm-router explain`: what would be chosen, and why, without calling anyone."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_router import exits
from llm_router.commands.common import dollars, file_name, harmless, print_table
from llm_router.commands.offline import offline_router
from llm_router.errors import ApiError, ConfigError
from llm_router.proxy.exchange import Caller
from llm_router.standard_error import complain
from llm_router.wire.chat import parse_chat


def run(arguments: Namespace) -> int:
    """Prints category, evidence, candidates and what is skipped."""
    if bool(arguments.text) == (arguments.request is not None):
        complain(
            'explain: give either a text or --request FILE, as in: llm-router explain "why does this loop not end?"'
        )
        return exits.USAGE
    try:
        found = asyncio.run(explain(_request(arguments), arguments.config))
    except OSError as error:
        complain(f"{arguments.request}: {error.strerror or error}")
        return exits.FAILED
    except ConfigError as error:
        complain(str(error))
        return exits.CONFIG
    except ApiError as error:
        complain(error.message if arguments.request is None else f"{file_name(arguments.request)}: {error.message}")
        return exits.FAILED
    if arguments.format == "json":
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(found)
    return exits.OK


async def explain(raw: bytes, config: str | None) -> dict[str, Any]:
    """What a router with this configuration would do with the body of a chat request."""
    chat = parse_chat(raw)
    return offline_router(config).explain(chat, Caller("explain"))


def _request(arguments: Namespace) -> bytes:
    if arguments.text:
        text = sys.stdin.read() if arguments.text == ["-"] else " ".join(arguments.text)
        return json.dumps({"model": "router", "messages": [{"role": "user", "content": text}]}).encode()
    body = sys.stdin.buffer.read() if arguments.request == "-" else Path(arguments.request).read_bytes()
    return body.removeprefix(BOM_UTF8)


def _print(found: Mapping[str, Any]) -> None:
    print(f"Category    {found['category']} (mode {found['mode']}, confidence {found['confidence']:.0%})")
    if found["scores"]:
        ranked = sorted(found["scores"].items(), key=lambda entry: -entry[1])
        print("Scores      " + ", ".join(f"{name} {score:.2f}" for name, score in ranked))
    for index, reason in enumerate(found["evidence"]):
        print(f"{'Because' if index == 0 else '':<12}{harmless(reason)}")
    print("\nCandidates, in this order")
    print_table(
        [
            (index + 1, entry["model"], _tokens(entry["estimated_tokens"]), dollars(entry["estimated_cost_usd"]))
            for index, entry in enumerate(found["candidates"])
        ],
        ("", "model", "tokens", "about USD"),
        right=(0, 2, 3),
    )
    if found["skipped"]:
        print("\nSkipped")
        print_table([(entry["model"], entry["reason"]) for entry in found["skipped"]], ("model", "reason"))


def _tokens(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"
