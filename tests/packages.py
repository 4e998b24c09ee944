"""Models of other packages, tried with the packages themselves: `python -m tests.packages`.

For each extra it makes a virtual environment that sees what is installed here, installs the extra
into it, runs the tests beside the package's own network, times training steps beside it, and runs a
small study of the model beside EGNN. It needs a package registry.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from importlib.metadata import version
from pathlib import Path

from study.core.config import shipped
from study.models.config import ModelConfig
from tests.benchmarks.packages import PACKAGES
from tests.readme import REPOSITORY

MODELS = {kind.extra: name for name, kind in shipped(ModelConfig).items() if kind.extra}
"""By the extra that installs their package."""

SPACE = """\
question: Does the model train beside EGNN?
seeds: [0]
trial:
  dataset: {{name: tip3p_water, molecules: 32, trajectories: 4, frames: 5}}
  model: {{hidden: 8, layers: 2, cutoff: 3.4, choice: [{{name: egnn}}, {{name: {name}}}]}}
  pretrain:
    task:
      choice:
        - {{name: masking, masking_ratio: 0.5}}
        - {{name: denoising, noise_scale: 0.1}}
    epochs: 2
    batch_size: 4
  finetune: {{task: {{name: energy_forces}}, epochs: 4, batch_size: 2, lr: 0.005}}
"""


def environment(folder: Path, extra: str) -> Path:
    """Python of a new environment with an extra, and with this one's packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    paths = sysconfig.get_paths()
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (inside / "shared.pth").write_text(paths["purelib"] + "\n")
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["optional-dependencies"][extra]
    # A package that needs another torch must not bring it in silently.
    constraints = folder / "constraints.txt"
    constraints.write_text(f"torch=={version('torch')}\n")
    _run([python, "-m", "pip", "install", "-q", "-c", constraints, *wanted], folder)
    return python


def check(extra: str) -> bool:
    """Whether all checks of a model pass; they print what they find."""
    name = MODELS[extra]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        python = environment(folder / "environment", extra)
        space = folder / f"beside_{name}.yaml"
        space.write_text(SPACE.format(name=name))
        commands: list[list[str | Path]] = [
            ["pytest", "-q", REPOSITORY / "tests/models/packages"],
            ["study.run", "--space", space, "--out", folder / "runs"],
        ]
        if name in PACKAGES:
            commands.append(["tests.benchmarks.packages", name])
        return all(_run([python, "-m", *each], folder) for each in commands)


def _run(command: list[str | Path], folder: Path) -> bool:
    """Whether a command ends well."""
    sys.stdout.write(f"{' '.join(map(str, command))}\n")
    sys.stdout.flush()
    paths = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=folder, env=paths, check=False).returncode == 0


def main() -> int:
    """Check each extra, and exit 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.packages", description=__doc__)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=", ".join(MODELS))
    chosen = parser.parse_args().extras or [*MODELS]
    failed = [extra for extra in chosen if not check(extra)]
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "all passed\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
