"""What a machine does badly is told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.planning import plan_checks
from study.planning.plan import Plan
from study.space.search_space import load_space
from tests.conftest import SMALL_SPACE


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
