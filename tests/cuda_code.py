"""Builds the program of every model and task for an NVIDIA GPU, on a machine that needs none.

Each must compile, keep every tensor on the GPU and, as deterministic kernels are asked for, add
nothing atomically. The table counts what one step launches. Needs Triton: `pip install triton`.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch._inductor import config as inductor
from torch._inductor import standalone_compile
from torch._inductor.utils import fresh_cache
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.potential import Potential
from study.tasks.build import build_task
from study.tasks.task import Term
from study.training.compiler import _trace_term, options_for
from study.training.config import Stage
from tests.accelerator import BATCH, FRAMES, MOLECULES, TASKS, cases, model_settings
from tests.benchmarks.water import water_box
from tests.pretended_cuda import DEVICE, on_device, pretended


@dataclass(frozen=True)
class Launches:
    """What a compiled program launches in a step.

    Args:
        kernels: that Inductor wrote.
        products: of matrices, by cuBLAS.
        others: of torch: sums into rows in a fixed order.
        atomic: kernels that add in no fixed order.
    """

    kernels: int
    products: int
    others: int
    atomic: int

    @classmethod
    def of(cls, code: str) -> Launches:
        """Count them in the code that Inductor wrote."""
        step = code[code.index("\n    def call(self, args)") :]
        return cls(
            kernels=len(re.findall(r"\.run\(", step)),
            products=len(re.findall(r"\bextern_kernels\.\w+\(", step)),
            others=len(re.findall(r"^\s+(?:buf\d+ = )?(?:torch\.ops\.)?aten\.\w+[.(]", step, re.M)),
            atomic=code.count("tl.atomic_add("),
        )


def terms_of(name: str, task: str) -> tuple[Potential, list[Term]]:
    """A small model, and the terms of the loss of a batch of water."""
    stage = Stage.model_validate(
        {"batch_size": BATCH, "epochs": 1, "lr": 1e-5, "task": TASKS[task]}
    )
    graphs = GraphSet.build(water_box(MOLECULES, FRAMES), 3.4)
    model = build_model(model_settings(name), seed=0)
    built = build_task(stage.task, model, graphs, torch.arange(4))
    return model.train(), built.terms(torch.arange(BATCH), torch.Generator().manual_seed(0))


def build(model: Potential, term: Term) -> Launches:
    """Build the program of a term for a GPU.

    Raises:
        RuntimeError: if it makes a tensor elsewhere, or adds atomically.
    """
    traced = _trace_term(model, term)
    on_device(traced.graph, traced.inputs)
    with TemporaryDirectory() as folder, fresh_cache(dir=folder, delete=False), pretended():
        with inductor.patch(options_for(DEVICE)):
            standalone_compile(traced.graph, traced.inputs, dynamic_shapes="from_graph")
        codes = [path.read_text() for path in Path(folder).rglob("*.py")]
    (code,) = (code for code in codes if "def call(self, args)" in code)
    if "cpp_fused" in code or "device='cpu'" in code:
        raise RuntimeError("the program computes on the CPU")
    launches = Launches.of(code)
    if launches.atomic:
        raise RuntimeError(f"{launches.atomic} kernels add atomically, in no fixed order")
    return launches


def counts(model: Potential, term: Term) -> tuple[int | str, ...]:
    """Launches of the program, or dashes where a model that is never compiled has none."""
    try:
        counted = build(model, term)
    except GuardOnDataDependentSymNode:
        if model.compilable:
            raise
        return ("–",) * 3
    return counted.kernels, counted.products, counted.others


def main() -> None:
    """Build the programs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="names of models; all when left out")
    models = parser.parse_args().models
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    sys.stdout.write(
        "| model | task | kernels | matrix products | others |\n|---|---|---|---|---|\n"
    )
    for name, task in cases():
        if models and name not in models:
            continue
        model, terms = terms_of(name, task)
        for term in terms:
            row = (name, task, *counts(model, term))
            sys.stdout.write("| " + " | ".join(map(str, row)) + " |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
