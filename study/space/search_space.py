"""A search space: a trial with holes, read from YAML, and the trials that fill them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from study.core.errors import UserError
from study.core.hashing import digest
from study.space import plugin_configs
from study.space.distributions import (
    Choose,
    by_optuna,
    combinations,
    count,
    fill,
    problems_of_holes,
    variants,
)
from study.space.overrides import (
    changed,
    chosen_profile,
    find_space,
    of_command_line,
    profiles_of,
    with_absolute_paths,
    with_profile,
    with_trials,
)
from study.space.pretrained import problems_of_starts, with_foundations, with_hashes
from study.space.ranges import Proposer
from study.space.search.checks import problems_of_classes, problems_of_filling
from study.space.search.objectives import problems_of_metrics
from study.space.search.start_with import parameters_of
from study.space.settings import MOST_TRIALS, Settings
from study.space.trial import Trial
from study.space.trial_checks import problems_of_searched_data
from study.space.tuning import (
    Values,
    draw,
    problems_of_proposals,
    problems_of_tuning,
    used_values,
    with_values,
)
from study.space.validation_errors import parse
from study.space.yaml_loader import Block, as_block, read_yaml

SHIPPED = Path(__file__).parents[2] / "search_spaces"


EVERY_COMBINATION = 2000
"""Larger grids are checked one hole at a time, to answer at once."""

ENOUGH_PROBLEMS = 20

STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Space:
    """One profile of a space, checked: whatever fills its holes parses as a trial.

    Args:
        path: the YAML file.
        profile: name of the profile; empty if the file has none.
        settings: all but the trial.
        body: the trial with its holes.
    """

    def __init__(self, path: Path, profile: str, settings: Settings, body: Block) -> None:
        self.path, self.profile, self.settings, self.body = path, profile, settings, body

    @property
    def name(self) -> str:
        """Name of the study: space and profile."""
        return f"{self.path.stem}-{self.profile}" if self.profile else self.path.stem

    def resolved(self) -> dict[str, Any]:
        """The space as JSON, profile applied."""
        return {
            "profile": self.profile,
            **self.settings.model_dump(mode="json"),
            "trial": self.body,
        }

    @classmethod
    def from_resolved(cls, path: Path, value: dict[str, Any]) -> Self:
        """The inverse of `resolved`.

        Raises:
            ValueError: if it is not what this version of the code writes.
        """
        settings = {name: part for name, part in value.items() if name != "profile"}
        body = as_block(value["trial"])
        return cls(path, value["profile"], Settings.model_validate(settings), body)

    def grid(self) -> list[Trial]:
        """All trials of a study without search: every arm with every seed, baseline first."""
        return self.with_baselines(self._combinations, self.settings.seeds)

    @cached_property
    def _combinations(self) -> list[Trial]:
        return [Trial.model_validate(each) for each in combinations(self.body)]

    def tuning(self) -> list[tuple[Trial, Values]]:
        """Every arm with every proposal that it has a use for, in the order of the arms."""
        tune = self.settings.tune
        if tune is None:
            return []
        tried = [
            (with_values(arm, values), values)
            for arm in self.with_baselines(self._combinations, [tune.seed])
            for values in (used_values(arm, proposal) for proposal in draw(tune))
        ]
        once = {digest(trial.model_dump(mode="json")): (trial, values) for trial, values in tried}
        return list(once.values())

    @cached_property
    def samples(self) -> list[Trial]:
        """Trials with first choices and lower ends, then with each other one in turn."""
        return [Trial.model_validate(variant) for variant in variants(self.body)]

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """Parameters of the proposals that a search starts with, as far as they are given."""
        search = self.settings.search
        given = search.start_with if search else []
        return [parameters_of(self.body, each).parameters for each in given]

    def propose(self, proposer: Proposer) -> Trial:
        """Let Optuna fill the holes."""
        return self._filled(by_optuna(proposer))

    def with_values(self, values: Values) -> Trial:
        """The trial with what is known in its holes, by their names."""
        return self._filled(lambda hole, _kind, _content: values[hole.parameter])

    def _filled(self, choose: Choose) -> Trial:
        return Trial.model_validate(fill(self.body, choose) | {"seed": self.settings.seeds[0]})

    def with_baselines(self, trials: list[Trial], seeds: Sequence[int]) -> list[Trial]:
        """Trials with every seed, if wanted beside the same from scratch, without repetition."""
        seeded = [trial.model_copy(update={"seed": seed}) for seed in seeds for trial in trials]
        scratch = [self.from_scratch(trial) for trial in seeded]
        wanted = [*scratch, *seeded] if self.settings.baseline else seeded
        by_content = {digest(trial.model_dump(mode="json")): trial for trial in wanted}
        return sorted(by_content.values(), key=lambda trial: seeds.index(trial.seed))

    @staticmethod
    def from_scratch(trial: Trial) -> Trial:
        """The baseline of a trial."""
        return trial.model_copy(update={"pretrain": None, "transfer": "body"})


def load_space(
    name: str,
    profile: str | None,
    changes: Sequence[tuple[list[str], Any]] = (),
    trials: int | None = None,
    default: str = "quick",
) -> Space:
    """Read a space by its path, or by its name in `search_spaces/`.

    Args:
        name: path or name.
        profile: which of its profiles; None takes the default, or the only one.
        changes: keys and values from the command line, over all that the file says.
        trials: proposals of a search, in place of the file's.
        default: the profile that is taken if none is named.

    Raises:
        UserError: one line per problem, with file and line.
    """
    path = find_space(name, SHIPPED)
    content = _content_of(path)
    profiles = profiles_of(content, path)
    profile = chosen_profile(
        profile, default, profiles, f"{path}:{content.lines.get('profiles', 1)}"
    )
    whole = {name: with_profile(content, profiles, name, path) for name in profiles}
    try:
        chosen = whole[profile] if trials is None else with_trials(whole[profile], trials, name)
        space = parse_space(path, profile, _completed(changed(chosen, changes), path))
    except UserError as error:
        raise of_command_line(error.problems, str(path)) from None
    for other in whole.keys() - {profile}:
        _check_other(path, other, whole[other])
    return space


def _content_of(path: Path) -> Block:
    """What a space's file says, with the files that it names."""
    content = read_yaml(path)
    # Shipped spaces lie where no user keeps data.
    if path.resolve().parent != SHIPPED.resolve():
        content = with_absolute_paths(content, path)
    if not STUDY_NAME.fullmatch(path.stem):
        raise UserError(
            f"{path}: a study is named after its file: letters, digits, `_`, `-`, `.`, at most "
            "64, the first a letter or digit; rename the file"
        )
    return content


def _completed(content: Block, path: Path) -> Block:
    """The space with the defaults of plugins and the hashes of pretrained weights."""
    if "trial" in content:
        content["trial"] = plugin_configs.completed(content["trial"], path, ("trial",))
        content["trial"] = with_foundations(with_hashes(content["trial"], path))
    if "search" in content:
        content["search"] = plugin_configs.completed(content["search"], path, ("search",))
    return content


def _check_other(path: Path, profile: str, content: Block) -> None:
    """Refuse mistakes in a profile that is not chosen now, which would wait for its cluster.

    Files that it names, such as pretrained weights, need not be there yet.
    """
    problems: list[str] = []
    settings = parse(Settings, content, path, (), problems)
    problems += problems_of_tuning(content, path)
    if settings is not None and not problems:
        problems += problems_of_classes(settings, content, path)
    body = content.get("trial")
    if isinstance(body, Block) and not _names_weights(body):
        body = plugin_configs.completed(body, path, ("trial",))
        searched = isinstance(content.get("search"), Block)
        problems += _problems_of_trial(body, path, searched=searched)
    if problems:
        raise UserError(*(f"{problem} (profile {profile})" for problem in dict.fromkeys(problems)))


def _names_weights(value: Any) -> bool:
    """Whether a block, or an option of a choice in it, starts from weights in a file."""
    if isinstance(value, Block):
        return "from" in value or any(map(_names_weights, value.values()))
    return isinstance(value, list) and any(map(_names_weights, value))


def parse_space(path: Path, profile: str, content: Block) -> Space:
    """Check settings and trial, with every hole at each of its ends or choices."""
    problems: list[str] = []
    settings = parse(Settings, content, path, (), problems)
    problems += plugin_configs.problems(content.get("search"), path, ("search",))
    problems += problems_of_tuning(content, path)
    body = content.get("trial")
    if isinstance(body, Block):
        searched = isinstance(content.get("search"), Block)
        problems += _problems_of_trial(body, path, searched=searched)
    if settings is not None and not problems:
        problems += problems_of_classes(settings, content, path)
    if problems or settings is None or not isinstance(body, Block):
        raise UserError(*dict.fromkeys(problems))
    space = Space(path, profile, settings, body)
    for trial in space.samples:
        measured = [f"val_{name}" for name in trial.finetune.task.errors]
        unknown = problems_of_metrics(settings, measured, content, path)
        if unknown:
            raise UserError(*unknown)
    if settings.search is not None:
        problems += problems_of_filling(settings.search, body, space.propose, content, path)
    if settings.tune is not None:
        arms = space.with_baselines(space._combinations, [settings.tune.seed])
        problems += problems_of_proposals(arms, settings.tune, content, path)
    if problems:
        raise UserError(*dict.fromkeys(problems))
    against = list(dict.fromkeys(problems_of_starts(space.samples)))
    if against:
        place = f"{path}:{space.body.lines['pretrain']}: trial.pretrain"
        raise UserError(*(f"{place}: {problem}" for problem in against))
    return space


def _problems_of_trial(body: Block, path: Path, *, searched: bool) -> list[str]:
    """Of the holes, or else of what fills them: every combination, or each end of each hole."""
    problems = problems_of_holes(body, path, "trial", grid=not searched)
    if "seed" in body:
        line = body.lines["seed"]
        problems.append(f"{path}:{line}: trial.seed: seeds stand at the top; put it into `seeds`")
    if searched and not problems:
        problems += problems_of_searched_data(body, path)
    if not problems and not searched and count(body) > MOST_TRIALS:
        problems.append(
            f"{path}: the grid has {count(body)} trials per seed, more than {MOST_TRIALS}; remove "
            "choices, or add a `search:` block"
        )
    if problems:
        return problems
    few = not searched and count(body) <= EVERY_COMBINATION
    for filled in combinations(body) if few else variants(body):
        parse(Trial, filled, path, ("trial",), problems)
        problems += plugin_configs.problems(filled, path, ("trial",))
        if len(problems) >= ENOUGH_PROBLEMS:
            break
    return problems
