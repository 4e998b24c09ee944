"""Gradients of a loss, by autograd or by compiled programs."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from study.core.errors import UserError
from study.models.potential import Potential
from study.tasks.task import Term
from study.training.compiler import MIN_SIZE, Program, size_classes, varying_sizes
from study.training.parallel.refusals import can_compile_parts
from study.training.precision import Precision, matmul_precision
from study.training.program_cache import load_or_compile
from study.training.schedule import scheduled_epochs

if TYPE_CHECKING:
    from study.training.config import Stage


COMPILED_FROM = 10_000
"""Steps of a stage from which compiling, which takes one to three core minutes, pays off."""


def can_compile(device: torch.device) -> bool:
    """Whether this machine has the compiler that Inductor needs."""
    return device.type == "cuda" or shutil.which("g++") is not None


def compiles(stage: Stage, model: Potential, frames: int, workers: int = 1) -> bool:
    """Decide whether a stage runs compiled code; without timing, so that a resumed run agrees.

    Args:
        stage: its epochs, batch size and `compile` setting.
        model: on the device to train on.
        frames: number of training frames.
        workers: that share each step.

    Raises:
        UserError: if `compile: true` is impossible for this model or machine.
    """
    here = can_compile(next(model.parameters()).device)
    if stage.compile is True and not model.compilable:
        raise UserError("`compile: true` does not work for this model; leave it out")
    if stage.compile is True and not here:
        raise UserError(
            "`compile: true` needs g++ on this machine; install it, or write `compile: if_possible`"
        )
    per_epoch = math.ceil(min(frames, stage.frames or frames) / stage.batch_size)
    is_long = scheduled_epochs(stage) * per_epoch >= COMPILED_FROM
    wanted = is_long if stage.compile is None else bool(stage.compile)
    return can_compile_parts(stage, workers) and wanted and model.compilable and here


class Engine:
    """Computes the gradients of a model.

    Args:
        model: its parameters get gradients.
        compiled: use compiled programs where sizes allow; autograd otherwise.
        store: folder of compiled programs, shared by processes; None to keep them in memory.
        precision: of matrix products.
    """

    def __init__(
        self,
        model: Potential,
        *,
        compiled: bool = False,
        store: Path | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.model, self.compiled, self.store, self.precision = model, compiled, store, precision
        self._programs: dict[str, Program] = {}

    def backward(self, terms: Sequence[Term]) -> Tensor:
        """Accumulate the gradients of the weighted sum of all terms in the parameters' `grad`.

        Returns:
            () the weighted sum, detached.
        """
        return torch.stack([term.weight * self._backward(term) for term in terms]).sum()

    def _backward(self, term: Term) -> Tensor:
        with matmul_precision(self.precision, next(self.model.parameters()).device):
            return self._accumulate(term)

    def _accumulate(self, term: Term) -> Tensor:
        program = self._program(term) if self.compiled else None
        if program is None:
            loss = term.penalty(self.model, term.batch)
            (term.weight * loss).backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        loss, gradients = program(self.model, term.batch)
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            if gradient is not None:
                weighted = term.weight * gradient
                parameter.grad = weighted if parameter.grad is None else parameter.grad + weighted
        return loss

    def _program(self, term: Term) -> Program | None:
        """Load or compile the program for a term; None if its sizes must run eagerly."""
        sizes = varying_sizes(term.batch)
        if min(sizes) < MIN_SIZE:
            return None
        kind = f"{term.name} {size_classes(sizes)}"
        if kind not in self._programs:
            self._programs[kind] = load_or_compile(self.model, term, self.store, self.precision)
        program = self._programs[kind]
        return program if program.accepts(sizes) else None
