"""Data sets of a study that are ready to be read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from study.datasets.config import DatasetConfig
from study.datasets.parsing.header import read_header
from study.pipeline.job import Job
from study.space.trial import Trial


@dataclass(frozen=True)
class DataSets:
    """The data sets of a study, ready to be read.

    Args:
        prepared: folder of each.
    """

    prepared: dict[DatasetConfig, Path]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Content hash of each, by the name of its folder."""
        return {
            folder.name: str(read_header(folder)["content_hash"])
            for folder in self.prepared.values()
        }

    @property
    def folders(self) -> dict[str, Path]:
        """Folder of each, by its content hash."""
        return {self.hashes[folder.name]: folder for folder in self.prepared.values()}

    def work(self, trial: Trial) -> Job:
        """The work of a trial, on its data sets."""
        hashes = [self.hashes[self.prepared[dataset].name] for dataset in trial.datasets]
        own = hashes[1] if len(hashes) > 1 else None
        return Job("trial", trial, hashes[0], pretraining_data_hash=own)
