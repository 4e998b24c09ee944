"""Jobs: one pretraining, or one trial's finetuning, named by a hash of all it depends on.

A job with a verified result in its folder is never run again, whichever study needs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from study.core.errors import printable
from study.core.hashing import code_version, digest, without_places
from study.core.records import StageName
from study.space.trial import Pretrained, Trial

if TYPE_CHECKING:
    from study.training.config import Stage

Kind = Literal["pretrain", "trial"]

NAME = re.compile(r"[^/\\\0]+")
"""Any key, also of an older version."""


@dataclass(frozen=True)
class Segment:
    """A part of a finetuning, which a chain of jobs does with settings that may change between.

    The job at the end of a chain trains nothing, and tests: nothing before it sees test frames.

    Args:
        begin: epochs of finetuning that the jobs before it have done.
        until: epochs that are done at its end.
        parent: key of the job that it continues; None at the begin of a chain.
    """

    begin: int
    until: int
    parent: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Restore a segment from the JSON of a job.

        Raises:
            ValueError: if it is none: others may have written it, and it names a folder.
        """
        segment = cls(**value)
        numbers = [type(each) is int for each in (segment.begin, segment.until)]
        named = segment.parent is None or NAME.fullmatch(str(segment.parent)) is not None
        if not all(numbers) or not 0 <= segment.begin <= segment.until or not named:
            raise ValueError(f"`segment` must be a part of a finetuning, but got {dict(value)!r}")
        return segment


@dataclass(frozen=True)
class Job:
    """One unit of training, and the hash that identifies it.

    Args:
        kind: pretrain, or trial for the finetuning with its test.
        trial: the settings; a pretraining reads only part of them.
        data_hash: content hash of the data set.
        code: version of the code that decides the numbers; fixed when the job is planned.
        pretraining_data_hash: content hash of the data set to pretrain on, if it is another one.
        segment: the part of the finetuning that it does; None for all of it.
    """

    kind: Kind
    trial: Trial
    data_hash: str
    code: str = field(default_factory=code_version)
    pretraining_data_hash: str | None = None
    segment: Segment | None = None

    @property
    def stage(self) -> StageName:
        """Name of the stage that it runs."""
        return "pretrain" if self.kind == "pretrain" else "finetune"

    @property
    def training(self) -> Stage:
        """Settings of the stage that it runs.

        Raises:
            ValueError: if it runs none, because its weights are pretrained; see `start`.
        """
        stage = self.trial.pretraining if self.kind == "pretrain" else self.trial.finetune
        if stage is None:
            raise ValueError("a pretraining must have settings of a stage, but got none")
        return stage

    @property
    def start(self) -> Pretrained | None:
        """Pretrained weights that take the place of this pretraining; None to train."""
        return self.trial.start if self.kind == "pretrain" else None

    @property
    def epochs(self) -> int:
        """Number of epochs of the stage that are done at its end."""
        if self.segment is not None:
            return self.segment.until
        return 0 if self.start else self.training.epochs

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a finetuning, from whose last checkpoint others go on."""
        return self.segment is not None and self.segment.begin < self.segment.until

    def checkpoints_kept(self, status: str) -> int:
        """How many checkpoints stay when it has ended; others go on from the last one of a part."""
        return int(self.is_part and status == "completed")

    @property
    def inherited(self) -> int:
        """Epochs of its history that are reported by the parts that it continues, not by it."""
        return self.segment.begin if self.segment is not None and self.is_part else 0

    @property
    def label(self) -> str:
        """Short description for people."""
        pretrain, start = self.trial.pretraining, self.trial.start
        arm = pretrain.task.label if pretrain else start.label if start else "scratch"
        if pretrain and pretrain.dataset:
            file = getattr(pretrain.dataset, "path", None)
            arm += f" on {Path(file).name if file else pretrain.dataset.name}"
        auxiliary = getattr(self.trial.finetune.task, "auxiliary", None)
        if auxiliary and self.kind == "trial":
            arm += f" + {auxiliary.task.label}"
        stage = "pretrain " * (self.kind == "pretrain")
        return printable(f"{stage}{self.trial.model.name} {arm}, seed {self.trial.seed}")

    @cached_property
    def pretraining(self) -> Job | None:
        """Job of the pretraining that this trial starts from; None from scratch."""
        if self.kind == "pretrain" or self.trial.pretrain is None:
            return None
        data_hash = self.pretraining_data_hash or self.data_hash
        pretraining = replace(self, kind="pretrain", data_hash=data_hash, segment=None)
        return replace(pretraining, pretraining_data_hash=None)

    @cached_property
    def full_schedule(self) -> Job:
        """The pretraining to the end of its schedule, of which this one is the first part.

        All parts share its checkpoints: a longer one resumes where a shorter one ended. A job
        without `schedule_epochs` is its own full schedule.
        """
        if self.kind == "trial" or self.start:
            return self
        schedule = self.training.schedule_epochs
        if schedule in (None, self.training.epochs):
            return self
        longest = self.training.model_copy(update={"epochs": schedule})
        return replace(self, trial=self.trial.model_copy(update={"pretrain": longest}))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the trial on which this job depends, as JSON values; made anew."""
        everything = self.trial.model_dump(mode="json")
        if self.start:
            return {key: everything[key] for key in ("model", "pretrain")}
        if self.kind == "pretrain":
            settings = {key: everything[key] for key in _PRETRAINING_SETTINGS}
            own = settings["pretrain"].pop("dataset")
            return settings | ({"dataset": own} if own else {})
        return everything

    @cached_property
    def key(self) -> str:
        """SHA-256 of settings, data and code, which identifies the job."""
        # Data and plugins are identified by their content, not by their paths.
        content = without_places(self.settings)
        settings = {name: value for name, value in content.items() if name != "dataset"}
        if self.kind == "trial":
            settings.pop("pretrain")
            if self.pretraining is None:
                settings.pop("transfer")
        return digest(
            {
                "kind": self.kind,
                "settings": settings,
                "pretraining": self.pretraining.key if self.pretraining else None,
                "data": None if self.start else self.data_hash,
                "code": self.code,
            }
            | ({"package": self.trial.model.package_version()} if self.trial.model.package else {})
            | ({"segment": asdict(self.segment)} if self.segment else {})
        )

    def folder(self, root: Path) -> Path:
        """Folder of its weights and result."""
        return root / "work" / f"{self.kind}-{self.key[:20]}"

    def parent_folder(self, root: Path) -> Path | None:
        """Folder of the job that it continues, with that job's last checkpoint."""
        parent = self.segment.parent if self.segment else None
        return root / "work" / f"trial-{parent[:20]}" if parent else None

    def checkpoints(self, root: Path) -> Path:
        """Folder of its checkpoints, which jobs of one schedule share."""
        return self.full_schedule.folder(root)

    def to_json(self) -> dict[str, Any]:
        """Serialize the job for another process; see `from_json`."""
        trial = self.trial.model_dump(mode="json")
        return {
            "kind": self.kind,
            "trial": trial,
            "data_hash": self.data_hash,
            "code": self.code,
            "pretraining_data_hash": self.pretraining_data_hash,
            "key": self.key,
            **({"segment": asdict(self.segment)} if self.segment else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Restore a job from `to_json`."""
        fields = dict(value) | {"trial": Trial.model_validate(value["trial"])}
        key = fields.pop("key", None)
        if fields.get("segment") is not None:
            fields["segment"] = Segment.from_json(fields["segment"])
        job = cls(**fields)
        # Both name folders that are written to, and others may have written them.
        given = (each for each in (key, job.pretraining_data_hash) if each is not None)
        texts = all(isinstance(each, str) for each in (job.data_hash, job.code, *given))
        named = texts and NAME.fullmatch(str(key)) is not None
        if job.kind not in get_args(Kind) or not named:
            raise ValueError(f"`kind` and `key` must name a job, but got {job.kind!r}, {key!r}")
        if key is not None:
            # Keeps the recorded key: settings added to the code since would change it.
            vars(job)["key"] = key
        return job


_PRETRAINING_SETTINGS = ("dataset", "split", "model", "pretrain", "seed")
