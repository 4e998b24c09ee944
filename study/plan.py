"""What a study is going to do."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from study.datasets import folder_of, seconds_to_make
from study.estimate import duration, stage_seconds
from study.frames import verified_header
from study.identity import digest
from study.provenance import gpus
from study.records import Tag
from study.space import Space
from study.study_folder import StudyFolder
from study.trial import Dataset, Stage, Trial


def cores() -> int:
    """Processor cores that this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


@dataclass(frozen=True)
class Plan:
    """A space with the place where its study lives.

    Args:
        space: what to study.
        root: folder of all work.
        name: of the study.
        tracking_uri: of MLflow.
    """

    space: Space
    root: Path
    name: str
    tracking_uri: str

    @property
    def folder(self) -> StudyFolder:
        """The study's own files."""
        return StudyFolder(self.root, self.name)

    @cached_property
    def grid(self) -> list[Trial]:
        """All trials of a grid; none of a search is known beforehand."""
        return [] if self.space.settings.search else self.space.grid()

    @cached_property
    def typical(self) -> Trial:
        """A trial that stands for the proposals of a search."""
        pretrained = [trial for trial in self.space.samples if trial.pretrain is not None]
        return (pretrained or self.space.samples)[0]

    @property
    def longest_finetuning(self) -> int:
        """Epochs."""
        return max(trial.finetune.epochs for trial in self.space.samples)

    @property
    def dataset(self) -> Dataset:
        """The data set of all trials."""
        return self.typical.dataset

    @cached_property
    def trials(self) -> int:
        """How many trials there will be; of a search, at most."""
        settings, search = self.space.settings, self.space.settings.search
        if search is None:
            return len(self.grid)
        seeds = len(settings.seeds)
        per_repeat = seeds - 1 + (seeds if settings.baseline else 0)
        return search.trials + min(search.repeat_best, search.trials) * per_repeat

    @cached_property
    def pretrainings(self) -> list[Trial]:
        """One trial for each different pretraining of `grid`."""
        unique = {
            digest([trial.model_dump(exclude={"finetune", "transfer"}, mode="json")]): trial
            for trial in self.grid
            if trial.pretrain is not None
        }
        return list(unique.values())

    @cached_property
    def seconds(self) -> float:
        """Expected compute of all stages; a search counts as if nothing were stopped early."""
        work: list[tuple[Trial, Stage | None]] = [(trial, trial.finetune) for trial in self.grid]
        work += [(trial, trial.pretrain) for trial in self.pretrainings]
        proposals = self.trials - len(self.grid)
        work += [(self.typical, self.typical.finetune)] * proposals
        work += [(self.typical, self.typical.pretrain)] * proposals
        return sum(stage_seconds(trial, stage) for trial, stage in work if stage is not None)

    @property
    def slots(self) -> int:
        """Trials that run at once on this machine."""
        resources = self.space.settings.resources
        fitting = cores() // resources.cpus
        if gpus() and resources.gpus:
            fitting = min(fitting, int(len(gpus()) / resources.gpus))
        return max(1, fitting)

    def check(self) -> None:
        """Refuse what would mix numbers: a changed study, or a damaged data set.

        Raises:
            UserError: naming what changed or is damaged.
        """
        self.folder.check(self.space)
        frames = folder_of(self.dataset, self.root)
        if frames.exists():
            verified_header(frames)

    def tags(self) -> dict[str, str]:
        """Of the study's MLflow run."""
        return {
            Tag.KEY: digest(["study", self.name]),
            Tag.PROFILE: self.space.profile,
            Tag.QUESTION: self.space.settings.question,
            Tag.SPACE: json.dumps(self.space.resolved()),
            "mlflow.note.content": self.space.settings.question,
        }

    def show(self, console: Console) -> None:
        """Tell the user, in a few lines, what comes."""
        typical, settings = self.typical, self.space.settings
        console.print(f"[bold]{settings.question}[/bold]")
        console.print(f"  trials   {self._trials_in_words()}")
        stages = f"{typical.finetune.epochs} epochs finetuning"
        if typical.pretrain is not None:
            stages = f"{typical.pretrain.epochs} epochs pretraining ({self._shared()}), {stages}"
        console.print(f"  stages   {stages}")
        made = folder_of(self.dataset, self.root).exists()
        time_for_data = 0.0 if made else seconds_to_make(self.dataset, cores())
        here = "made already" if made else f"made here, about {duration(time_for_data)}"
        console.print(f"  data     {self.dataset.label}; {here}")
        console.print(f"  results  {self.folder.path}")
        wall = self.seconds / self.slots
        parallel = f"{self.slots} trials at a time on {self._machine()}"
        if gpus():
            console.print(f"  time     {parallel}; known after the first epochs")
        else:
            console.print(f"  time     about {duration(wall + time_for_data)}, {parallel}")

    def _trials_in_words(self) -> str:
        settings = self.space.settings
        seeds = f"{len(settings.seeds)} seeds"
        if settings.search is None:
            arms = self.trials // len(settings.seeds)
            return f"{self.trials}: {arms} arms × {seeds}"
        return (
            f"{settings.search.trials} proposed by Optuna ({settings.search.sampler})"
            + (", ASHA stops early" if settings.early_stopping else "")
            + f"; then the best {settings.search.repeat_best} with {seeds}"
            + (", also from scratch" if settings.baseline else "")
            + f": {self.trials} in all"
        )

    def _shared(self) -> str:
        count = len(self.pretrainings)
        return "each run once and shared" if self.space.settings.search else f"{count} in all"

    def _machine(self) -> str:
        return ", ".join(gpus()) if gpus() else f"{cores()} cores"
