"""Settings given by name, in the place of what a sampler would propose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from study.space.distributions import Hole, fill, listed
from study.space.ranges import as_parameter, at_quantile
from study.space.search.option_names import SCRATCH


@dataclass
class Given:
    """Fills holes with what is given, and the others with first options and lower ends.

    Args:
        values: what is given, by the name of the hole.
        parameters: the same as a sampler knows it, with the options that it implies.
        reached: names of the holes that were filled, and whether something was given for them.
    """

    values: Mapping[str, Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    reached: dict[str, bool] = field(default_factory=dict)

    def __call__(self, hole: Hole, kind: str, content: list[Any]) -> Any:
        """What fills a hole.

        Raises:
            ValueError: if it cannot hold what is given.
        """
        name = hole.parameter
        value = self.values.get(name, _implied(name, content, self.values))
        given = name in self.values or (kind == "choice" and value is not None)
        self.reached[name] = given
        if kind != "choice":
            if not given:
                return at_quantile(kind, content, 0)
            parameter, own = as_parameter(kind, content, value, name)
            self.parameters[parameter] = own
            return value
        if not given:
            return content[0]
        label = SCRATCH if value is None and SCRATCH in content else value
        if label not in content:
            options = ", ".join("null" if each is None else str(each) for each in content)
            raise ValueError(f"must be one of {options}, but got {value!r}")
        self.parameters[name] = content[content.index(label)]
        return self.parameters[name]


def _implied(name: str, labels: list[Any], values: Mapping[str, Any]) -> Any:
    """The option whose own settings are given, if there is one."""
    below = (label for label in labels if any(key.startswith(f"{name}.{label}.") for key in values))
    return next(below, None)


def parameters_of(body: Any, values: Mapping[str, Any]) -> Given:
    """What a sampler is to be told so that it proposes given settings.

    Args:
        body: the trial with its holes.
        values: what is given, by the names that `--dry-run` shows.

    Raises:
        ValueError: if a name is unknown, or does not hold what is given for it; the name comes
            first, then a colon and the rule.
    """
    known = [name for name, _ in listed(body)]
    for name in values:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{name}: is nothing that varies in this space; {hint}")
    given = Given(values)
    for name in values:
        # Each alone first, so that the answer names it.
        try:
            fill(body, Given({name: values[name]}))
        except ValueError as problem:
            raise ValueError(f"{name}: {problem}") from None
    fill(body, given)
    for name in values:
        if name not in given.reached:
            raise ValueError(f"{name}: is not used with the other settings; leave it out")
    return given
