"""Every reader gives back what the format's own library wrote: in any units, order and names."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.datasets.frames import Frames
from study.datasets.readers.detect import read_set
from tests.contracts.format_writers import ENERGIES, FORMATS, LENGTHS, Sample


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    frames, atoms = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    shape = (frames, atoms, 3)
    return Sample(
        rng.integers(1, 119, atoms),
        rng.random(shape) * 8 + 4 * np.arange(atoms)[:, None],
        rng.normal(scale=100, size=frames),
        rng.normal(size=shape),
        np.diag(rng.uniform(30, 40, 3)) + np.tril(rng.normal(size=(3, 3)), -1),
        draw(st.sampled_from([(True,) * 3, (True, True, False), (False, True, False)])),
        draw(st.sampled_from(sorted(ENERGIES))),
        draw(st.sampled_from(sorted(LENGTHS))),
        seed,
    )


@contextmanager
def written(name: str, sample: Sample) -> Iterator[Frames]:
    with tempfile.TemporaryDirectory() as folder:
        yield read_set(FORMATS[name][0](Path(folder), sample))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(sample=samples())
def test_what_was_written_is_read(name: str, sample: Sample) -> None:
    _, kept, (energy, length) = FORMATS[name]
    of_energy = ENERGIES[energy or sample.energy_unit]
    of_length = LENGTHS[length or sample.length_unit]
    with written(name, sample) as frames:
        pass
    count, close = len(sample.energies), {"rtol": 1e-7, "atol": 1e-7}
    assert frames.numbers.tolist() == sample.numbers.tolist() * count
    places, pushes = sample.positions.reshape(-1, 3), sample.forces.reshape(-1, 3)
    rounded = {"rtol": 0, "atol": 6e-5} if name == "sdf" else close
    np.testing.assert_allclose(frames.positions, of_length * places, **rounded)
    assert frames.labelled("energy").all() == ("energy" in kept)
    assert frames.labelled("forces").all() == ("forces" in kept)
    if "energy" in kept:
        np.testing.assert_allclose(frames.energies, of_energy * sample.energies, **close)
    if "forces" in kept:
        np.testing.assert_allclose(frames.forces, of_energy / of_length * pushes, **close)
    if "cell" in kept:
        cells = np.tile(of_length * sample.cell, (count, 1, 1))
        cells = np.where(frames.pbc[:, :, None], cells, 0)
        np.testing.assert_allclose(frames.lattices, cells, **close)
        assert frames.pbc.tolist() == [list(sample.pbc) if "pbc" in kept else [True] * 3] * count
