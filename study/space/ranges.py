"""Ranges from which a search draws a number: uniform or normal, logarithmic, in steps, whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol


class Proposer(Protocol):
    """What of an Optuna trial draws values."""

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """One of the choices."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number."""


@dataclass(frozen=True)
class Range:
    """How numbers are spread.

    Args:
        draws: what, in words.
        whole: whole numbers.
        log: in the logarithm.
        step: quantised; the third number says by what.
        normal: mean and deviation in the place of low and high; of the logarithm if `log`.
    """

    draws: str
    whole: bool = False
    log: bool = False
    step: bool = False
    normal: bool = False

    @property
    def form(self) -> str:
        """The numbers that it takes."""
        ends = "mean, deviation" if self.normal else "low, high"
        return f"[{ends}, step]" if self.step else f"[{ends}]"


RANGES = {
    "uniform": Range("any number between these two"),
    "loguniform": Range("any number between these two, even in its logarithm", log=True),
    "quniform": Range("low, low + step, … up to high", step=True),
    "qloguniform": Range(
        "multiples of step between these two, even in the logarithm", log=True, step=True
    ),
    "integer": Range("any whole number from one to the other", whole=True),
    "qinteger": Range("low, low + step, … up to high, whole numbers", whole=True, step=True),
    "loginteger": Range(
        "any whole number from one to the other, even in its logarithm", whole=True, log=True
    ),
    "normal": Range("numbers of a normal distribution", normal=True),
    "lognormal": Range(
        "numbers whose natural logarithm is normally distributed", normal=True, log=True
    ),
    "qnormal": Range("normally distributed numbers as multiples of step", normal=True, step=True),
    "qlognormal": Range(
        "log-normally distributed numbers as multiples of step", normal=True, log=True, step=True
    ),
}
"""By the key that stands for it in a space."""

TAIL = 0.001
"""Probability that a normal distribution is cut off at each end, 3.09 deviations from its mean."""
QUANTILE = ".quantile"
"""End of the name under which a sampler, which has no normal distribution, draws its quantile."""


def at_quantile(kind: str, content: list[Any], share: float) -> Any:
    """The number below which a share of all that is drawn lies; 0 and 1 give the ends."""
    spec = RANGES[kind]
    if spec.normal:
        mean, deviation = content[:2]
        value = NormalDist(mean, deviation).inv_cdf(min(max(share, TAIL), 1 - TAIL))
        return _stepped(kind, content, math.exp(value) if spec.log else value)
    low, high = content[:2]
    if share in (0, 1):
        value = content[int(share)]
    else:
        value = low * (high / low) ** share if spec.log else low + share * (high - low)
    return _stepped(kind, content, value)


def nearest(kind: str, content: list[Any], value: float) -> Any:
    """The number of a range that is nearest to a value."""
    low, high = (at_quantile(kind, content, end) for end in (0, 1))
    return min(max(_stepped(kind, content, value), low), high)


def suggested(kind: str, content: list[Any], proposer: Proposer, name: str) -> Any:
    """What a sampler draws.

    Args:
        kind: of the range.
        content: its numbers.
        proposer: the sampler's trial.
        name: of the parameter.
    """
    spec = RANGES[kind]
    if spec.normal:
        share = proposer.suggest_float(name + QUANTILE, TAIL, 1 - TAIL)
        return at_quantile(kind, content, share)
    low, high = content[:2]
    if spec.whole:
        step = content[2] if spec.step else 1
        return proposer.suggest_int(name, low, high, step=step, log=spec.log)
    if spec.step and not spec.log:
        return proposer.suggest_float(name, low, high, step=content[2])
    return _stepped(kind, content, proposer.suggest_float(name, low, high, log=spec.log))


def as_parameter(kind: str, content: list[Any], value: Any, name: str) -> tuple[str, Any]:
    """Name and value of the parameter that draws a number.

    Raises:
        ValueError: if the range does not hold it; the message is the rule.
    """
    spec = RANGES[kind]
    number = isinstance(value, int if spec.whole else int | float) and not isinstance(value, bool)
    if number and spec.normal:
        mean, deviation = content[:2]
        exact = -math.inf if spec.log and value <= 0 else math.log(value) if spec.log else value
        share = NormalDist(mean, deviation).cdf(exact)
        if TAIL <= share <= 1 - TAIL:
            return name + QUANTILE, share
    elif number:
        exact = value if spec.whole else float(value)
        on_step = not spec.step or math.isclose(_stepped(kind, content, exact), exact)
        if content[0] <= exact <= content[1] and on_step:
            return name, exact
    raise ValueError(f"must be {described(kind, content)}, but got {value!r}")


def values(kind: str, content: list[Any]) -> int | None:
    """How many different numbers there are; none if nobody can count them."""
    spec = RANGES[kind]
    if spec.normal or not (spec.whole or spec.step):
        return None
    low, high, step = (float(each) for each in (*content, 1)[:3])
    return round((high - low) / step) + 1


def described(kind: str, content: list[Any]) -> str:
    """The range in words."""
    spec = RANGES[kind]
    step = f" by {content[2]}" if spec.step else ""
    if spec.normal:
        return f"{kind.removeprefix('q')} {content[0]} ± {content[1]}{step}"
    return f"{content[0]} to {content[1]}{step}{', log' * spec.log}"


def problem(kind: str, content: Any) -> str:
    """What is wrong with the numbers of a range; empty if nothing is."""
    spec = RANGES[kind]
    wanted, kinds = 2 + spec.step, (int,) if spec.whole else (int, float)
    listed = isinstance(content, list) and len(content) == wanted
    if not listed or any(type(each) not in kinds for each in content):
        count = "three" if spec.step else "two"
        what = "whole numbers" if spec.whole else "numbers"
        return f"`{kind}` takes {count} {what}, {spec.form}, such as {_example(kind)}"
    if any(not math.isfinite(each) for each in content):
        return f"`{kind}` takes finite numbers, but got {content}"
    low, high, step = content[0], content[1], content[2] if spec.step else 1
    if step <= 0 or (spec.normal and high <= 0):
        return f"`{kind}` takes {'deviation > 0' if high <= 0 else 'step > 0'}, but got {content}"
    if spec.normal:
        return ""
    if not low < high or (spec.log and low <= 0):
        return f"`{kind}` takes {'0 < ' * spec.log}low < high, but got {content}"
    steps = (high - low) / step
    if spec.step and not spec.log and not math.isclose(steps, round(steps), abs_tol=1e-9):
        return f"`{kind}` takes a whole number of steps from low to high, but got {content}"
    if spec.step and spec.log and math.floor(high / step) <= math.ceil(low / step):
        return f"`{kind}` takes several multiples of step between low and high, but got {content}"
    return ""


def _example(kind: str) -> str:
    spec = RANGES[kind]
    ends = "0.5, 0.1" if spec.normal else "1, 11" if spec.step else "1, 10"
    step = ", 0.1" if spec.normal else ", 2"
    return f"{{{kind}: [{ends}{step * spec.step}]}}"


def _stepped(kind: str, content: list[Any], value: float) -> Any:
    """The nearest number that the range has."""
    spec = RANGES[kind]
    if spec.whole:
        step, low = (content[2] if spec.step else 1), content[0]
        return low + round((value - low) / step) * step
    if not spec.step:
        return float(value)
    step, low = content[2], 0.0 if spec.log or spec.normal else content[0]
    steps = round((value - low) / step)
    if spec.log and not spec.normal:
        steps = min(max(steps, math.ceil(content[0] / step)), math.floor(content[1] / step))
    return float(f"{low + steps * step:.12g}")
