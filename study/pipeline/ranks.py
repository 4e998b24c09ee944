"""The other workers of a trial: processes of this machine that this one starts, leads and ends.

Commands go to their standard input, answers come by their standard output, tensors go by
torch.distributed. A worker ends when its input closes, so that none outlives this process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import torch
from torch import distributed

from study.core.errors import UserError
from study.pipeline.job import Job
from study.training.parallel.shared_engine import BrokenGroupError

TIMEOUT = timedelta(minutes=30)
"""How long a worker waits for another, which may compile meanwhile."""

PATIENCE = 10.0
"""Seconds that a worker has to end."""


class LostWorkerError(Exception):
    """A worker of a trial was killed; the trial may resume with others."""


class Ranks:
    """The workers of a trial beside this process, which has rank 0.

    Args:
        job: what they train.
        root: folder of all jobs.
        frames: folder of the data set.
        device: torch device; each worker has a GPU of its own.
        workers: number of workers, this process included.
    """

    def __init__(self, job: Job, root: Path, frames: Path, device: str, workers: int) -> None:
        self.workers, self.device = workers, device
        self.peak_memory = {"peak_memory_mb": 0, "gpu_memory_mb": 0}
        """MB, of all but this process together."""
        self._order = {
            "job": job.to_json(),
            "root": str(root),
            "frames": str(frames),
            "device": device,
            "workers": workers,
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
        self._folder: TemporaryDirectory[str] | None = None
        self._excepthook = sys.excepthook
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Start the processes, which load their data while this one does."""
        require_distributed(self.workers, self.device)
        self._folder = TemporaryDirectory(prefix="study-ranks-")
        self._order["store"] = str(Path(self._folder.name) / "store")
        try:
            for rank in range(1, self.workers):
                self._processes.append(self._start(rank))
            self._tell(self._order)
        except BaseException:
            self.close()
            raise
        return self

    def _start(self, rank: int) -> subprocess.Popen[str]:
        # Ray adds folders to the path of a worker that its environment does not have.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if self.device == "cuda":
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[rank] if visible else str(rank)
        return subprocess.Popen(
            [sys.executable, "-m", "study.pipeline.rank_worker", str(rank)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def join(self) -> None:
        """Wait until all have loaded their data, and connect with them."""
        self._answers()
        join_group(Path(str(self._order["store"])), 0, self.workers, self.device)

    def start_step(self, epoch: int, step: int) -> None:
        """Let all begin a step."""
        self._tell({"epoch": epoch, "step": step})

    def cost(self) -> tuple[float, float | None]:
        """CPU seconds and energy (J) of the others since the last call; None if unknown."""
        self._tell({})
        answers = self._answers()
        for name in self.peak_memory:
            self.peak_memory[name] = sum(answer[name] for answer in answers)
        joules = [answer["joules"] for answer in answers]
        known = None if None in joules else sum(joules)
        return sum(answer["cpu_seconds"] for answer in answers), known

    def _tell(self, command: dict[str, Any]) -> None:
        line = json.dumps(command) + "\n"
        try:
            for process in self._processes:
                assert process.stdin is not None
                process.stdin.write(line)
                process.stdin.flush()
        except OSError:
            raise self._loss() from None

    def _answers(self) -> list[dict[str, Any]]:
        answers = [self._answer(process) for process in self._processes]
        if any("failed" in answer for answer in answers):
            raise self._loss(answers)
        return answers

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise self._loss()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _loss(self, known: Sequence[dict[str, Any]] = ()) -> Exception:
        """Why a worker has ended, by what the workers say that end now.

        Args:
            known: what they said before.
        """
        said, deadline = list(known), time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not any(map(_has_ended, self._processes)):
            time.sleep(0.05)
        # The first to end is the reason; what is broken by that ends without a word.
        for process in filter(_has_ended, self._processes):
            assert process.stdout is not None
            said += map(json.loads, process.stdout)
        failure = next((answer for answer in said if "failed" in answer), None)
        if failure is None:
            return LostWorkerError("a worker of a trial was killed or crashed")
        kind = MemoryError if failure["memory"] else RuntimeError
        problem = kind(f"worker {failure['rank']}: {failure['failed']}")
        problem.add_note(failure["traceback"])
        return problem

    def __exit__(
        self, kind: type[BaseException] | None, problem: object, trace: TracebackType | None
    ) -> None:
        """End all; a step that failed because a worker has ended is explained by that."""
        loss = self._loss() if kind is not None and issubclass(kind, BrokenGroupError) else None
        self.close()
        if loss is not None:
            raise loss from None

    def close(self) -> None:
        """End all processes, and leave the group."""
        for process in self._processes:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
        if distributed.is_initialized():
            distributed.destroy_process_group()
            # Torch has put its own there, once more with each group.
            sys.excepthook = self._excepthook
        for process in self._processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._processes = []
        if self._folder is not None:
            self._folder.cleanup()


def _has_ended(process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None


def join_group(store: Path, rank: int, workers: int, device: str) -> None:
    """Connect with the other workers of a trial, which are on this machine.

    Args:
        store: a file by which they find each other, in a folder of this user alone.
        rank: number of this process.
        workers: number of all.
        device: torch device.
    """
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=store.as_uri(),
        rank=rank,
        world_size=workers,
        timeout=TIMEOUT,
    )


def require_distributed(workers: int, device: str) -> None:
    """Refuse workers where torch cannot connect them.

    Raises:
        UserError: if this torch lacks what that needs, or there are too few GPUs.
    """
    able = distributed.is_available() and (
        distributed.is_nccl_available() if device == "cuda" else distributed.is_gloo_available()
    )
    if not able:
        raise UserError(
            f"`workers` must be 1 with this torch, which cannot connect processes, but got "
            f"{workers}; leave it out"
        )
    if device == "cuda" and torch.cuda.device_count() < workers:
        raise UserError(
            f"`workers` must be <= {torch.cuda.device_count()}, the GPUs that this process sees, "
            f"but got {workers}"
        )
