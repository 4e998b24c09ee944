"""Checks of GPU, threads, packages and the temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.checks import machine
from study.checks.finding import Environment, Finding
from study.core import paths, provenance
from study.doctor import CHECKS


def environment(
    out: Path, tracking_uri: str | None = None, address: str | None = None
) -> Environment:
    return Environment(out, tracking_uri, address)


def run_named_check(name: str, out: Path, **options: str) -> Finding:
    return CHECKS[name](environment(out, **options))


def test_a_gpu_that_torch_cannot_use_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "nvidia_gpus", lambda: ("NVIDIA H200",))
    monkeypatch.setattr(machine, "version", lambda _name: "2.13.0+cpu")
    finding = run_named_check("GPU", tmp_path)
    assert (finding.state, finding.found) == (
        "warning",
        "NVIDIA H200, but torch 2.13.0+cpu is built without CUDA",
    )


def test_more_threads_than_cores_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    finding = run_named_check("cores", tmp_path)
    assert finding.fix.startswith(f"export OMP_NUM_THREADS={provenance.cores()}")


def test_missing_and_old_packages_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "requires", lambda _name: ["numpy>=999", "nosuchpackage", "rich"])
    finding = run_named_check("packages", tmp_path)
    assert finding.state == "failed"
    assert "nosuchpackage is missing" in finding.found
    assert "is not >=999" in finding.found


def test_a_broken_package_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(machine.FIRST_STEPS, "ray", "raise ImportError('libmissing.so')")
    finding = run_named_check("ray works", tmp_path)
    assert (finding.state, finding.found) == ("failed", "ImportError: libmissing.so")


def test_a_long_temporary_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LONGEST_SOCKET", 40)
    assert run_named_check("temporary folder", tmp_path).fix == "export TMPDIR=/tmp"
