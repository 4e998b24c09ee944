"""Torn and bit-flipped files are noticed, replaced, and the user is told; never read as whole."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from study.core.atomic_io import write_hashed
from study.core.errors import UserError
from study.core.records import RESULT, EpochRecord, JobResult
from study.datasets.frames import Frames
from study.pipeline.outcome import Outcome, load_outcome, save_outcome
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.training import program_cache
from study.training.checkpoint import Checkpoint, newest_checkpoint, newest_state, save_checkpoint
from tests.faults.cases import Undisturbed, again, disturb, listening, undisturbed
from tests.faults.disk import FaultyDisk
from tests.faults.mini import Mini
from tests.faults.server import Server

TORN, FLIPPED, SEED = 50, 100, 6


def damaged(content: bytes) -> Iterator[bytes]:
    """The content cut off at many places, and with one bit flipped at many."""
    rng = random.Random(SEED)
    for place in rng.sample(range(len(content)), min(TORN, len(content))):
        yield content[:place]
    for _ in range(FLIPPED):
        place = rng.randrange(len(content))
        yield (
            content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        )


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_the_user_is_told(
    tmp_path: Path,
) -> None:
    tensors = {"model.weight": torch.arange(40.0), "optimizer.0.step": torch.tensor(3.0)}
    save_checkpoint(tmp_path, Checkpoint(1, tensors, {"history": [1]}))
    save_checkpoint(tmp_path, Checkpoint(2, tensors, {"history": [1, 2]}))
    newest = max(tmp_path.iterdir())
    for content in damaged(newest.read_bytes()):
        newest.write_bytes(content)
        with listening() as told:
            assert newest_state(tmp_path) == {"history": [1]}
        assert told == [f"{newest}: damaged, skipped"]
        with listening() as told:
            found = newest_checkpoint(tmp_path)
        assert found is not None
        assert (found.epoch, found.state) == (1, {"history": [1]})
        assert told == [f"{newest}: damaged; training resumes from an earlier checkpoint"]
        assert not newest.exists()


RECORDS = [EpochRecord("finetune", 1, {"val_force_rmse": math.inf, "seconds": 0.1})]


@pytest.mark.parametrize("pattern", ["result.json", "weights-*"])
def test_a_damaged_result_is_none(tmp_path: Path, pattern: str) -> None:
    weights = write_hashed(tmp_path, "weights", ".safetensors", bytes(range(200)))
    whole = Outcome(JobResult("completed", "", {"test": 0.5}, {"split": "a"}), RECORDS, weights)
    save_outcome(tmp_path, whole)
    (file,) = tmp_path.glob(pattern)
    unread = 0
    for content in damaged(file.read_bytes()):
        file.write_bytes(content)
        outcome = load_outcome(tmp_path)
        # White space and the like may change without changing what is said.
        assert outcome is None or (pattern == "result.json" and outcome == whole)
        unread += outcome is None
    assert unread > 0.8 * (TORN + FLIPPED)


def refusal(folder: Path) -> str:
    """Why the frames cannot be read; empty if they can."""
    try:
        Frames.load(folder)
    except UserError as problem:
        return str(problem)
    return ""


def test_frames_with_a_damaged_file_are_refused_naming_it(water: Frames, tmp_path: Path) -> None:
    folder = tmp_path / "water"
    water.save(folder)
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for content in damaged(whole):
            file.write_bytes(content)
            problem = refusal(folder)
            # White space in the header may change without changing what is said.
            assert str(file) in problem or (not problem and file.name == "frames.json")
        file.write_bytes(whole)


def test_damaged_compiled_code_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = SimpleNamespace(accepts=lambda _batch: True)
    compiled, unpacked = [], []
    monkeypatch.setattr(program_cache, "_key", lambda *_: "key")
    monkeypatch.setattr(program_cache, "compile_program", lambda *_: compiled.append(1) or program)
    monkeypatch.setattr(program_cache, "_pack", lambda _: bytes(range(256)))
    monkeypatch.setattr(
        program_cache, "_unpack", lambda content, _: unpacked.append(content) or program
    )
    term: Any = SimpleNamespace(batch=None)
    model: Any = None
    program_cache.load_or_compile(model, term, tmp_path)
    (file,) = tmp_path.glob("*.zip")
    for number, content in enumerate(damaged(file.read_bytes()), start=2):
        file.write_bytes(content)
        program_cache.load_or_compile(model, term, tmp_path)
        assert len(compiled) == number
        assert not unpacked
    program_cache.load_or_compile(model, term, tmp_path)
    assert unpacked == [bytes(range(256))]


def test_compiled_code_of_somebody_else_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = SimpleNamespace(accepts=lambda _batch: True)
    compiled: list[int] = []
    monkeypatch.setattr(program_cache, "_key", lambda *_: "key")
    monkeypatch.setattr(program_cache, "compile_program", lambda *_: compiled.append(1) or program)
    monkeypatch.setattr(program_cache, "_pack", lambda _: b"code")
    unpacked: list[bytes] = []
    monkeypatch.setattr(
        program_cache, "_unpack", lambda content, _: unpacked.append(content) or program
    )
    term: Any = SimpleNamespace(batch=None)
    model: Any = None
    for _ in range(2):
        program_cache.load_or_compile(model, term, tmp_path)
    assert (len(compiled), unpacked) == (1, [b"code"])
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    program_cache.load_or_compile(model, term, tmp_path)
    assert (len(compiled), unpacked) == (2, [b"code"])


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The study, run without any fault."""
    return undisturbed(tmp_path_factory.mktemp("damage"))


def test_a_damaged_line_of_the_journal_changes_no_other(usual: Undisturbed, tmp_path: Path) -> None:
    whole = usual.folder / "undisturbed" / "studies" / "mini" / "journal.jsonl"
    expected = Journal(whole, "val_force_rmse").entries()
    path = tmp_path / "journal.jsonl"
    for content in damaged(whole.read_bytes()):
        path.write_bytes(content)
        with listening() as told:
            found = Journal(path, "val_force_rmse").entries()
        assert told or content.count(b"\n") < whole.read_bytes().count(b"\n")
        for number, entry in found.items():
            known = expected[number]
            assert entry.planned == known.planned
            assert entry.values == known.values[: len(entry.values)]
            assert entry.result in (None, known.result)


def test_a_damaged_description_of_a_study_is_refused(usual: Undisturbed, tmp_path: Path) -> None:
    whole = usual.folder / "undisturbed" / "studies" / "mini" / "study.json"
    folder = StudyDir(tmp_path, "mini")
    path = folder.path / "study.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(whole.read_bytes())
    known = folder.recorded_space().resolved()
    refused = 0
    for content in damaged(whole.read_bytes()):
        path.write_bytes(content)
        try:
            found = folder.recorded_space().resolved()
        except UserError:
            refused += 1
        else:
            # White space may change without changing what is said.
            assert found == known
    assert refused > 0.8 * (TORN + FLIPPED)


def written(file: Path) -> int:
    return file.stat().st_mtime_ns


def is_needed(file: Path, root: Path) -> bool:
    """Whether the next run of the study reads a file, or writes it anew unseen."""
    if file.name.startswith("weights"):
        return (file.parent / RESULT).exists()
    if file.name.startswith("epoch") and (file.parent / RESULT).exists():
        return False
    journal = root / "studies" / "mini" / "journal.jsonl"
    stopped = Journal(journal, "val_force_rmse").stopped()
    return file.parent not in {Path(root, "work", f"trial-{key[:20]}") for key in stopped}


PLACES = ("data/*.partial/*/*.piece", "work/*/epoch-*", "work/*/weights-*", "work/*/result.json",
          "studies/*/journal.jsonl", "compiled/*.zip")  # fmt: skip


@pytest.mark.parametrize("pattern", PLACES)
def test_a_study_finds_its_damaged_files_and_says_so(usual: Undisturbed, pattern: str) -> None:
    rng = random.Random(f"{SEED} {pattern}")
    root, seen = usual.folder / "disturbed", 0
    for _ in range(6):
        early = "partial" in pattern
        step = rng.randrange(30, 90) if early else rng.randrange(usual.steps // 2, usual.steps)
        mini = Mini(usual.space, root, Server())
        try:
            disturb(mini, FaultyDisk(step))
            files = [file for file in sorted(root.glob(pattern)) if is_needed(file, root)]
            # Older checkpoints are not read at all.
            newest = "epoch" in pattern
            for file in (
                sorted(files, key=written)[-1:] if newest else rng.sample(files, bool(files))
            ):
                content = file.read_bytes()
                place = rng.randrange(len(content) - 1)
                flipped = bytes([content[place] ^ 1 << rng.randrange(8)])
                file.write_bytes(content[:place] + flipped + content[place + 1 :])
                seen += 1
            with listening() as told:
                problems = again(mini, usual)
            assert not problems, f"{pattern}, step {step}: {problems}"
            assert told or not files or "compiled" in pattern
        finally:
            shutil.rmtree(root, ignore_errors=True)
    assert seen >= 3
