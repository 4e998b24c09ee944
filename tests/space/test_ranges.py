from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from jsonschema import Draft7Validator
from scipy import stats

from study.core.errors import UserError
from study.space.json_schema import FILE
from study.space.ranges import RANGES, as_parameter, at_quantile, problem, suggested, values
from study.space.search_space import load_space
from study.space.tuning import draw
from study.space.yaml_loader import read_yaml

CONTENT: dict[str, list[Any]] = {
    "uniform": [0.1, 0.9],
    "loguniform": [1e-4, 1e-1],
    "quniform": [0.5, 2.0, 0.25],
    "qloguniform": [0.1, 10.0, 0.5],
    "integer": [2, 9],
    "qinteger": [8, 64, 8],
    "loginteger": [1, 64],
    "normal": [1.0, 0.2],
    "lognormal": [-7.0, 0.5],
    "qnormal": [1.0, 0.2, 0.1],
    "qlognormal": [1.0, 0.5, 0.25],
}
OF_OPTUNA = {
    "uniform": "FloatDistribution(high=0.9, log=False, low=0.1, step=None)",
    "loguniform": "FloatDistribution(high=0.1, log=True, low=0.0001, step=None)",
    "quniform": "FloatDistribution(high=2.0, log=False, low=0.5, step=0.25)",
    "qloguniform": "FloatDistribution(high=10.0, log=True, low=0.1, step=None)",
    "integer": "IntDistribution(high=9, log=False, low=2, step=1)",
    "qinteger": "IntDistribution(high=64, log=False, low=8, step=8)",
    "loginteger": "IntDistribution(high=64, log=True, low=1, step=1)",
}
CUMULATIVE = {
    "uniform": stats.uniform(0.1, 0.8).cdf,
    "loguniform": stats.loguniform(1e-4, 1e-1).cdf,
    "normal": stats.norm(1.0, 0.2).cdf,
    "lognormal": stats.lognorm(0.5, scale=math.exp(-7)).cdf,
}


def drawn(kind: str, number: int = 300) -> tuple[list[Any], list[optuna.Trial]]:
    """What a random sampler draws from a range."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(number)]
    return [suggested(kind, CONTENT[kind], trial, "x") for trial in trials], trials


def test_every_range_is_tested() -> None:
    assert CONTENT.keys() == RANGES.keys()
    assert all(problem(kind, content) == "" for kind, content in CONTENT.items())


@pytest.mark.parametrize("kind", RANGES)
def test_draws_have_the_distribution_of_their_name(kind: str) -> None:
    numbers, trials = drawn(kind)
    (distribution,) = trials[0].distributions.values()
    assert str(distribution) == OF_OPTUNA.get(
        kind, "FloatDistribution(high=0.999, log=False, low=0.001, step=None)"
    )
    assert all(isinstance(each, int if RANGES[kind].whole else float) for each in numbers)
    if kind in CUMULATIVE:
        assert stats.kstest(numbers, CUMULATIVE[kind]).pvalue > 0.01
    if RANGES[kind].step:
        low = CONTENT[kind][0] if kind in ("quniform", "qinteger") else 0
        steps = [(each - low) / CONTENT[kind][2] for each in numbers]
        assert steps == pytest.approx([round(each) for each in steps])
    if (count := values(kind, CONTENT[kind])) and not RANGES[kind].log:
        assert len(set(numbers)) == count
    assert at_quantile(kind, CONTENT[kind], 0) <= min(numbers)
    assert max(numbers) <= at_quantile(kind, CONTENT[kind], 1)


@pytest.mark.parametrize("kind", RANGES)
def test_a_number_that_was_drawn_is_the_parameter_that_draws_it(kind: str) -> None:
    for value in drawn(kind, 20)[0]:
        name, parameter = as_parameter(kind, CONTENT[kind], value, "x")
        fixed = optuna.trial.FixedTrial({name: parameter})
        assert suggested(kind, CONTENT[kind], fixed, "x") == pytest.approx(value)
    with pytest.raises(ValueError, match="must be "):
        as_parameter(kind, CONTENT[kind], -1000, "x")


@pytest.mark.parametrize(
    ("kind", "content", "rule"),
    [
        ("quniform", [0, 1], "three numbers, [low, high, step], such as {quniform: [1, 11, 2]}"),
        ("quniform", [0.0, 1.0, 0.3], "a whole number of steps"),
        ("qinteger", [1, 8, 0.5], "three whole numbers"),
        ("loginteger", [0, 8], "0 < low < high"),
        ("normal", [1.0, 0.0], "deviation > 0"),
        ("normal", [1.0], "two numbers, [mean, deviation], such as {normal: [0.5, 0.1]}"),
        ("qnormal", [1.0, 1.0, 0.0], "step > 0"),
        ("qloguniform", [0.1, 0.4, 0.5], "several multiples of step"),
    ],
)
def test_numbers_that_make_no_range_are_refused(kind: str, content: list[Any], rule: str) -> None:
    assert rule in problem(kind, content)


def space_with(space_file: Path, hole: str, *, searched: bool) -> str:
    text = space_file.read_text().replace(
        "    batch_size: 2\n", f"    batch_size: 2\n    lr: {hole}\n"
    )
    search = "seeds: [0]\nsearch: {trials: 2}\n" if searched else "seeds: [0]\n"
    space_file.write_text(text.replace("seeds: [0, 1]\n", search))
    return str(space_file)


@pytest.mark.parametrize("kind", [kind for kind in RANGES if not RANGES[kind].whole])
def test_a_search_takes_every_range_and_a_grid_none(space_file: Path, kind: str) -> None:
    small = [0.001, 0.003, 0.001] if RANGES[kind].step else [0.001, 0.003]
    content = [-7.0, 0.5, 0.0001][: len(small)] if kind.endswith("lognormal") else small
    if kind in ("normal", "qnormal"):
        content = [0.01, 0.001, 0.001][: len(small)]
    text = space_file.read_text()
    space = load_space(space_with(space_file, f"{{{kind}: {content}}}", searched=True), "quick")
    assert len({trial.finetune.lr for trial in space.samples}) == 2
    assert Draft7Validator(json.loads(FILE.read_text())).is_valid(read_yaml(space_file))
    space_file.write_text(text)
    with pytest.raises(UserError) as refused:
        load_space(space_with(space_file, f"{{{kind}: {content}}}", searched=False), "quick")
    assert f"`{kind}` needs a `search:` block" in refused.value.problems[0]


@pytest.mark.parametrize("kind", [kind for kind in RANGES if RANGES[kind].whole])
def test_a_whole_number_takes_ranges_of_whole_numbers(space_file: Path, kind: str) -> None:
    hole = f"    epochs: {{{kind}: {CONTENT[kind]}}}\n"
    text = space_file.read_text().replace("seeds: [0, 1]\n", "seeds: [0]\nsearch: {trials: 2}\n")
    space_file.write_text(text.replace("    epochs: 20\n", hole))
    samples = load_space(str(space_file), "quick").samples
    assert len({trial.finetune.epochs for trial in samples}) == 2
    assert Draft7Validator(json.loads(FILE.read_text())).is_valid(read_yaml(space_file))


def test_an_unknown_distribution_is_answered_with_all_there_are(space_file: Path) -> None:
    space = space_with(space_file, "{unifrom: [1e-4, 1e-2]}", searched=True)
    with pytest.raises(UserError) as refused:
        load_space(space, "quick")
    (problem,) = refused.value.problems
    assert all(kind in problem for kind in ("choice", *RANGES))
    assert problem.endswith("but got a block of `unifrom`; did you mean `uniform`?")


def test_tuning_takes_the_values_of_a_range_evenly(space_file: Path) -> None:
    hole = "{finetune.lr: {quniform: [0.001, 0.003, 0.001]}}"
    text = space_file.read_text()
    space_file.write_text(f"tune: {{each_arm: {hole}, proposals: 3}}\n{text}")
    tune = load_space(str(space_file), "quick").settings.tune
    assert tune is not None
    assert [values["finetune.lr"] for values in draw(tune)] == [0.001, 0.002, 0.003]
    space_file.write_text(f"tune: {{each_arm: {hole}, proposals: 4}}\n{text}")
    with pytest.raises(UserError, match=r"tune.proposals: must be <= 3, the numbers of the range"):
        load_space(str(space_file), "quick")
