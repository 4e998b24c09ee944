"""What every sampler promises; a sampler is tested as soon as its settings are shipped."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler

from study import check
from study.checks.sampler_contract import CHECKS, examine
from study.core.errors import UserError
from study.space.plugin_configs import keep, realized_sampler
from study.space.search import optuna_classes
from study.space.search.optuna_classes import problems
from study.space.search.samplers import OptunaSampler
from study.space.search_space import Space, load_space

OWN = """
from typing import Literal

from optuna.samplers import TPESampler
from pydantic import Field

from study import plugins


class Eager(plugins.SamplerConfig):
    name: Literal["eager"]
    startup: int = Field(default=2, ge=1)

    def build(self, seed):
        return TPESampler(n_startup_trials=self.startup, seed=seed)
"""


HUB = """


class Mine(TPESampler):
    def __init__(self, share: float = 0.1, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.share, self.seed = share, seed
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space_file: Path) -> Path:
    """A space whose proposals come from a sampler in a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    sampler = "{name: eager, code: mine.py, startup: 3}"
    search = f"search: {{trials: 4, sampler: {sampler}}}\ntrial:\n"
    space_file.write_text(space_file.read_text().replace("trial:\n", search, 1))
    return space_file


GRID = {
    "ratio": [0.1, 0.3, 0.9],
    "scale": [1e-4, 1e-2, 1.0],
    "task": ["masking", "denoising"],
}
SAMPLERS = [
    {"name": "tpe"},
    {"name": "tpe", "multivariate": True, "group": True, "constant_liar": True},
    {"name": "random"},
    {"name": "gp", "n_startup_trials": 12},
    {"name": "cmaes", "popsize": 4},
    {"name": "nsgaii", "population_size": 4},
    {"name": "nsgaiii", "population_size": 4},
    {"name": "qmc"},
    {"name": "grid", "search_space": GRID},
    {"name": "partial_fixed", "fixed_params": {"ratio": 0.5}, "base_sampler": {"name": "random"}},
]


@pytest.mark.parametrize("settings", SAMPLERS, ids=lambda settings: settings["name"])
def test_a_sampler_of_optuna_keeps_every_contract(settings: dict[str, Any]) -> None:
    if settings["name"] == "cmaes":
        pytest.importorskip("cmaes")
    sampler = OptunaSampler.model_validate(settings)
    options = {name: value for name, value in settings.items() if name != "name"}
    assert list(problems(settings["name"], options, optuna_classes.SAMPLERS)) == []
    assert isinstance(sampler.build(seed=0), BaseSampler)
    assert dict(examine(sampler)) == dict.fromkeys(CHECKS, "")


def test_every_sampler_of_optuna_is_known() -> None:
    listed = {name for name in optuna.samplers.__all__ if "Base" not in name and name[0].isupper()}
    assert set(optuna_classes.names(optuna_classes.SAMPLERS).values()) == listed


@pytest.mark.parametrize(
    ("sampler", "place", "rule"),
    [
        ("gpp", "search.sampler: must be one of ", "but got 'gpp'; did you mean `gp`?"),
        ("partialfix", "search.sampler: must be one of ", ", partial_fixed, "),
        ("{name: tpe, multivariat: true}", "search.sampler.multivariat: unknown option; did", ""),
        ("{name: tpe, multivariate: 1}", "search.sampler.multivariate: must be ", "true or false"),
        ("{name: tpe, gamma: 3}", "search.sampler.gamma: takes an object of Python", ""),
        ("{name: tpe, seed: 3}", "search.sampler.seed: is set by `search.seed`", ""),
        ("{name: grid}", "search.sampler: `grid` needs the option `search_space`", ""),
        ("{name: qmc, qmc_type: x}", "search.sampler: QMCSampler refuses these options", "halton"),
        (
            "{name: grid, search_space: {a: [1]}}",
            "search.sampler: grid cannot propose in this space",
            "",
        ),
        ("samplers/x", "search.sampler: `samplers/x` is a package of OptunaHub; run `pip ", ""),
        ("botorch", "search.sampler: `botorch` needs a package; run `pip install ", "botorch`"),
    ],
)
def test_a_bad_sampler_of_optuna_is_one_line(
    space_file: Path, sampler: str, place: str, rule: str
) -> None:
    search = f"search:\n  trials: 4\n  sampler: {sampler}\ntrial:\n"
    space_file.write_text(space_file.read_text().replace("trial:\n", search, 1))
    with pytest.raises(UserError) as refused:
        load_space(str(space_file), "quick")
    (problem,) = refused.value.problems
    line = space_file.read_text().splitlines().index(f"  sampler: {sampler}") + 1
    assert problem.startswith(f"{space_file}:{line}: {place}")
    assert rule in problem


def test_a_package_of_optunahub_is_loaded_at_its_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked, name = list[dict[str, str]](), "samplers/mine"
    (tmp_path / "hub.py").write_text(OWN.partition("\n\n\n")[0] + HUB)
    hub = ModuleType("optunahub")
    hub.__spec__ = ModuleSpec("optunahub", None)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "optunahub", hub)
    vars(hub)["load_module"] = lambda **said: asked.append(said) or import_module("hub")
    options = {"ref": "a" * 40, "share": 0.5}
    assert list(problems(name, options, optuna_classes.SAMPLERS)) == []
    made = OptunaSampler.model_validate({"name": name} | options).build(seed=3)
    assert (made.share, made.seed) == (0.5, 3)
    assert {"package": name, "ref": "a" * 40} in asked
    for wrong, place in (("main", "ref"), ("a" * 40, "shares")):
        bad = {"ref": wrong, "shares": 0.5}
        assert [keys for keys, _ in problems(name, bad, optuna_classes.SAMPLERS)] == [(place,)]


def test_a_sampler_of_ones_own_is_checked(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = own.with_name("mine.py")
    assert check.main([str(code)]) == 0
    code.write_text(OWN.replace("seed=seed", "seed=0"))
    assert check.main([str(code)]) == 1
    assert "failed  other seeds give other proposals" in capsys.readouterr().out


def test_a_sampler_of_ones_own_is_kept_and_built(own: Path, tmp_path: Path) -> None:
    space = load_space(str(own), "quick")
    assert space.settings.search is not None
    keep(space.resolved(), tmp_path / "runs")
    (tmp_path / "mine.py").unlink()
    again = Space.from_resolved(own, space.resolved())
    assert again.settings.search == space.settings.search
    made = realized_sampler(space.settings.search.sampler, tmp_path / "runs").build(seed=1)
    assert isinstance(made, TPESampler)
    assert made._n_startup_trials == 3


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("startup: 3", "startups: 3", "search.sampler.startups: unknown key; did you mean"),
        ("startup: 3", "startup: 0", "search.sampler.startup: must be >= 1, but got 0"),
        ("name: eager", "name: lazy", "derived from `study.plugins.SamplerConfig`"),
    ],
)
def test_a_bad_sampler_is_answered_with_its_key(own: Path, old: str, new: str, rule: str) -> None:
    own.write_text(own.read_text().replace(old, new))
    with pytest.raises(UserError) as refused:
        load_space(str(own), "quick")
    assert any(rule in problem for problem in refused.value.problems), refused.value.problems
