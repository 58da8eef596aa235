"""What a model behind Anthropic's Messages API takes: from the price table, else from its name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llm_router.accounting.pricing import ModelInfo

_NAME = re.compile(r"claude-(?P<family>opus|sonnet|haiku|fable|mythos)-(?P<major>\d)(?:[-.](?P<minor>\d)(?!\d))?")
# The first version of each family that refuses sampling parameters, where the table does not say.
_NO_SAMPLING_FROM = {"opus": (4, 7), "sonnet": (5, 0), "haiku": (5, 5), "fable": (5, 0), "mythos": (1, 0)}
_ADAPTIVE_FROM = (4, 6)
_SCHEMA_FROM = (4, 5)
_SMALL_OUTPUT = 4096
_USUAL_OUTPUT = 8192
# Long enough for any usual answer, short enough that a whole answer arrives before clients give up.
_STREAMED_OUTPUT = 32_000
_WHOLE_OUTPUT = 16_000


@dataclass(frozen=True, slots=True)
class Traits:
    """What one model takes. `native_schema`: a JSON schema goes into `output_config`, not into a forced tool."""

    sampling: bool = True
    thinking: bool = True
    adaptive: bool = False
    always_thinks: bool = False
    forced_tool_choice: bool = True
    prefill: bool = True
    native_schema: bool = False
    max_output: int | None = None

    def output_limit(self, asked: int | None, stream: bool) -> int:
        """`max_tokens` of a request: what was asked for as far as the model goes, else a sane default."""
        if asked is not None:
            return max(1, min(asked, self.max_output) if self.max_output else asked)
        return min(self.max_output or _USUAL_OUTPUT, _STREAMED_OUTPUT if stream else _WHOLE_OUTPUT)


def traits(model: str, info: ModelInfo | None) -> Traits:
    """The traits of `model`; models that neither the table nor the name tells anything about take the old ways."""
    version, family = _version(model)
    modern = family is not None and version >= _NO_SAMPLING_FROM[family]
    adaptive = family is not None and version >= _ADAPTIVE_FROM
    native = family is not None and version >= _SCHEMA_FROM
    if info is None:
        return Traits(
            sampling=not modern,
            thinking=not model.startswith("claude-3-") or "3-7" in model,
            adaptive=adaptive,
            prefill=not adaptive,
            native_schema=native,
            max_output=_SMALL_OUTPUT if re.match(r"claude-3-(opus|sonnet|haiku)-", model) else None,
        )
    return Traits(
        sampling=info.sampling,
        thinking=info.reasoning is not False,
        adaptive=adaptive if info.adaptive_thinking is None else info.adaptive_thinking,
        always_thinks=info.thinking_always_on,
        forced_tool_choice=info.forced_tool_choice,
        prefill=info.prefill,
        native_schema=native if info.json_schema is None else info.json_schema,
        max_output=info.max_output,
    )


def _version(model: str) -> tuple[tuple[int, int], str | None]:
    found = _NAME.search(model)
    if found is None:
        return (0, 0), None
    return (int(found["major"]), int(found["minor"] or 0)), found["family"]
