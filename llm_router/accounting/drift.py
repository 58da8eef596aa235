"""How far our counts are from what providers report, learned per model and direction."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_MODELS = 512
_ENOUGH_SAMPLES = 5
# Older evidence fades: the sums are halved past this many counted tokens.
_HALVE_AT = 2_000_000.0
_LOWEST, _HIGHEST = 0.1, 20.0

Row = tuple[str, int, float, float, float, float]
_Sums = tuple[int, float, float, float, float]
_NOTHING: _Sums = (0, 0.0, 0.0, 0.0, 0.0)


class DriftBook:
    """Sums of counted and reported tokens by model id; of too many the first are forgotten. For one writer."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._sums: dict[str, _Sums] = {}
        self.load(rows)

    def __repr__(self) -> str:
        return f"<DriftBook models={len(self._sums)}>"

    def load(self, rows: Iterable[Row]) -> None:
        """Takes over what was learned before, where nothing newer is known."""
        for model, samples, *sums in rows:
            if len(self._sums) < _MAX_MODELS:
                counted_in, reported_in, counted_out, reported_out = sums
                self._sums.setdefault(model, (samples, counted_in, reported_in, counted_out, reported_out))

    def rows(self) -> list[Row]:
        """All that was learned, to be kept."""
        return [(model, *sums) for model, sums in list(self._sums.items())]

    def learn(
        self, model: str, counted_input: int, reported_input: int, counted_output: int, reported_output: int
    ) -> None:
        """Notes one answer that was counted and reported. A side that either lacks teaches nothing."""
        sums = self._sums.get(model)
        if sums is None:
            if len(self._sums) >= _MAX_MODELS:
                del self._sums[next(iter(self._sums))]
            sums = _NOTHING
        samples, counted_in, reported_in, counted_out, reported_out = sums
        if counted_input and reported_input:
            counted_in += counted_input
            reported_in += reported_input
            if counted_in > _HALVE_AT:
                counted_in /= 2
                reported_in /= 2
        if counted_output and reported_output:
            counted_out += counted_output
            reported_out += reported_output
            if counted_out > _HALVE_AT:
                counted_out /= 2
                reported_out /= 2
        self._sums[model] = samples + 1, counted_in, reported_in, counted_out, reported_out

    def ratio(self, model: str) -> tuple[float | None, float | None]:
        """Reported over counted tokens, for input and output; None while too little is known."""
        sums = self._sums.get(model)
        if sums is None or sums[0] < _ENOUGH_SAMPLES:
            return None, None
        return _ratio(sums[1], sums[2]), _ratio(sums[3], sums[4])

    def ratios(self) -> dict[str, tuple[float | None, float | None]]:
        """`ratio` of every model of which enough is known."""
        return {model: pair for model in list(self._sums) if (pair := self.ratio(model)) != (None, None)}

    def calibrate(self, model: str, input_tokens: int, output_tokens: int) -> tuple[int, int] | None:
        """Counts as the provider would probably have reported them; None while too little is known."""
        for_input, for_output = self.ratio(model)
        if for_input is None and for_output is None:
            return None
        return round(input_tokens * (for_input or 1.0)), round(output_tokens * (for_output or 1.0))


def _ratio(counted: float, reported: float) -> float | None:
    return min(max(reported / counted, _LOWEST), _HIGHEST) if counted else None
