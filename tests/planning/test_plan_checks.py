"""What a machine does badly is told before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.lattice.cubic import FaceCenteredCubic

from study.core.errors import UserError
from study.planning import plan_checks
from study.planning.plan import Plan
from study.planning.plan_checks import check_plan, check_small_files
from study.space.search_space import load_space
from tests.conftest import SMALL_SPACE
from tests.search_space import SEARCH_SPACE


@pytest.mark.parametrize(
    ("precision", "has_unit", "on_cluster", "expected"),
    [
        ("bf16", False, False, 1),
        ("bf16", True, False, 0),
        ("bf16", False, True, 0),
        ("float32", False, False, 0),
    ],
)
def test_bfloat16_without_a_unit_is_warned_of(
    precision: str,
    has_unit: bool,  # noqa: FBT001 - a parametrised value
    on_cluster: bool,  # noqa: FBT001 - a parametrised value
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SMALL_SPACE)
    monkeypatch.setattr(plan_checks, "multiplies_bfloat16", lambda: has_unit)
    space = load_space(str(path), "quick", [(["trial", "finetune", "precision"], precision)])
    plan = Plan(space, tmp_path / "runs", "name", "")
    assert len(plan_checks.machine_warnings(plan, on_cluster=on_cluster)) == expected


@pytest.mark.parametrize(
    ("resources", "changes", "line"),
    [
        ("workers: 3", {}, r"`workers` must be <= batch_size 2 of each stage, but got 3$"),
        ("workers: 2", {"compile": True}, "needs at least 2 frames of a batch for each worker"),
        ("workers: 2, cpus: 9999", {}, r"resources.cpus: must be <= 1024"),
        ("workers: 2, cpus: 1000", {}, r"resources.workers \* cpus: must be <= \d+, .* got 2000;"),
        ("workers: 2, gpus: 0.5", {}, "`gpus` must be 0 or 1 with several `workers`"),
        ("gpus: 4", {}, r"resources.gpus: must be <= 1, .*`{workers: 4, gpus: 1}`"),
        ("workers: 2", {"compile": "if_possible"}, ""),
    ],
)
def test_workers_that_cannot_share_a_step_are_refused_before_the_start(
    resources: str, changes: dict[str, object], line: str, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"resources: {{{resources}}}\n{SMALL_SPACE}")
    overrides = [(["trial", "finetune", name], value) for name, value in changes.items()]

    def check() -> None:
        plan = Plan(load_space(str(path), "quick", overrides), tmp_path / "runs", "name", "")
        check_plan(plan, on_cluster=False)

    if not line:
        return check()
    with pytest.raises(UserError, match=line) as refused:
        check()
    assert len(refused.value.problems) == 1
    return None


def write_alloy(path: Path) -> None:
    rng, frames = np.random.default_rng(0), []
    for _ in range(12):
        atoms = FaceCenteredCubic("Cu", size=(1, 1, 1), latticeconstant=3.8, pbc=True)
        atoms.numbers[0] = 13
        atoms.rattle(0.05, seed=int(rng.integers(1 << 30)))
        forces = rng.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=forces)
        frames.append(atoms)
    write(path, frames, format="extxyz")


@pytest.mark.parametrize("task", ["masking, masking_ratio: 0.5", "denoising"])
def test_a_dry_run_refuses_to_mask_water_in_an_alloy(tmp_path: Path, task: str) -> None:
    write_alloy(tmp_path / "alloy.xyz")
    data = f"{{name: ase_file, path: {tmp_path / 'alloy.xyz'}}}\n  split: {{by: frame}}"
    text = SEARCH_SPACE.replace("{name: tip3p_water}", data)
    masking = "{name: masking, masking_ratio: {uniform: [0.1, 1.0]}}"
    (tmp_path / "alloy.yaml").write_text(text.replace(masking, f"{{name: {task}}}"))
    plan = Plan(load_space(str(tmp_path / "alloy.yaml"), "quick"), tmp_path / "runs", "a", "")
    if task == "denoising":
        check_small_files(plan)
    else:
        with pytest.raises(UserError, match="must have frames of nothing but water to mask"):
            check_small_files(plan)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("known", ["H, C, N, O", "Al, O", "Cu, Al"])
def test_a_dry_run_refuses_elements_that_the_model_lacks(tmp_path: Path, known: str) -> None:
    write_alloy(tmp_path / "alloy.xyz")
    data = f"{{name: ase_file, path: {tmp_path / 'alloy.xyz'}}}\n  split: {{by: frame}}"
    text = re.sub(r"\{name: tip3p_water.*\}", data, SMALL_SPACE)
    text = text.replace("{name: masking, masking_ratio: 0.5}", "{name: denoising}")
    (tmp_path / "alloy.yaml").write_text(text)
    model = {"name": "mace", "elements": known.split(", ")}
    overrides: list[tuple[list[str], object]] = [(["trial", "model"], model)]
    space = load_space(str(tmp_path / "alloy.yaml"), "quick", overrides)
    plan = Plan(space, tmp_path / "runs", "a", "")
    lacking = [symbol for symbol in ("Al", "Cu") if symbol not in model["elements"]]
    if not lacking:
        return check_small_files(plan)
    with pytest.raises(UserError, match=f"but lacks {', '.join(lacking)}; add them"):
        check_small_files(plan)
    return None


@pytest.mark.parametrize(
    ("split", "names", "rule"),
    [
        (
            "by: frame",
            ("E_xtb", "F_xtb"),
            r"energy may be E_xtb; forces may be F_xtb; say .* --set "
            r"'trial\.dataset\.labels=\{energy: E_xtb, forces: F_xtb\}'",
        ),
        (
            "by: frame, test: 500",
            ("energy", "forces"),
            r"12 frames, too few for `split\.test: 500`",
        ),
    ],
)
def test_a_dry_run_names_what_is_missing_or_too_large(
    split: str, names: tuple[str, str], rule: str, tmp_path: Path
) -> None:
    write_alloy(tmp_path / "alloy.xyz")
    text = (tmp_path / "alloy.xyz").read_text()
    text = text.replace(" energy=", f" {names[0]}=").replace(":forces:", f":{names[1]}:")
    (tmp_path / "alloy.xyz").write_text(text)
    data = f"{{name: ase_file, path: {tmp_path / 'alloy.xyz'}}}\n  split: {{{split}}}"
    text = re.sub(r"\{name: tip3p_water.*\}", data, SMALL_SPACE)
    text = text.replace("{name: masking, masking_ratio: 0.5}", "{name: denoising}")
    (tmp_path / "alloy.yaml").write_text(text)
    plan = Plan(load_space(str(tmp_path / "alloy.yaml"), "quick"), tmp_path / "runs", "a", "")
    with pytest.raises(UserError, match=rule):
        check_small_files(plan)
