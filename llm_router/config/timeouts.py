"""Which clocks hold for one attempt: the most specific setting wins, field by field."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from llm_router.config.values import Category, Provider, Snapshot, Timeouts

_CONNECT, _IDLE = 5.0, 120.0
_FIRST_BYTE_STREAM, _FIRST_BYTE_SLOW_STREAM, _FIRST_BYTE_WHOLE = 60.0, 300.0, 600.0


def effective_timeouts(
    snapshot: Snapshot,
    provider: Provider,
    category: Category | None,
    model: str,
    *,
    stream: bool,
    thinks: bool,
) -> Timeouts:
    """The timeouts of an attempt, in seconds, none of them None but the total, which is the chain's.

    `model` is the provider's own id; `category` is None for a request that names its model. `thinks` says that the
    price table marks the model as `reasoning`, or that the request asks for a reasoning effort. Per field: model, then
    provider, then category, then the global setting, then the default. A total of the model or the provider bounds the
    first byte.
    """
    levels = (
        provider.model_timeouts.get(model, Timeouts()),
        provider.timeouts,
        category.timeouts if category is not None else Timeouts(),
        snapshot.timeouts,
    )
    first_byte = _first((level.first_byte for level in levels), _default_first_byte(provider, stream, thinks))
    return Timeouts(
        connect=_first((level.connect for level in levels), _CONNECT),
        first_byte=min(first_byte, _first((level.total for level in levels[:2]), inf)),
        idle=_first((level.idle for level in levels), _IDLE),
    )


def _first(values: Iterable[float | None], default: float) -> float:
    return next((value for value in values if value is not None), default)


def _default_first_byte(provider: Provider, stream: bool, thinks: bool) -> float:
    if not stream:
        return _FIRST_BYTE_WHOLE
    loads_models = provider.name == "ollama" or provider.api == "ollama"
    return _FIRST_BYTE_SLOW_STREAM if thinks or loads_models else _FIRST_BYTE_STREAM
