"""Pieces of work: one pretraining, or one trial's finetuning, named by all it depends on.

Work whose verified result lies in its folder is never done again, whichever study asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from study.checkpoint import newest_state
from study.durable import write_json
from study.errors import UserError
from study.finished import RESULT, load_result
from study.identity import code_version, digest, without_places
from study.records import EpochRecord, StageName, WorkResult

if TYPE_CHECKING:
    from study.trial import Pretrained, Stage, Trial

Kind = Literal["pretrain", "trial"]

LOG = "log.txt"
"""In the folder of failed work: what its worker said last."""

OUT_OF_MEMORY = "out_of_memory"
"""The fact of a result that says why the same will fail again."""


@dataclass(frozen=True)
class Work:
    """A piece of work and its name.

    Args:
        kind: pretrain, or trial for the finetuning with its test.
        trial: the settings; a pretraining reads only part of them.
        data_hash: content hash of the data set.
        code: version of the code that decides the numbers; fixed when the work is planned.
        pretraining_data_hash: content hash of the data set to pretrain on, if it is another one.
    """

    kind: Kind
    trial: Trial
    data_hash: str
    code: str = field(default_factory=code_version)
    pretraining_data_hash: str | None = None

    @property
    def stage(self) -> StageName:
        """The stage it runs."""
        return "pretrain" if self.kind == "pretrain" else "finetune"

    @property
    def training(self) -> Stage:
        """The settings of the stage it runs.

        Raises:
            ValueError: if it runs none; see `start`.
        """
        stage = self.trial.pretraining if self.kind == "pretrain" else self.trial.finetune
        if stage is None:
            raise ValueError("a pretraining must have settings of a stage, but got none")
        return stage

    @property
    def start(self) -> Pretrained | None:
        """Where to take the weights from of a pretraining that was done before."""
        return self.trial.start if self.kind == "pretrain" else None

    @property
    def epochs(self) -> int:
        """Of the stage it runs."""
        return 0 if self.start else self.training.epochs

    @property
    def label(self) -> str:
        """The work in a few words."""
        pretrain, start = self.trial.pretraining, self.trial.start
        arm = pretrain.task.label if pretrain else f"from {start.name}" if start else "scratch"
        if pretrain and pretrain.dataset:
            file = getattr(pretrain.dataset, "path", None)
            arm += f" on {Path(file).name if file else pretrain.dataset.name}"
        auxiliary = getattr(self.trial.finetune.task, "auxiliary", None)
        if auxiliary and self.kind == "trial":
            arm += f" + {auxiliary.task.label}"
        stage = "pretrain " * (self.kind == "pretrain")
        return f"{stage}{self.trial.model.name} {arm}, seed {self.trial.seed}"

    @cached_property
    def pretraining(self) -> Work | None:
        """The pretraining that this trial starts from."""
        if self.kind == "pretrain" or self.trial.pretrain is None:
            return None
        data_hash = self.pretraining_data_hash or self.data_hash
        return replace(self, kind="pretrain", data_hash=data_hash, pretraining_data_hash=None)

    @cached_property
    def whole(self) -> Work:
        """The pretraining to the end of its schedule, which begins with this one; or itself.

        All that begin it share its checkpoints: a longer one goes on where a shorter one ended.
        """
        if self.kind == "trial" or self.start:
            return self
        schedule = self.training.schedule_epochs
        if schedule in (None, self.training.epochs):
            return self
        longest = self.training.model_copy(update={"epochs": schedule})
        return replace(self, trial=self.trial.model_copy(update={"pretrain": longest}))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What of the trial's settings this work depends on."""
        everything = self.trial.model_dump(mode="json")
        if self.start:
            return {key: everything[key] for key in ("model", "pretrain")}
        if self.kind == "pretrain":
            settings = {key: everything[key] for key in _PRETRAINING_DEPENDS_ON}
            own = settings["pretrain"].pop("dataset")
            return settings | ({"dataset": own} if own else {})
        return everything

    @cached_property
    def key(self) -> str:
        """SHA-256 of settings, data and code."""
        # The content of the frames counts, not where they came from.
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
        )

    def folder(self, root: Path) -> Path:
        """Where its weights and result are."""
        return root / "work" / f"{self.kind}-{self.key[:20]}"

    def checkpoints(self, root: Path) -> Path:
        """Where its checkpoints are."""
        return self.whole.folder(root)

    def to_json(self) -> dict[str, Any]:
        """For another process; see `from_json`."""
        trial = self.trial.model_dump(mode="json")
        return {
            "kind": self.kind,
            "trial": trial,
            "data_hash": self.data_hash,
            "code": self.code,
            "pretraining_data_hash": self.pretraining_data_hash,
            "key": self.key,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        from study.trial import Trial

        fields = dict(value) | {"trial": Trial.model_validate(value["trial"])}
        key = fields.pop("key", None)
        work = cls(**fields)
        if key is not None:
            # The name it once got; settings that have come up since would change it.
            vars(work)["key"] = key
        return work


_PRETRAINING_DEPENDS_ON = ("dataset", "split", "model", "pretrain", "seed")


@dataclass(frozen=True)
class Outcome:
    """What finished work left in its folder.

    Args:
        result: how it ended.
        history: one record per epoch.
        weights: file of the selected weights; none if it diverged.
        settings: that the work depended on; empty if nobody wrote them down.
    """

    result: WorkResult
    history: list[EpochRecord]
    weights: Path | None
    settings: dict[str, Any] = field(default_factory=dict)


def known_history(work: Work, root: Path) -> list[EpochRecord]:
    """Records of all epochs of finished work, or of those up to its newest checkpoint."""
    outcome = load_outcome(work.folder(root))
    if outcome is not None:
        return outcome.history
    state = newest_state(work.folder(root))
    history = state["history"] if state else []
    return [
        EpochRecord(work.stage, epoch, metrics) for epoch, metrics in enumerate(history, start=1)
    ]


def save_outcome(folder: Path, outcome: Outcome) -> None:
    """Write `result.json`, which makes the work finished."""
    value = {
        "result": asdict(outcome.result),
        "history": [asdict(record) for record in outcome.history],
        "weights": outcome.weights.name if outcome.weights else None,
        "settings": outcome.settings,
    }
    write_json(folder / RESULT, value | {"digest": digest(value)})


def save_oversized(folder: Path, result: WorkResult, size: Mapping[str, Any]) -> None:
    """Remember that work needs more memory than it had.

    Args:
        folder: of the work.
        result: how it failed.
        size: what it had.
    """
    write_json(folder / "oversized.json", {"result": asdict(result), "size": dict(size)})


def load_oversized(folder: Path, size: Mapping[str, Any]) -> WorkResult | None:
    """How work failed that had no more memory than there is now; none if it did not."""
    try:
        value = json.loads((folder / "oversized.json").read_bytes())
        return WorkResult(**value["result"]) if value["size"] == dict(size) else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def load_outcome(folder: Path) -> Outcome | None:
    """The outcome of finished work; none if it is unfinished or its file is damaged.

    Raises:
        OSError: if the file is there and cannot be read, which is no reason to do the work again.
    """
    value = load_result(folder)
    if value is None:
        return None
    weights = folder / value["weights"] if value["weights"] else None
    history = [EpochRecord(**record) for record in value["history"]]
    return Outcome(WorkResult(**value["result"]), history, weights, value.get("settings", {}))


def require_weights(work: Work, root: Path) -> Path:
    """The weights of work that others build on.

    Raises:
        UserError: if it is not there.
    """
    outcome = load_outcome(work.folder(root))
    if outcome is None or outcome.weights is None:
        raise UserError(
            f"{work.folder(root)}: no finished pretraining here; run the study again, or set "
            "`pretrain: null` to train from scratch"
        )
    return outcome.weights
