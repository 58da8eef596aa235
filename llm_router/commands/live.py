"""`llm-router check --live`: asks every model that could be asked for a short answer."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from llm_router import exits
from llm_router.accounting.pricing import PriceTable
from llm_router.commands.common import counted, print_table
from llm_router.config.timeouts import effective_timeouts
from llm_router.config.values import Snapshot, split_model
from llm_router.errors import AttemptFailed, Failure, FailureKind
from llm_router.proxy.attempt import kind_of
from llm_router.proxy.gate import judge_completion
from llm_router.proxy.live import masker_for
from llm_router.proxy.upstream import UpstreamClient, UpstreamError
from llm_router.standard_error import tell
from llm_router.wire.chat import ChatRequest, parse_chat
from llm_router.wire.providers.base import Adapter, Target
from llm_router.wire.providers.errors import read_failure
from llm_router.wire.providers.registry import adapter_for

_QUESTION = "Answer with the single word: pong"
_MOST_OUTPUT_TOKENS = 64
_AT_ONCE = 8
_MOST_BYTES = 2**22
_SHOWN, _PROBLEM_SHOWN, _PROBLEM_KEPT = 60, 120, 2000


@dataclass(frozen=True, slots=True)
class ShortAnswer:
    """What one model answered; `problem` is None for an answer that was one.

    `optional` marks a last resort that the user never named: its silence is no fault.
    """

    model: str
    ms: float
    answer: str = ""
    problem: str | None = None
    optional: bool = False

    @property
    def result(self) -> str:
        """In words that fit a table."""
        if self.problem is None:
            return "ok"
        problem = _one_line(self.problem, _PROBLEM_SHOWN)
        return f"{problem} (optional)" if self.optional else problem


def ask_all(snapshot: Snapshot, prices: PriceTable) -> list[ShortAnswer]:
    """Asks every model of `askable`, some at a time."""
    models = list(askable(snapshot))
    if models:
        tell(f"asking {counted(len(models), 'model')} for a short answer ...")
    return asyncio.run(_ask_all(snapshot, prices, models))


def print_answers(answers: Sequence[ShortAnswer]) -> int:
    """Prints a table; the exit code says whether one of the models failed."""
    if answers:
        rows = [(each.model, each.result, f"{each.ms:,.0f}", each.answer) for each in answers]
        print("\nShort answers")
        print_table(rows, ("model", "result", "ms", "answer"), right=(2,))
        _print_long_problems(answers)
    else:
        print("\nThere is no model to ask: no provider of the chains has a key.")
    return exit_code(answers)


def _print_long_problems(answers: Sequence[ShortAnswer]) -> None:
    """What to do about it stands at the end of what a provider says, as a rule."""
    models: dict[str, list[str]] = {}
    for each in answers:
        if each.problem and len(each.problem) > _PROBLEM_SHOWN:
            models.setdefault(each.problem, []).append(each.model)
    if models:
        print("\nIn full")
        print("\n".join(f"{', '.join(names)}: {problem}" for problem, names in models.items()))


def exit_code(answers: Sequence[ShortAnswer]) -> int:
    """Success where somebody answered, and nobody who was named failed."""
    answered = any(each.problem is None for each in answers)
    failed = any(each.problem and not each.optional for each in answers)
    return exits.OK if answered and not failed else exits.FAILED


def askable(snapshot: Snapshot) -> Iterable[str]:
    """The models of all chains, and of the classifier where the mode asks one, whose provider is configured."""
    models = [model for category in snapshot.categories.values() for model in category.models]
    if snapshot.routing_mode in ("ollama", "hybrid"):
        models.append(snapshot.classifier.ollama_model)
    if snapshot.routing_mode in ("api", "hybrid"):
        models.append(snapshot.classifier.api_model)
    return (model for model in dict.fromkeys(models) if snapshot.providers[split_model(model)[0]].configured)


def _is_optional(snapshot: Snapshot, model: str) -> bool:
    """Whether it is an Ollama model that only the default chains name, on an Ollama that nobody spoke of."""
    named = any(
        model in category.models and snapshot.sources[f"model_mappings.{category.name}"] == "file"
        for category in snapshot.categories.values()
    )
    return model.startswith("ollama/") and not named and snapshot.sources["providers.ollama.base_url"] == "default"


async def _ask_all(snapshot: Snapshot, prices: PriceTable, models: Iterable[str]) -> list[ShortAnswer]:
    client = UpstreamClient(environ=os.environ)
    mask = masker_for(snapshot, client.secrets)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(model: str) -> ShortAnswer:
        async with gate:
            started = time.monotonic()
            answer, problem = "", None
            try:
                answer = await _ask(snapshot, prices, client, model)
            except AttemptFailed as error:
                problem = _one_line(f"{error.failure.kind}: {mask(error.failure.message)}", _PROBLEM_KEPT)
            ms = round((time.monotonic() - started) * 1000, 1)
            return ShortAnswer(model, ms, _one_line(answer, _SHOWN), problem, _is_optional(snapshot, model))

    try:
        return await asyncio.gather(*(ask(model) for model in models))
    finally:
        await client.close()


async def _ask(snapshot: Snapshot, prices: PriceTable, client: UpstreamClient, model: str) -> str:
    name, upstream_model = split_model(model)
    provider = snapshot.providers[name]
    info = prices.info(model)
    key = provider.keys[0].value if provider.keys else None
    target = Target(provider, upstream_model, key, info)
    limits = effective_timeouts(
        snapshot,
        provider,
        None,
        upstream_model,
        stream=True,  # an answer this short should begin as soon as a stream would
        thinks=bool(info and info.reasoning),
    )
    seconds = limits.first_byte or 0.0
    try:
        async with asyncio.timeout(seconds):
            return await _exchange(
                client, adapter_for(provider, time.time), _question(model), target, limits.connect or 0.0
            )
    except TimeoutError:
        failure = Failure(FailureKind.FIRST_BYTE_TIMEOUT, f"no answer within {seconds:g} seconds")
        raise AttemptFailed(failure) from None
    except UpstreamError as error:
        raise AttemptFailed(Failure(kind_of(error), str(error))) from None


async def _exchange(
    client: UpstreamClient, adapter: Adapter, chat: ChatRequest, target: Target, connect_timeout: float
) -> str:
    response = await client.send(adapter.call(chat, target), connect_timeout=connect_timeout)
    try:
        body = await response.read(_MOST_BYTES)
    finally:
        response.close()
    if not 200 <= response.status < 300:
        raise AttemptFailed(read_failure(response.status, response.headers, body, time.time()))
    parsed = orjson.loads(adapter.completion(chat, target, body).body)
    verdict = judge_completion(parsed)
    if verdict.failure is not None:
        raise AttemptFailed(verdict.failure)
    message = parsed["choices"][0].get("message") or {}
    return str(message.get("content") or "(thought, and said nothing)")


def _question(model: str) -> ChatRequest:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": _QUESTION}],
        "max_completion_tokens": _MOST_OUTPUT_TOKENS,
    }
    return parse_chat(json.dumps(body).encode())


def _one_line(text: str, most: int) -> str:
    # what a model or a provider says must not drive the terminal
    line = "".join([char if char.isprintable() else "?" for char in " ".join(text.split())])
    return line if len(line) <= most else line[: most - 3] + "..."
