"""Studies from Python and from notebooks: what the commands do, with pandas frames as results.

    from study.api import Study

    study = Study.run("masking_ratio", seeds=[0, 1, 2], settings={"trial.finetune.epochs": 10})
    study.changes()                          # each arm's errors, and its change against scratch
    study.figures()                          # name -> matplotlib figure
    calculator = study.calculator()          # the best model in ASE

The command runs in a process of its own, so journal, results and resuming are the same, and an
interrupted cell leaves a study that `Study.run` continues. Units are eV, Å and eV/Å; frames name
theirs in `frame.attrs["units"]`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import pandas as pd

from study.console.command_line import SHIPPED
from study.console.progress_bar import in_notebook, study_bar
from study.core.errors import UserError
from study.core.paths import real_path
from study.core.quantities.metrics import METRICS
from study.core.signals import EXIT_FAILED, EXIT_UNFINISHED, EXIT_USAGE_ERROR
from study.space.overrides import parse_change
from study.space.search_space import Space
from study.space.search_space import load_space as _load_space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.records.study_tables import Study as Tables
    from study.inference.ase_calculator import StudyCalculator
    from study.inference.torch_sim_model import TorchSimModel
    from study.models.potential import Potential
    from study.planning.study_state import StudyState

Settings = Mapping[str, Any]
"""Dotted key of a space -> value, as with `--set`."""


def spaces() -> list[str]:
    """Names of the shipped search spaces."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_space(
    space: str | Path, profile: str | None = None, settings: Settings | None = None
) -> Space:
    """Read a search space and change some of its settings.

    Args:
        space: a YAML file, or the name of a shipped space.
        profile: which of its profiles; the default is `quick`, or the only one.
        settings: dotted key -> value over what the file says.

    Returns:
        The space: `settings`, and `grid()`, its trials.

    Raises:
        UserError: if something is wrong with it; its `problems` have file and line.
    """
    changes = [parse_change(text) for text in _assignments(settings)]
    return _load_space(str(space), profile, changes)


@dataclass(frozen=True)
class Study:
    """A study in its folder, finished or running.

    Args:
        folder: `OUT/studies/NAME`.

    Raises:
        UserError: if no study is there.
    """

    folder: Path

    def __post_init__(self) -> None:
        """Check that there is one."""
        object.__setattr__(self, "folder", real_path(Path(self.folder)))
        if not (self.folder / "study.json").is_file():
            raise UserError(f"{self.folder}: no study here; name OUT/studies/NAME")

    @classmethod
    def run(
        cls,
        space: str | Path,
        *,
        profile: str | None = None,
        seeds: Sequence[int] | None = None,
        settings: Settings | None = None,
        out: str | Path = "runs",
        name: str | None = None,
        progress: bool = True,
        options: Sequence[str] = (),
    ) -> Study:
        """Run a study, or continue it; what is finished is not repeated.

        Args:
            space: a YAML file, or the name of a shipped space.
            profile: which of its profiles; the command chooses by the machine.
            seeds: in place of the space's.
            settings: dotted key -> value over what the space says.
            out: folder of all results.
            name: of the study; that of the space when left out.
            progress: show a bar.
            options: further options of the command, such as `["--budget", "8h"]`.

        Raises:
            UserError: if the command refuses its input.
            RuntimeError: if it fails otherwise; completed work is kept.
            KeyboardInterrupt: if it is interrupted; run it again to continue.
        """
        words = [f"--space={space}", f"--out={out}", "--json", *options]
        words += [f"--profile={profile}"] * (profile is not None)
        words += [f"--seeds={','.join(map(str, seeds or []))}"] * (seeds is not None)
        words += [f"--name={name}"] * (name is not None)
        words += [word for text in _assignments(settings) for word in ("--set", text)]
        found = _run(words, progress=progress)
        return cls(found)

    @property
    def state(self) -> str:
        """Where the study stands: running, done, interrupted or failed."""
        return self._state().word

    def progress(self) -> pd.DataFrame:
        """A row per planned trial: number, label, status, epoch, epochs, value, best, reason.

        `value` and `best` are the metric by which the study ranks trials, in eV and Å. This reads
        the study's journal, also while another process runs it.
        """
        columns = ["number", "label", "status", "epoch", "epochs", "value", "best", "reason"]
        return pd.DataFrame([asdict(trial) for trial in self._state().trials], columns=columns)

    def front(self) -> pd.DataFrame:
        """The Pareto front of a search with several objectives: number, label and each of them."""
        rows = [
            {"number": trial.number, "label": trial.label} | trial.objectives
            for trial in self._state().front
        ]
        units = {name: METRICS[name][0] for row in rows for name in row if name in METRICS}
        return _with_units(pd.DataFrame(rows), units)

    def trials(self) -> pd.DataFrame:
        """A row per trial: its arm, every setting, final errors, compute, status and reason."""
        from analysis.comparisons.arms import arms

        tables = self._tables()
        return _with_units(arms(tables), tables.units)

    def curves(self) -> pd.DataFrame:
        """A row per epoch and metric: key, run_id, stage, epoch, metric, value (eV, Å)."""
        return self._tables().curves

    def changes(self) -> pd.DataFrame:
        """A row per error and arm: its mean over seeds, and its change against scratch.

        `unit` is that of mean and std; change, low and high are in per cent.
        """
        from analysis.comparisons.error_tables import final_errors

        return final_errors(self._tables())

    def verdicts(self) -> pd.DataFrame:
        """Every comparison of the report, with the interval that decides its verdict."""
        from analysis.html.verdict_table import verdict_table

        return verdict_table(self._tables())

    def figures(self) -> dict[str, Figure]:
        """The report's figures by name, which a notebook shows as pictures."""
        from analysis.html.page import FIGURES

        if in_notebook():
            from IPython import get_ipython
            from IPython.core.pylabtools import select_figure_formats

            # As `%matplotlib inline` does, which only knows figures of pyplot.
            select_figure_formats(get_ipython(), {"png"})
        tables = self._tables()
        made = [drawing for module in FIGURES for drawing in module.drawings(tables)]
        return {drawing.name: drawing.figure for drawing in made}

    def calculator(self, **options: Any) -> StudyCalculator:
        """The best model by validation as an ASE calculator; `options` as of `StudyCalculator`."""
        from study.inference.ase_calculator import StudyCalculator

        return StudyCalculator(self.folder, **options)

    def torch_sim_model(self, **options: Any) -> TorchSimModel:
        """The best model by validation for torch-sim, which moves many structures at once.

        It needs `pip install torch-sim-atomistic`; `options` as of `TorchSimModel`.
        """
        from study.inference.torch_sim_model import TorchSimModel

        return TorchSimModel(self.folder, **options)

    def model(self) -> Potential:
        """The best model by validation as a module on torch-geometric's `Data` and `Batch`.

        It takes graphs with the fields that `study.plugins` names and gives a `Prediction`: energy
        (G,) eV, to which `reference_energy(graph)` adds the atoms' own, and forces (N, 3) eV/Å.
        """
        from study.inference.predictor import TrainedModel
        from study.inference.trained_model import resolve_trained_model

        return TrainedModel(resolve_trained_model(self.folder)).model

    def _state(self) -> StudyState:
        from study.planning.study_state import study_state

        return study_state(self.folder.parent.parent, self.folder.name)

    def _tables(self) -> Tables:
        """The study's tables, which are written anew if the study has gone on since."""
        from analysis.records.export import export
        from analysis.records.study_tables import load

        written, journal = self.folder / "tables" / "tables.json", self.folder / "journal.jsonl"
        if not written.exists() or written.stat().st_mtime < journal.stat().st_mtime:
            export(str(self.folder))
        return load(self.folder / "tables")


def _assignments(settings: Settings | None) -> list[str]:
    """Settings as the command takes them; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]


def _with_units(frame: pd.DataFrame, units: Mapping[str, str]) -> pd.DataFrame:
    copy = frame.copy()
    copy.attrs["units"] = dict(units)
    return copy


def _run(words: list[str], *, progress: bool) -> Path:
    """Run the command, show its progress, and return the folder of its study."""
    folder = None
    with TemporaryFile("w+") as errors, study_bar(shown=progress) as advance:
        process = subprocess.Popen(
            [sys.executable, "-m", "study.run", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with _interrupted(process):
            assert process.stdout is not None
            for event in map(json.loads, process.stdout):
                folder = Path(event["folder"]) if event["event"] == "study" else folder
                advance(event)
            if process.wait() in (0, EXIT_FAILED):
                advance({"event": "complete"})
        errors.seek(0)
        told = errors.read().strip().splitlines()
    if process.returncode == EXIT_USAGE_ERROR:
        raise UserError(*told)
    if process.returncode not in (0, EXIT_FAILED, EXIT_UNFINISHED) or folder is None:
        raise RuntimeError(told[-1] if told else f"exit code {process.returncode}")
    return folder


@contextmanager
def _interrupted(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop the command in order if the block is left by an interrupt."""
    try:
        yield
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()
        raise
