"""What a study is going to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from study.core.hashing import digest
from study.core.provenance import cores, gpus
from study.core.records import RESULT, Tag, as_markdown
from study.datasets.config import DatasetConfig
from study.datasets.prepare import folder_of, seconds_to_make, sizes_of
from study.datasets.sizes import Sizes
from study.planning.cost_model import stage_seconds
from study.planning.prepared_data import DataSets
from study.planning.stages import one_per_pretraining, stages
from study.planning.study_dir import StudyDir
from study.planning.test_parts import shared_tests
from study.scheduling.journal import Journal
from study.scheduling.proposals.former_trials import Former, learn
from study.scheduling.proposals.tuned_grid import TunedArm, tuned_arms
from study.space.distributions import listed
from study.space.pretrained import remarks_on_starts
from study.space.search.population import Counts
from study.space.search_space import Space
from study.space.trial import Trial
from study.space.tuning import identity_of_arm, with_values
from study.training.config import Stage


@dataclass(frozen=True)
class Plan:
    """A space with the place where its study lives.

    Args:
        space: what to study.
        root: folder of all work.
        name: of the study.
        tracking_uri: of MLflow.
        most_at_once: trials; as many as fit when left out.
        audit: how many trials that were stopped early to finish at the end.
        read: sizes of files that were read for the plan alone, and of which nothing is kept.
    """

    space: Space
    root: Path
    name: str
    tracking_uri: str
    most_at_once: int | None = None
    audit: int = 0
    read: dict[DatasetConfig, Sizes] = field(default_factory=dict, compare=False)

    @property
    def folder(self) -> StudyDir:
        """The study's own files."""
        return StudyDir(self.root, self.name)

    @cached_property
    def grid(self) -> list[Trial]:
        """All trials of a grid, those that tune first; none of a search is known beforehand."""
        return [] if self.space.settings.search else [*self.tuning, *self.reported]

    @cached_property
    def tuning(self) -> list[Trial]:
        """The trials that choose values for the arms of a grid, and enter no comparison."""
        return [trial for trial, _ in self.space.tuning()]

    @cached_property
    def reported(self) -> list[Trial]:
        """The trials of a grid that are compared, with what was chosen as far as it is known."""
        if self.space.settings.search:
            return []
        chosen = {identity: arm.chosen for identity, arm in self.tuned_arms.items()}
        if not chosen:
            return self.space.grid()
        grid = [(trial, chosen.get(self.arm_of(trial)) or {}) for trial in self.space.grid()]
        return [with_values(trial, own) if own else trial for trial, own in grid]

    @property
    def untuned(self) -> list[Trial]:
        """The trials that are compared, as the space says them; none without `tune`."""
        return self.space.grid() if self.space.settings.tune else []

    @cached_property
    def tuned_arms(self) -> dict[str, TunedArm]:
        """What the journal knows of the tuning of each arm; nothing without `tune`."""
        if self.space.settings.tune is None:
            return {}
        journal = Journal(self.folder.journal, self.space.settings.metric)
        return tuned_arms(self.space, journal.entries())

    @cached_property
    def former(self) -> Former | None:
        """What a search learns from a former study: what it learned when it began, if it has."""
        search = self.space.settings.search
        if search is None or search.learn_from is None:
            return None
        if self.folder.has_begun():
            return Former.read(self.folder.path)
        return learn(self.space, self.root)

    def arm_of(self, trial: Trial) -> str:
        """Identity of the arm of a trial, whatever was chosen for it; empty without `tune`."""
        tune = self.space.settings.tune
        return identity_of_arm(trial, tune.each_arm) if tune else ""

    def _is_undecided(self, trial: Trial, stage: Stage) -> bool:
        """Whether a stage depends on values that are not chosen yet."""
        tune = self.space.settings.tune
        if tune is None or trial.seed == tune.seed:
            return False
        arm = self.tuned_arms.get(self.arm_of(trial))
        if arm is not None and arm.chosen is not None:
            return False
        return stage is trial.finetune or any(
            name.startswith("pretrain.") for name in tune.each_arm
        )

    @cached_property
    def typical(self) -> Trial:
        """A trial that stands for the proposals of a search."""
        pretrained = [trial for trial in self.space.samples if trial.pretraining is not None]
        return (pretrained or self.space.samples)[0]

    @property
    def longest_finetuning(self) -> int:
        """Epochs."""
        return max(trial.finetune.epochs for trial in self.space.samples)

    @cached_property
    def datasets(self) -> list[DatasetConfig]:
        """Every data set that some trial uses."""
        trials = self.grid or self._samples_of_all_seeds
        return list(dict.fromkeys(dataset for trial in trials for dataset in trial.datasets))

    @property
    def _samples_of_all_seeds(self) -> list[Trial]:
        """What a search may propose, and repeat with its seeds."""
        seeds = self.space.settings.seeds
        return [
            sample.model_copy(update={"seed": seed})
            for sample in self.space.samples
            for seed in seeds
        ]

    @cached_property
    def counts(self) -> Counts:
        """How many trials there will be; of a search, at most."""
        search, seeds = self.space.settings.search, self.space.settings.seeds
        if search is None:
            return Counts(len(self.grid))
        copies = len(seeds) * (1 + self.repeats_from_scratch)
        return search.counts(self.longest_finetuning, copies)

    @property
    def trials(self) -> int:
        """How many there will be; of a search, at most."""
        return self.counts.trials

    @property
    def repeats_from_scratch(self) -> bool:
        """Whether a search repeats its best from scratch, too: not what is from scratch itself."""
        pretrained = any(trial.pretrain is not None for trial in self.space.samples)
        return self.space.settings.baseline and pretrained

    @cached_property
    def pretrainings(self) -> list[Trial]:
        """One trial for each different pretraining of `grid`."""
        return one_per_pretraining(self.grid)

    @property
    def pretraining_stages(self) -> list[tuple[Trial, Stage]]:
        """The same, with its stage."""
        return [(trial, trial.pretraining) for trial in self.pretrainings if trial.pretraining]

    @property
    def stages(self) -> list[tuple[Trial, Stage]]:
        """Every stage that will run; a search counts as if nothing were stopped early."""
        proposals = self.counts.trainings - len(self.grid)
        proposed = [(self.typical, stage) for stage in self.typical.stages] * proposals
        return stages(self.grid) + proposed

    @cached_property
    def known(self) -> DataSets:
        """The data sets that are there already."""
        folders = {dataset: folder_of(dataset, self.root) for dataset in self.datasets}
        return DataSets({each: folder for each, folder in folders.items() if folder.exists()})

    def is_done(self, trial: Trial, stage: Stage) -> bool:
        """Whether a stage of a trial has a result, by this study or another."""
        if self._is_undecided(trial, stage):
            return False
        if not self.known.prepared.keys() >= set(trial.datasets):
            return False
        work = self.known.work(trial)
        piece = work if stage is trial.finetune else work.pretraining
        return piece is not None and (piece.folder(self.root) / RESULT).exists()

    @cached_property
    def over(self) -> int:
        """Trials of a search that have ended, as its journal knows."""
        if self.grid:
            return 0
        journal = Journal(self.folder.journal, self.space.settings.metric)
        return sum(entry.over for entry in journal.entries().values())

    @cached_property
    def left(self) -> list[tuple[Trial, Stage]]:
        """Stages of a grid that are not done and that some trial needs."""
        undone = [trial for trial in self.grid if not self.is_done(trial, trial.finetune)]
        return [stage for stage in stages(undone) if not self.is_done(*stage)]

    @property
    def seconds(self) -> float:
        """Expected compute of all stages; trials on a file not yet read count as nothing."""
        return sum(self.seconds_of(trial, stage) for trial, stage in self.stages)

    def sizes_of(self, dataset: DatasetConfig) -> Sizes | None:
        """How much a data set holds; of a file, nothing before it is read."""
        return self.read.get(dataset) or sizes_of(dataset, self.root)

    def seconds_of(self, trial: Trial, stage: Stage) -> float:
        """Expected compute of one stage; nothing while its data set is not known."""
        sizes = self.sizes_of(trial.dataset_of(stage))
        return stage_seconds(trial, stage, sizes) if sizes else 0.0

    @property
    def slots(self) -> int:
        """Trials that run at once on this machine."""
        resources = self.space.settings.resources
        fitting = cores() // resources.total_cpus
        if gpus() and resources.gpus:
            fitting = min(fitting, int(len(gpus()) / resources.total_gpus))
        return max(1, min(fitting, self.most_at_once or fitting))

    def tags(self, study: str) -> dict[str, str]:
        """Tags of the MLflow run of the study with this id."""
        return {
            Tag.KEY: digest(["study", self.name, study]),
            Tag.PROFILE: self.space.profile,
            Tag.QUESTION: self.space.settings.question,
            Tag.SPACE: json.dumps(self.space.resolved()),
            Tag.NOTE: as_markdown(self.space.settings.question),
            Tag.WARNING: "; ".join(self.warnings),
        }

    @property
    def seconds_of_making(self) -> float:
        """Expected time until all data sets are made or read."""
        return sum(map(self.seconds_to_make, self.datasets))

    @property
    def warnings(self) -> list[str]:
        """What whoever reads the results should know."""
        remarks = remarks_on_starts(self.space.samples, self.space.settings.seeds)
        trials = self.reported or self._samples_of_all_seeds
        shared = shared_tests(trials, lambda dataset: sizes_of(dataset, self.root))
        return list(dict.fromkeys([*remarks, *shared, *self._untuned_baseline()]))

    def _untuned_baseline(self) -> Iterator[str]:
        """Say what the baseline of a search takes over from pretrained trials, if it does."""
        search = self.space.settings.search
        if search is None or not search.repeat_best or not self.repeats_from_scratch:
            return
        names = [name for name, _ in listed(self.space.body) if name.startswith("finetune.")]
        if names:
            yield (
                "the baseline from scratch is not tuned: it takes the values of "
                f"{' and '.join(names)} that were chosen for the pretrained trial; a grid with "
                "`tune:` tunes both alike"
            )

    def seconds_to_make(self, dataset: DatasetConfig) -> float:
        """Expected time until one is; nothing if it is there."""
        made = folder_of(dataset, self.root).exists()
        return 0.0 if made else seconds_to_make(dataset, self.root, cores())
