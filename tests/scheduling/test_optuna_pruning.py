from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from study.core.errors import UserError
from study.core.records import JobResult
from study.scheduling.optuna_pruning import OptunaPruning
from study.space.search.optuna_classes import PRUNERS, names, problems
from study.space.search.stopping import OptunaPruner
from study.space.search_space import load_space

EPOCHS, TRIALS = 9, 24
PRUNER = {
    "median": ({"n_startup_trials": 3, "n_warmup_steps": 1}, optuna.pruners.MedianPruner),
    "percentile": ({"percentile": 25.0}, optuna.pruners.PercentilePruner),
    "hyperband": ({"max_resource": EPOCHS}, optuna.pruners.HyperbandPruner),
    "successive_halving": ({"min_resource": 1}, optuna.pruners.SuccessiveHalvingPruner),
    "wilcoxon": ({"p_threshold": 0.3}, optuna.pruners.WilcoxonPruner),
    "threshold": ({"upper": 1.2}, optuna.pruners.ThresholdPruner),
}


def curve(number: int) -> list[float]:
    """An error that falls to a floor of its own, with some noise."""
    floor = (number * 7 % TRIALS) / TRIALS
    return [
        floor + math.exp(-epoch / 3) + 0.05 * math.sin(7 * number + epoch) for epoch in range(9)
    ]


def natively(kind: Any, options: dict[str, Any]) -> list[int]:
    """After how many epochs Optuna's own loop ends each trial."""
    study, ends = optuna.create_study(study_name="s", pruner=kind(**options)), []
    for number in range(TRIALS):
        trial = study.ask()
        for epoch, value in enumerate(curve(number), start=1):
            trial.report(value, epoch)
            if epoch < EPOCHS and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, min(curve(number)))
        ends.append(epoch)
    return ends


def ours(name: str, options: dict[str, Any], cuts: tuple[int, ...]) -> list[int]:
    """The same, with the study begun anew after some trials, and one of them cut off."""
    settings, ends = OptunaPruner.model_validate({"name": name} | options), list[int]()
    known: list[tuple[int, list[float], JobResult | None]] = []
    pruning = OptunaPruning(settings, EPOCHS, "s")
    for number in range(TRIALS):
        for epoch, value in enumerate(curve(number), start=1):
            if number in cuts and epoch == 2:
                pruning = OptunaPruning(settings, EPOCHS, "s")
                for each in known:
                    pruning.remember(*each)
                pruning.remember(number, curve(number)[:1], None)
                assert not pruning.should_prune(number, 1, curve(number)[0])
            if pruning.should_prune(number, epoch, value):
                break
        result = JobResult("completed" if epoch == EPOCHS else "stopped")
        known.append((number, curve(number)[:epoch], result))
        pruning.ended(*known[-1][:1], result, known[-1][1])
        ends.append(epoch)
    return ends


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", PRUNER)
def test_a_pruner_decides_as_in_optunas_own_loop_interrupted_or_not(name: str) -> None:
    options, kind = PRUNER[name]
    expected = natively(kind, options)
    assert min(expected) < EPOCHS
    assert ours(name, options, ()) == expected
    if 1 not in expected[:20]:  # A trial that ends at once cannot be cut off.
        assert ours(name, options, (4, 11, 19)) == expected


def test_every_pruner_of_optuna_is_known() -> None:
    listed = {name for name in optuna.pruners.__all__ if "Base" not in name}
    assert set(names(PRUNERS).values()) == listed
    wrapped = {"patience": 2, "wrapped_pruner": {"name": "median"}}
    assert list(problems("patient", wrapped, PRUNERS)) == []


@pytest.mark.parametrize(
    ("stopping", "line"),
    [
        ("{name: medan}", "early_stopping: must be one of asha, hyperband, median"),
        ("{name: median, warmup: 2}", "early_stopping.warmup: unknown option; "),
        ("{name: percentile}", "early_stopping: `percentile` needs the option `percentile`"),
        ("{grace: 2}", "early_stopping.grace: unknown key; known keys: name, grace_epochs"),
        ("{name: wilcoxon, p_threshold: 2.0}", "early_stopping: WilcoxonPruner refuses these"),
    ],
)
def test_a_bad_pruner_is_one_line(space_file: Path, stopping: str, line: str) -> None:
    space_file.write_text(f"early_stopping: {stopping}\n{space_file.read_text()}")
    with pytest.raises(UserError) as refused:
        load_space(str(space_file), "quick")
    (problem,) = refused.value.problems
    assert problem.startswith(f"{space_file}:1: {line}")
