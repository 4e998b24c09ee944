"""Models, pretraining tasks and data sets of the user's own, beside those of this package.

A Python file, or an installed module, has a class of settings, whose fields are keys of a space and
whose `build` makes what they describe:

    class Pair(plugins.Model):
        name: Literal["pair"]

        def build(self):
            return PairPotential(self)

    model: {name: pair, code: pair.py, hidden: 64}

A file is one whole: it imports installed packages, no other file. Its content is part of the name
of all work that uses it, and is kept with the results. Who opens a space that names a file, even
with `--dry-run`, runs that file.
"""

from __future__ import annotations

from study.datasets.config import DataSet
from study.models.config import Model
from study.tasks.config import Task

__all__ = ["DataSet", "Model", "Task"]
