from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from optuna.trial import FixedTrial

from study.core.errors import UserError
from study.planning.cost_model import forecast
from study.planning.plan import Plan
from study.space.json_schema import FILE, main, text
from study.space.search_space import SHIPPED, load_space
from study.space.yaml_loader import read_yaml

WATER = "name: tip3p_water, molecules: 32, trajectories: 10, frames: 100"


def edited(space_file: Path, old: str, new: str) -> str:
    text = space_file.read_text()
    assert old in text
    space_file.write_text(text.replace(old, new, 1))
    return str(space_file)


def refusals(space: str, profile: str = "quick") -> tuple[str, ...]:
    with pytest.raises(UserError) as refused:
        load_space(space, profile)
    return refused.value.problems


def test_a_grid_has_every_choice_and_scratch_with_every_seed(space_file: Path) -> None:
    trials = load_space(str(space_file), "quick").grid()
    arms = [(t.seed, t.pretrain and t.pretrain.task.masking_ratio) for t in trials]
    assert arms == [(0, None), (0, 0.25), (0, 0.5), (1, None), (1, 0.25), (1, 0.5)]


def test_all_arms_share_their_finetuning(space_file: Path) -> None:
    trials = load_space(str(space_file), "quick").grid()
    assert len({trial.finetune.model_dump_json() for trial in trials}) == 1


def test_without_a_baseline_nothing_runs_from_scratch(space_file: Path) -> None:
    space = load_space(edited(space_file, "seeds:", "baseline: false\nseeds:"), "quick")
    assert all(trial.pretrain is not None for trial in space.grid())


def test_a_space_without_profiles_needs_none(space_file: Path) -> None:
    plain = space_file.with_name("mine.yaml")
    plain.write_text(space_file.read_text().split("profiles:")[0])
    space = load_space(str(plain), None)
    assert (space.name, space.profile) == ("mine", "")
    assert space.grid() == load_space(str(space_file), "quick").grid()
    assert "has no profiles" in refusals(str(plain), "quick")[0]


def test_without_a_name_the_default_or_the_only_profile_is_taken(space_file: Path) -> None:
    assert load_space(str(space_file), None, default="longer").profile == "longer"
    only = edited(space_file, "  quick:\n", "")
    assert load_space(only, None, default="quick").profile == "longer"


def test_a_profile_changes_what_it_names_and_replaces_holes(space_file: Path) -> None:
    trials = load_space(str(space_file), "longer").grid()
    assert {trial.finetune.epochs for trial in trials} == {40}
    assert {trial.finetune.batch_size for trial in trials} == {2}
    assert {t.pretrain.task.masking_ratio for t in trials if t.pretrain} == {0.9}


def test_choices_may_have_holes_of_their_own(space_file: Path) -> None:
    old = "  model: {name: egnn, hidden: 32, layers: 3}"
    new = (
        "  model:\n    choice:\n"
        "      - {name: egnn, hidden: {choice: [8, 16]}, layers: 2}\n"
        "      - {name: egnn, hidden: 4, layers: {choice: [1, 3]}}"
    )
    trials = load_space(edited(space_file, old, new), "longer").grid()
    sizes = {(trial.model.hidden, trial.model.layers) for trial in trials}
    assert sizes == {(8, 2), (16, 2), (4, 1), (4, 3)}


def test_a_choice_beside_other_keys_lays_each_option_over_them(space_file: Path) -> None:
    arms = (
        "  choice:\n    - {pretrain: null}\n    - {pretrain: null, finetune: {epochs: 30}}\n"
        "    - {model: {hidden: 8}, choice: [{finetune: {lr: 1e-3}}, {finetune: {lr: 2e-3}}]}\n"
    )
    text = edited(space_file, "trial:\n", f"baseline: false\ntrial:\n{arms}")
    edited(space_file, "{choice: [0.25, 0.5]}", "0.5")
    trials = [trial for trial in load_space(text, "quick").grid() if trial.seed == 0]
    assert [
        (t.pretrain is not None, t.finetune.epochs, t.finetune.lr, t.model.hidden) for t in trials
    ] == [
        (False, 20, 1e-4, 32),
        (False, 30, 1e-4, 32),
        (True, 20, 1e-3, 8),
        (True, 20, 2e-3, 8),
    ]
    assert len({trial.dataset for trial in trials}) == 1


@pytest.mark.parametrize("key", ["epochs: 20", "batch_size: 2"])
@pytest.mark.parametrize("range_", ["{uniform: [1, 10]}", "{loguniform: [1.5, 10]}"])
def test_whole_numbers_are_not_drawn_from_a_range_of_real_ones(
    space_file: Path, key: str, range_: str
) -> None:
    edited(space_file, "seeds: [0, 1]", "seeds: [7]\nsearch: {trials: 4}")
    name = key.partition(":")[0]
    edited(space_file, f"    {key}\n", f"    {name}: {range_}\n")
    line = space_file.read_text().splitlines().index(f"    {name}: {range_}") + 1
    where = f"{space_file}:{line}: trial.finetune.{name}: must be a whole number, but got "
    problems = refusals(str(space_file))
    assert len(problems) == 2  # Neither end will do.
    assert all(problem.startswith(where) for problem in problems)


def test_problems_in_an_option_have_its_line(space_file: Path) -> None:
    new = "trial:\n  choice:\n    - {finetune: {epochs: 30}}\n    - {finetune: {epohs: 30}}\n"
    problems = refusals(edited(space_file, "trial:\n", new))
    assert any(p.startswith(f"{space_file}:6: trial.finetune.epohs: unknown key") for p in problems)


def test_optuna_fills_only_the_holes_it_reaches(space_file: Path) -> None:
    edited(space_file, "seeds: [0, 1]", "seeds: [7]\nsearch: {trials: 4}")
    edited(space_file, "choice: [0.25, 0.5]", "uniform: [0.1, 0.9]")
    space = load_space(
        edited(
            space_file,
            "    batch_size: 2\n",
            "    batch_size: {integer: [1, 4]}\n    lr: {loguniform: [1e-4, 1e-2]}\n",
        ),
        "quick",
    )
    parameters = {
        "pretrain.task.masking_ratio": 0.3,
        "finetune.batch_size": 3,
        "finetune.lr": 2e-3,
    }
    fixed = FixedTrial(parameters)
    trial = space.propose(fixed)
    assert trial.pretrain is not None
    assert trial.pretrain.task.masking_ratio == 0.3
    assert (trial.finetune.batch_size, trial.finetune.lr, trial.seed) == (3, 2e-3, 7)
    assert fixed.distributions["finetune.lr"].log


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_every_shipped_space_has_both_profiles(path: Path, profile: str) -> None:
    space = load_space(path.stem, profile)
    assert space.name == f"{path.stem}-{profile}"
    assert space.samples


def test_the_paper_profile_is_the_paper(space_file: Path) -> None:
    del space_file
    trial = load_space("masking_ratio", "paper").samples[0]
    data, model = trial.dataset, trial.model
    assert (data.molecules, data.trajectories, data.frames, data.temperature) == (
        258,
        10,
        1000,
        300,
    )
    assert (model.hidden, model.layers, model.cutoff) == (128, 5, 3.4)
    assert trial.pretrain is not None
    assert (trial.pretrain.epochs, trial.finetune.epochs) == (25, 50)
    for stage in (trial.pretrain, trial.finetune):
        assert (stage.batch_size, stage.lr, stage.min_lr, stage.weight_decay) == (
            10,
            1e-4,
            1e-7,
            1e-4,
        )


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_space_asks_a_question_and_names_a_paper(path: Path) -> None:
    first, *head = re.findall(r"^# (.+)", path.read_text().partition("question:")[0], re.MULTILINE)
    assert first.startswith("yaml-language-server: $schema=")
    assert "?" in f"{head[0]} {head[1]}"
    assert re.search(r"arXiv:\d{4}\.\d{5}", " ".join(head))


@pytest.mark.parametrize("profile", ["quick", "paper"])
@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_space_says_what_it_costs(path: Path, profile: str, tmp_path: Path) -> None:
    (said,) = re.findall(rf"^# Cost, {profile}: (\d+) trials(.*)", path.read_text(), re.MULTILINE)
    plan = Plan(load_space(str(path), profile), tmp_path, "any", "")
    assert int(said[0]) == plan.trials
    if pretrainings := re.search(r"(\d+) pretrainings", said[1]):
        assert int(pretrainings[1]) == len(plan.pretrainings)
    hours = re.search(r"about ([\d.]+) core-hours", said[1])
    if any(dataset.sizes is None for dataset in plan.datasets):
        # Of files that are to be downloaded the forecast knows the published size.
        expected = forecast(path.stem, profile)
        assert (hours is None) == bool(expected.unknown)
        if hours is not None:
            assert expected.hours[0] < float(hours[1]) < expected.hours[1]
    else:
        assert hours is not None
        assert float(hours[1]) == pytest.approx(plan.seconds / 3600, rel=0.3)


BAD = [
    ("hidden: 32", "hiden: 32", 5, "trial.model.hiden", "did you mean `hidden`?"),
    ("question", "qestion", 1, "qestion", "did you mean `question`?"),
    ("[0.25, 0.5]", "[0.25, 1.5]", 7, "trial.pretrain.task.masking_ratio", "<= 1.0"),
    ("[0.25, 0.5]", "[0.25, 0]", 7, "trial.pretrain.task.masking_ratio", "> 0.0"),
    ("[0.25, 0.5]", "[]", 7, "trial.pretrain.task.masking_ratio", "a list of options"),
    ("[0.25, 0.5]", "[0.001]", 7, "trial.pretrain.task.masking_ratio", "hide an atom"),
    ("choice", "uniform", 7, "trial.pretrain.task.masking_ratio", "`search:` block"),
    ("epochs: 20", "epochs: 1e1", 12, "trial.finetune.epochs", "a whole number"),
    ("epochs: 20", "epochs: many", 12, "trial.finetune.epochs", "'many' (text)"),
    ("epochs: 20", "epochs: 0", 12, "trial.finetune.epochs", ">= 1"),
    ("epochs: 20", "epochs:", 12, "trial.finetune.epochs", "but got nothing"),
    ("name: egnn", "name: egn", 5, "trial.model", "did you mean `egnn`?"),
    ("name: masking", "name: maskin", 7, "trial.pretrain.task", "did you mean `masking`?"),
    ("seeds: [0, 1]", "seeds: []", 2, "seeds", "at least 1"),
    ("seeds: [0, 1]", "seeds: [3, 3]", 2, "seeds", "must differ"),
    ("seeds: [0, 1]", "seeds: 4", 2, "seeds", "a list"),
    ("seeds: [0, 1]", "seeds: [0]\nbaseline: no", 3, "baseline", "true or false"),
    ("    batch_size: 2\n", "", 10, "trial.finetune.batch_size", "is required"),
    ("    batch_size: 2", "    batch_size: 2\n    lr: .inf", 14, "trial.finetune.lr", "finite"),
    ("    batch_size: 2", "    batch_size: 2\n    frames: 801", 14, "trial.finetune", "<= 800"),
    ("    batch_size: 2", "    batch_size: 2\n    min_lr: 1", 14, "trial.finetune", "min_lr"),
    ("trajectories: 10", "trajectories: 2", 4, "trial.dataset", "to train on"),
    ("  model:", "  split: {test: 9}\n  model:", 4, "trial.dataset", "to train on"),
    ("  model:", "  split: {test: 0}\n  model:", 5, "trial.split.test", ">= 1"),
    ("  model:", "  split: {test: 1.5}\n  model:", 5, "trial.split.test", "< 1"),
    ("  model:", "  split: {test: 0.0}\n  model:", 5, "trial.split.test", "> 0"),
    ("  model:", "  split: {validation: x}\n  model:", 5, "trial.split.validation", "a number"),
    ("  model:", "  split: {validation: true}\n  model:", 5, "trial.split.validation", "a number"),
    ("name: tip3p_water", "name: tip3p", 4, "trial.dataset", "did you mean `tip3p_water`?"),
    (
        "name: tip3p_water, ",
        "name: n2p2_file, ",
        4,
        "trial.dataset.molecules",
        "keys: name, path",
    ),
    (WATER, "name: n2p2_file", 4, "trial.dataset.path", "is required"),
    (WATER, "name: ase_file, path: ''", 4, "trial.dataset.path", "at least 1 letter"),
    (
        "energy_forces",
        "masking, masking_ratio: 0.5",
        11,
        "trial.finetune.task",
        "energy_forces",
    ),
]
"""What is written in place of what, and the line, key and rule of the answer."""
BETWEEN_KEYS = (
    "hide an atom",
    "`search:` block",
    "<= 800",
    "min_lr",
    "to train on",
    "energy_forces",
)
"""Rules between keys, which no JSON Schema can express; the parser alone knows them."""
NOTATION = ("epochs: 1e1",)
"""JSON does not tell 1e1 from 10."""


@pytest.mark.parametrize(("old", "new", "line", "place", "rule"), BAD)
def test_a_bad_space_is_answered_with_line_key_and_rule(
    space_file: Path, old: str, new: str, line: int, place: str, rule: str
) -> None:
    problems = refusals(edited(space_file, old, new))
    assert any(
        problem.startswith(f"{space_file}:{line}: {place}") and rule in problem
        for problem in problems
    ), problems


@pytest.mark.parametrize(
    ("search", "rule"),
    [
        ("{trails: 4}", "search.trails: unknown key; did you mean `trials`?"),
        ("{trials: 4, seeed: 1}", "search.seeed: unknown key; did you mean `seed`?"),
        ("{trials: many}", "search.trials: must be a whole number, but got 'many' (text)"),
        ("{}", "search.trials: is required; add it"),
    ],
)
def test_a_wrong_key_of_a_search_is_one_line(space_file: Path, search: str, rule: str) -> None:
    edited(space_file, "choice: [0.25, 0.5]", "uniform: [0.25, 0.5]")
    edited(space_file, "seeds: [0, 1]", f"search: {search}\nseeds: [0, 1]")
    (problem,) = refusals(str(space_file))
    assert problem.endswith(rule)


@pytest.mark.parametrize(
    "dataset",
    ["name: rpbe_water", "name: n2p2_file, path: a", "name: ase_file, path: a", "flexible: true, "],
)
def test_data_sets_of_any_kind_may_be_named(space_file: Path, dataset: str) -> None:
    whole = dataset + (WATER if dataset.endswith(", ") else "")
    (trial, *_) = load_space(edited(space_file, WATER, whole), "quick").samples
    assert trial.dataset.name in whole
    assert (trial.dataset.sizes is None) == (trial.dataset.name != "tip3p_water")


def test_unknown_names_get_a_suggestion(space_file: Path) -> None:
    assert "did you mean `masking_ratio`?" in refusals("masking_ration")[0]
    assert "has no `quik`, only quick, longer" in refusals(str(space_file), "quik")[0]


def test_a_bad_space_is_answered_before_torch_or_ray_is_imported(space_file: Path) -> None:
    edited(space_file, "hidden", "hiden")
    program = (
        "import sys\nfrom study.run import main\n"
        f"code = main(['--space', {str(space_file)!r}, '--profile', 'quick'])\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas'} & set(sys.modules)\n"
        "print(code, sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=space_file.parent,
    )
    assert done.stdout == "2 []\n"
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in space_file.parent.iterdir()] == [space_file.name]


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    value = json.loads(FILE.read_text())
    Draft7Validator.check_schema(value)
    return Draft7Validator(value)


def test_the_committed_schema_is_that_of_the_settings() -> None:
    assert FILE.read_text() == text()


def descriptions(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Of every key that the schema knows, by its place."""
    if isinstance(value, dict):
        for key, child in value.get("properties", {}).items() if "type" in value else ():
            yield f"{path}.{key}", child.get("description", child.get("$ref", ""))
        for key, child in value.items():
            yield from descriptions(child, f"{path}.{key}")
    elif isinstance(value, list):
        for child in value:
            yield from descriptions(child, path)


def test_every_key_is_described() -> None:
    value = json.loads(FILE.read_text())
    found = dict(descriptions(value))
    assert len(found) > 100
    for place, description in found.items():
        if description.startswith("#/definitions/"):
            there = value
            for part in description.removeprefix("#/").split("/"):
                there = there[part]
            description = there["description"]
        assert len(description) > 5, place


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_editors_find_the_schema_of_a_shipped_space(path: Path, schema: Draft7Validator) -> None:
    first = path.read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={FILE.name}"
    assert list(schema.iter_errors(read_yaml(path))) == []


@pytest.mark.parametrize(("old", "new", "line", "place", "rule"), BAD)
def test_the_schema_refuses_what_the_parser_refuses(
    space_file: Path,
    schema: Draft7Validator,
    old: str,
    new: str,
    line: int,
    place: str,
    rule: str,
) -> None:
    del line, place
    edited(space_file, old, new)
    accepted = schema.is_valid(read_yaml(space_file))
    assert accepted == (rule in BETWEEN_KEYS or new in NOTATION)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 20", "epochs: {choice: [10, 20]}"),
        ("epochs: 20", "epochs: {choice: [10, {choice: [20, 30]}]}"),
        ("trial:\n", "trial:\n  choice:\n    - {pretrain: null}\n    - {model: {layers: 2}}\n"),
        (
            "  model: {name: egnn, hidden: 32, layers: 3}\n",
            "  choice: [{model: {name: egnn}}, {model: {name: gns, hidden: {choice: [8, 16]}}}]\n",
        ),
        ("{name: masking, masking_ratio: {choice: [0.25, 0.5]}}", "{choice: [{name: denoising}]}"),
        (
            "task: {name: masking, masking_ratio: {choice: [0.25, 0.5]}}",
            "task: {name: mixed, tasks: [{task: {name: denoising}}, {task: {name: masking, "
            "masking_ratio: 0.5}, weight: 2}]}",
        ),
        ("  finetune:", "  transfer: {choice: [body, all]}\n  finetune:"),
        ("seeds: [0, 1]", "seeds: [7]\nsearch: {trials: 4}\nearly_stopping: {grace_epochs: 2}"),
        (
            "seeds: [0, 1]",
            "seeds: [7]\nearly_stopping: {name: percentile, percentile: 25.0}\nsearch: {trials: 4, "
            "sampler: {name: gp, n_startup_trials: 3}, learn_from: old.csv, start_with: "
            "[{pretrain.task.masking_ratio: 0.5}]}",
        ),
        (
            "    task: {name: masking, masking_ratio: {choice: [0.25, 0.5]}}\n",
            "    choice: [null, {task: {name: masking, masking_ratio: 0.5}}]\n",
        ),
        ("    trial: {finetune: {epochs: 40}", "    seeds: [1]\n    trial: {finetune: {lr: 1e-3}"),
    ],
)
def test_the_schema_accepts_what_the_parser_accepts(
    space_file: Path, schema: Draft7Validator, old: str, new: str
) -> None:
    # What it changes may be none of the new task's keys.
    edited(space_file, ", pretrain: {task: {masking_ratio: {choice: [0.9]}}}", "")
    load_space(edited(space_file, old, new), "quick")
    assert [error.message for error in schema.iter_errors(read_yaml(space_file))] == []


def test_the_schema_accepts_the_ranges_of_a_search(
    space_file: Path, schema: Draft7Validator
) -> None:
    edited(space_file, "seeds: [0, 1]", "seeds: [7]\nsearch: {trials: 4}")
    edited(space_file, "choice: [0.25, 0.5]", "uniform: [0.1, 0.9]")
    edited(space_file, "    batch_size: 2\n", "    batch_size: {integer: [1, 4]}\n")
    edited(space_file, "    epochs: 5\n", "    epochs: 5\n    lr: {loguniform: [1e-4, 1e-2]}\n")
    load_space(str(space_file), "quick")
    assert schema.is_valid(read_yaml(space_file))
    for wrong in (
        "{integer: [0, 4]}",
        "{loguniform: [0, 1]}",
        "{integer: [1]}",
        "{normal: [1, 2]}",
        "{qinteger: [1, 4]}",
        "{loginteger: [0, 4]}",
    ):
        edited(space_file, "{integer: [1, 4]}", wrong)
        assert not schema.is_valid(read_yaml(space_file)), wrong
        with pytest.raises(UserError):
            load_space(str(space_file), "quick")
        edited(space_file, wrong, "{integer: [1, 4]}")


def test_an_outdated_schema_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "space.schema.json"
    assert main(["--out", str(out)]) == 0
    assert main(["--out", str(out), "--check"]) == 0
    out.write_text("{}")
    assert main(["--out", str(out), "--check"]) == 1
    assert "outdated" in capsys.readouterr().err


def test_a_mistake_in_a_profile_that_is_not_chosen_is_refused_now(tmp_path: Path) -> None:
    shipped = (SHIPPED / "masking_ratio.yaml").read_text()
    path = tmp_path / "ratio.yaml"
    path.write_text(shipped)
    load_space(str(path), "quick")
    mistaken = shipped.replace("  paper:", "  paper:\n    seed: [0]", 1)
    assert mistaken != shipped
    path.write_text(mistaken)
    with pytest.raises(UserError) as refused:
        load_space(str(path), "quick")
    (problem,) = refused.value.problems
    assert "seed: unknown key; did you mean `seeds`?" in problem
    assert problem.endswith("(profile paper)")
