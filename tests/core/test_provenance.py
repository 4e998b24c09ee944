"""What is known of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.core import provenance


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 fma avx512_bf16 amx_tile", True),
        ("flags\t\t: fpu sse4_2 avx2 fma", False),
        ("Features\t: fp asimd bf16 sve", True),
        ("Features\t: fp asimd", False),
        ("vendor_id\t: something else", True),
    ],
)
def test_a_cpu_says_whether_it_has_a_unit_for_bfloat16(
    line: str,
    expected: bool,  # noqa: FBT001 - a parametrised value
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: CPU X\n{line}\n\nprocessor\t: 1\n")
    monkeypatch.setattr(provenance, "CPUINFO", file)
    assert provenance.multiplies_bfloat16() is expected
    assert provenance._processor() == "CPU X"


def test_a_system_that_tells_nothing_is_taken_to_be_able(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "absent")
    assert provenance.multiplies_bfloat16()
    assert provenance._processor()
