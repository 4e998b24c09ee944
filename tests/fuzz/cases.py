"""One damaged file or one command line, run by the real commands and judged."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from study.datasets.readers.detect import read_set
from tests.fuzz.command_lines import prepare
from tests.fuzz.damage import damage
from tests.fuzz.files import ALL, write_extxyz
from tests.fuzz.judge import misread
from tests.fuzz.process import Ended, in_child

FAULTS = ("traceback", "hang", "crash", "memory", "misread")


@dataclass(frozen=True)
class Case:
    """What came of one file or command line.

    Args:
        group: format of the file, or `command lines`.
        what: which damage, or the command line.
        answer: read, or refused in a line.
        fault: one of FAULTS, or nothing.
        ended: how the command did.
        detail: of a fault.
    """

    group: str
    what: str
    answer: str
    fault: str
    ended: Ended
    detail: str = ""


def run_case(job: partial[Case]) -> Case:
    """Run a case in a worker."""
    return job()


def import_commands() -> None:
    """Import in each worker what its forks need."""
    import study.commands.data
    import study.driver.run_study  # noqa: F401


def damaged_file(name: str, seed: int) -> Case:
    """Describe and write out a damaged file with the real commands, and compare its frames."""
    from study import data

    with tempfile.TemporaryDirectory() as place:
        folder, path = Path(place), Path(place) / name
        ALL[name](path)
        content, whole = path.read_bytes(), read_set(path)
        harm = damage(name, content, seed)
        path.write_bytes(harm.content)
        ended = in_child(lambda: data.main(["inspect", name]), folder)
        fault, detail = ended.fault, ""
        if path.read_bytes() != harm.content:
            fault, detail = "misread", "the file was changed"
        elif not fault and ended.code == 0 and not harm.within_a_value:
            at_a_frame = cut_at_a_frame(harm.content, content, name)
            detail = misread(read_set(path), whole, cut_at_a_frame=at_a_frame)
            # What is told is not silent.
            told = any(word in ended.shown for word in ("labels  ", "left out", "not read"))
            fault = "misread" if detail and not told else ""
        if not fault and ended.code not in (0, 2):
            fault, detail = "crash", f"exit code {ended.code}"
    return Case(name, f"{harm.kind} {seed}", _answer(ended), fault, ended, detail)


def cut_at_a_frame(damaged: bytes, content: bytes, name: str) -> bool:
    """Whether text ends where a frame does, as a shorter file would."""
    if not content.startswith(damaged):
        return False
    ends = {".extxyz": b"", ".data": b"end", ".sdf": b"$$$$", ".csv": b"", ".dump": b""}
    end = ends.get(Path(name).suffix)
    rest = content[len(damaged) :].lstrip(b"\n")
    begins = {".extxyz": b"3\n", ".data": b"begin", ".sdf": b"water", ".dump": b"ITEM: TIMESTEP"}
    return end is not None and (
        rest.startswith(begins.get(Path(name).suffix, b"0,0,")) and damaged.rstrip().endswith(end)
    )


def command_line(line: tuple[str, ...]) -> Case:
    """Run a command line in a folder of its own."""
    from study import data, run

    program, *arguments = line
    main = {"run": run.main, "data": data.main}[program]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_extxyz(folder / "water.extxyz")
        prepare(folder)
        ended = in_child(lambda: main(list(arguments)), folder)
    fault = ended.fault
    detail = "" if ended.code in (0, 2, 71) else f"exit code {ended.code}"
    if detail and not fault:
        fault = "crash"
    shown = " ".join(each if len(each) < 40 else f"{each[:40]}…" for each in line)
    return Case("command lines", ascii(shown)[1:-1], _answer(ended), fault, ended, detail)


def _answer(ended: Ended) -> str:
    return {0: "accepted", 2: "refused", 71: "refused"}.get(ended.code or 0, "other")
