"""Gradients of a loss: by autograd, or by code compiled for the model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from study.models.potential import Potential
from study.tasks.task import Term
from study.training.compiler import SMALLEST, Program, size_classes, varying_sizes
from study.training.precision import Precision, matmul_precision
from study.training.program_cache import load_or_compile


def can_compile(device: torch.device) -> bool:
    """Whether this machine has what inductor needs."""
    return device.type == "cuda" or shutil.which("g++") is not None


class Engine:
    """Takes the gradients of a model.

    Args:
        model: whose parameters get gradients.
        compiled: by compiled code, where sizes allow; by autograd otherwise.
        store: folder of compiled code, shared by processes; kept by this one alone without it.
        precision: of matmul_precision of matrices.
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
        """Add the gradients of the weighted sum of the terms to the parameters' `grad`.

        Returns:
            () the sum.
        """
        return torch.stack([term.weight * self._backward(term) for term in terms]).sum()

    def _backward(self, term: Term) -> Tensor:
        with matmul_precision(self.precision, next(self.model.parameters()).device):
            return self._add(term)

    def _add(self, term: Term) -> Tensor:
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
        """Compiled code for the term, if there can be any for sizes like these."""
        sizes = varying_sizes(term.batch)
        if min(sizes) < SMALLEST:
            return None
        kind = f"{term.name} {size_classes(sizes)}"
        if kind not in self._programs:
            self._programs[kind] = load_or_compile(self.model, term, self.store, self.precision)
        program = self._programs[kind]
        return program if program.accepts(sizes) else None
