"""What every sampler promises; a sampler is tested as soon as its settings are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.samplers import BaseSampler, TPESampler

from study import check
from study.checks.sampler_contract import CHECKS, examine
from study.core.config import shipped
from study.core.errors import UserError
from study.space.plugin_configs import keep, realized_sampler
from study.space.samplers import SamplerConfig, shipped_sampler
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


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space_file: Path) -> Path:
    """A space whose proposals come from a sampler in a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    sampler = "{name: eager, code: mine.py, startup: 3}"
    search = f"search: {{trials: 4, sampler: {sampler}}}\ntrial:\n"
    space_file.write_text(space_file.read_text().replace("trial:\n", search, 1))
    return space_file


@pytest.mark.parametrize("name", shipped(SamplerConfig))
def test_a_shipped_sampler_keeps_every_contract(name: str) -> None:
    assert isinstance(shipped_sampler(name).build(seed=0), BaseSampler)
    assert dict(examine(shipped_sampler(name))) == dict.fromkeys(CHECKS, "")


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
