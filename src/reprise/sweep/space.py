"""The space of a sweep: overrides with one value or several. Pure functions."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reprise.core.config import PARAMS
from reprise.core.errors import UserError
from reprise.results.run import flatten

Scale = Literal["log", "uniform", "int"]
RANGE = re.compile(r"(?P<key>[^=]+)=\s*(?P<scale>log|uniform|int)\s*\((?P<low>[^,()]+),(?P<high>[^,()]+)\)\s*")
SYNTAX = "log(low,high), uniform(low,high), int(low,high), choice(a,b), range(a,b) or a,b"
# Keys that a sweep sets itself, or that decide what the trials are judged by.
JUDGED = ("seed", "task", "evaluate")
UNSEARCHED = (*JUDGED, "run")  # `run` changes no result
DIGITS = 3  # of a drawn number; 7.13e-05 is as good as 7.1285901e-05, and can be read


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        key: dotted key of the recipe.
        scale: `log` is uniform in the logarithm; `int` is uniform over integers.
        low: lower end.
        high: upper end.
    """

    key: str
    scale: Scale
    low: float
    high: float

    def format(self, value: float) -> str:
        """Return a number as the text of an override: rounded, but not beyond the ends."""
        if self.scale == "int":
            return str(round(value))
        if self.scale == "log":
            rounded = float(f"{value:.{DIGITS}g}")
        else:
            rounded = round(value, DIGITS - math.floor(math.log10(self.high - self.low)))
        return repr(min(max(rounded, self.low), self.high))

    @property
    def ends(self) -> tuple[str, ...]:
        """The ends, as texts of overrides."""
        return self.format(self.low), self.format(self.high)


@dataclass(frozen=True)
class Choice:
    """A list of values without an order.

    Attributes:
        key: dotted key of the recipe.
        values: as texts of overrides, at least two.
    """

    key: str
    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """All values."""
        return self.values


Dimension = Range | Choice


@dataclass(frozen=True)
class Space:
    """What a sweep searches.

    Attributes:
        dimensions: by key, in the order of their keys, so that the order of the options has no effect.
        fixed: overrides of all trials.
    """

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    def overrides(self, values: Mapping[str, str | float]) -> tuple[str, ...]:
        """Return the overrides of a trial: the fixed ones, then one for each dimension.

        Args:
            values: a number or a text for each key.
        """
        texts = [
            f"{each.key}={each.format(float(values[each.key])) if isinstance(each, Range) else values[each.key]}"
            for each in self.dimensions
        ]
        return (*self.fixed, *texts)

    def corners(self) -> Iterator[tuple[str, ...]]:
        """Yield the overrides of every combination of ends."""
        for ends in itertools.product(*(each.ends for each in self.dimensions)):
            yield (*self.fixed, *(f"{each.key}={end}" for each, end in zip(self.dimensions, ends, strict=True)))

    def grid(self) -> list[dict[str, str | int]]:
        """Return every combination of values, the last dimension changing first.

        Raises:
            UserError: a dimension has infinitely many values.
        """
        axes: list[Sequence[str | int]] = []
        for each in self.dimensions:
            if isinstance(each, Choice):
                axes.append(each.values)
            elif each.scale == "int":
                axes.append(range(int(each.low), int(each.high) + 1))
            else:
                raise UserError(f"{each.scale}() has no grid", key=each.key, expected="choice, range, int or a,b")
        keys = [each.key for each in self.dimensions]
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*axes)]

    def to_lines(self) -> list[str]:
        """Return a text that is equal for equal spaces."""
        return [*self.fixed, *map(repr, self.dimensions)]


def parse_space(overrides: Sequence[str]) -> Space:
    """Parse overrides in the grammar of `dvc exp run -S`, and `log`, `uniform` and `int` beside it.

    Raises:
        UserError: one is malformed, has a key that may not be searched, or a key is given twice; or none has several
            values.
    """
    dimensions: list[Dimension] = []
    fixed, keys = [], set()
    for override in (text.removeprefix(f"{PARAMS}:").strip() for text in overrides):
        parsed = parse_dimension(override)
        key = override.partition("=")[0].strip() if parsed is None else parsed.key
        reserved = JUDGED if parsed is None else UNSEARCHED
        if key.partition(".")[0] in reserved:
            expected = (
                f"a key outside of {', '.join(reserved)}: trials have the recipe's seed, and validation judges them"
            )
            raise UserError("a sweep may not change it", key=key, expected=expected)
        if key in keys:
            raise UserError("given twice", key=key)
        keys.add(key)
        if parsed is None:
            fixed.append(override)
        else:
            dimensions.append(parsed)
    if not dimensions:
        raise UserError("nothing to search", key="-S", expected=f"a KEY with {SYNTAX}")
    return Space(tuple(sorted(dimensions, key=lambda each: each.key)), tuple(sorted(fixed)))


def parse_dimension(override: str) -> Dimension | None:
    """Parse one override; None if it gives a single value.

    Raises:
        UserError: it is malformed.
    """
    # Slow to import, and the report only reads what was searched.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if found := RANGE.fullmatch(override):
        return _parse_range(found["key"].strip(), found["scale"], found["low"], found["high"])  # type: ignore[arg-type]
    try:
        parsed = OverridesParser.create().parse_override(override)
        if not parsed.is_sweep_override():
            return None
        if not (parsed.is_choice_sweep() or parsed.is_range_sweep()):
            raise UserError(key=override, expected=SYNTAX)
        values = tuple(dict.fromkeys(parsed.sweep_string_iterator()))
    except HydraException:
        raise UserError(key=override, expected=f"KEY=VALUE, or a KEY with {SYNTAX}") from None
    if len(values) < 2:
        raise UserError("fewer than two values", key=override, expected=SYNTAX)
    return Choice(parsed.key_or_group, values)


def _parse_range(key: str, scale: Scale, low: str, high: str) -> Range:
    number = int if scale == "int" else float
    try:
        ends = number(low), number(high)
    except ValueError:
        raise UserError(
            f"not {'integers' if scale == 'int' else 'numbers'}", key=f"{key}={scale}({low},{high})"
        ) from None
    if not all(map(math.isfinite, ends)) or ends[0] >= ends[1] or (scale == "log" and ends[0] <= 0):
        expected = f"{'0 < ' if scale == 'log' else ''}low < high"
        raise UserError(key=f"{key}={scale}({low},{high})", expected=expected)
    return Range(key, scale, *ends)


def read_overrides(content: Any, source: str) -> list[str]:
    """Turn the content of a file in YAML into overrides.

    Args:
        content: sections or dotted keys; a text is what stands after `=` in `-S`, and a list is a choice.
        source: the file that the error names.

    Raises:
        UserError: it is no mapping.
    """
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(file=source, expected="keys of the recipe, such as train.learning_rate: log(1e-5,3e-4)")
    return [f"{key}={_to_text(value)}" for key, value in flatten(content).items()]


def _to_text(value: Any) -> str:
    if isinstance(value, list):
        return f"choice({','.join(map(_to_text, value))})"
    return value if isinstance(value, str) else json.dumps(value, default=str)
