"""The figure of dynamics, from a table written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.dynamics import drawing, main, read


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two atoms whose total energy rises by 5 meV each in 2 ps."""
    path = tmp_path / "nve.csv"
    rows = ["time,total,kinetic,potential,total_per_atom,temperature"]
    rows += [
        f"{time},{2 * per_atom},{kinetic},{2 * per_atom - kinetic},{per_atom},300"
        for time, per_atom, kinetic in ((0, -5.0, 0.1), (1, -4.9975, 0.3), (2, -4.995, 0.2))
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_changes_are_drawn_per_atom_and_the_drift_is_told(table: Path) -> None:
    made = drawing(read(table), "nve")
    assert made.shown.total.tolist() == pytest.approx([0, 2.5, 5])
    assert made.shown.kinetic.tolist() == pytest.approx([0, 100, 50])
    assert made.shown.potential.tolist() == pytest.approx([0, -97.5, -45])
    assert "2 atoms; the total drifts by 2.50 meV/atom/ps" in made.caption
    assert "varies by 100 meV/atom" in made.alt
    (axes,) = made.figure.axes
    assert [line.get_label() for line in axes.lines] == ["potential", "kinetic", "total"]
    assert axes.lines[2].get_ydata().tolist() == pytest.approx([0, 2.5, 5])


def test_the_figure_lies_beside_its_table(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = table.read_bytes()
    assert main([str(table)]) == 0
    assert str(table.with_suffix(".svg")) in capsys.readouterr().out
    assert table.with_suffix(".svg").read_text().startswith("<svg")
    assert table.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a,b\n1,2\n",
        "time,total,kinetic,potential,total_per_atom\n0,1,1,0,1\n",
        "time,total,kinetic,potential,total_per_atom\n0,1,1,0,1\n1,x,1,0,1\n",
    ],
)
def test_another_table_is_answered_in_a_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.csv"
    path.write_text(content)
    for place in (path, tmp_path / "none.csv"):
        assert main([str(place)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"{place}: ")
        assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["other.csv"]
