"""Make, fetch, import or look at a data set, such as `python -m study.data inspect FOLDER`.

A set lands in OUT/data, where a study with the same --out finds it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import UserError
from study.provenance import cores

if TYPE_CHECKING:
    from study.trial import Dataset

# Nothing heavy is imported before it is needed, so that help appears at once.


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    chosen = _parser().parse_args(arguments)
    try:
        chosen.command(chosen)
    except UserError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        return 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"{place}{error.strerror or error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run again to go on from what is there\n")
        return 130
    return 0


@contextmanager
def progress_display(label: str, unit: str = "pieces") -> Iterator[Callable[[int, int], None]]:
    """A callback (done, all) that shows a bar in a terminal, else a line every ten seconds."""
    if not sys.stdout.isatty():
        yield _plain_lines(label, unit)
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task(label)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_lines(label: str, unit: str) -> Callable[[int, int], None]:
    started, shown = time.monotonic(), float("-inf")

    def show(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= 10:
            shown = now
            sys.stdout.write(f"{label}: {done}/{total} {unit}, {now - started:.0f} s\n")
            sys.stdout.flush()

    return show


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m study.data", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_tip3p(commands.add_parser("tip3p", help="simulate TIP3P water with OpenMM"))
    fetch = commands.add_parser("fetch", help="download a published data set")
    fetch.set_defaults(command=_fetch)
    fetch.add_argument("name", choices=["rpbe"], help="RPBE-D3 water of Morawietz et al. 2016")
    bring = commands.add_parser("import", help="read input.data of n2p2, extxyz, or what ASE reads")
    bring.set_defaults(command=_import)
    bring.add_argument(
        "file", type=Path, help="named *.data for n2p2, anything else for ASE; or .gz"
    )
    for command in (fetch, bring):
        command.add_argument("--out", type=Path, default=Path("runs"), help="default: runs")
    inspect = commands.add_parser("inspect", help="what a data set holds, and what looks wrong")
    inspect.set_defaults(command=_inspect)
    inspect.add_argument("folder", type=Path, help="in OUT/data")
    return parser


def _add_tip3p(tip3p: argparse.ArgumentParser) -> None:
    tip3p.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    tip3p.set_defaults(command=_tip3p)
    tip3p.add_argument("--molecules", type=int, default=258, help="at the paper's density")
    tip3p.add_argument("--trajectories", type=int, default=10, help="independent simulations")
    tip3p.add_argument("--frames", type=int, default=1000, help="of each, 0.1 ps apart")
    tip3p.add_argument("--temperature", type=float, default=300.0, help="K")
    tip3p.add_argument("--flexible", action="store_true", help="bonds and angles swing")
    tip3p.add_argument("--out", type=Path, default=Path("runs"), help="made in OUT/data")
    tip3p.add_argument("--workers", type=int, default=cores(), help="cores to use")


def _tip3p(chosen: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from study.trial import TIP3PWater

    fields = ("molecules", "trajectories", "frames", "temperature", "flexible")
    try:
        recipe = TIP3PWater(name="tip3p_water", **{name: getattr(chosen, name) for name in fields})
    except ValidationError as error:
        raise UserError(
            *(f"--{e['loc'][0]}: {e['msg']}, but got {e['input']}" for e in error.errors())
        ) from None
    if chosen.workers < 1:
        raise UserError(f"--workers: must be at least 1, but got {chosen.workers}")
    _prepare(recipe, chosen.out, chosen.workers)


def _fetch(chosen: argparse.Namespace) -> None:
    from study.datasets import rpbe
    from study.trial import RPBEWater

    with progress_display("downloading RPBE-D3 water", "MB") as progress:
        file = rpbe.fetch(chosen.out, lambda done, all_: progress(done // 10**6, all_ // 10**6))
    sys.stdout.write(f"file          {file}\n")
    _prepare(RPBEWater(name="rpbe_water"), chosen.out)


def _import(chosen: argparse.Namespace) -> None:
    from study.trial import ASEFile, N2P2File

    path = str(chosen.file)
    if path.removesuffix(".gz").endswith(".data"):
        _prepare(N2P2File(name="n2p2_file", path=path), chosen.out)
    else:
        _prepare(ASEFile(name="ase_file", path=path), chosen.out)


def _prepare(dataset: Dataset, out: Path, workers: int = 1) -> None:
    """Bring a data set into the store, and say how a space names it."""
    from study.datasets import prepare
    from study.frames import read_header

    started = time.monotonic()
    with progress_display(f"preparing {dataset.label}") as progress:
        folder = prepare(dataset, out, workers, progress)
    header, seconds = read_header(folder), time.monotonic() - started
    settings = dataset.model_dump(exclude_defaults=True)
    named = ", ".join(f"{key}: {value}" for key, value in settings.items())
    sys.stdout.write(
        f"folder        {folder}\ncontent hash  {header['content_hash']}\n"
        f"frames        {header['frames']}\ntime          {seconds:.1f} s\n"
        f"in a space    dataset: {{{named}}}\n"
    )


def _inspect(chosen: argparse.Namespace) -> None:
    from study.frames import Frames
    from study.inspection import summary, warnings

    frames = Frames.load(chosen.folder)
    rows = summary(frames)
    width = max(len(name) for name in rows)
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in rows.items()))
    sys.stdout.write("".join(f"warning: {line}\n" for line in warnings(frames)))


if __name__ == "__main__":
    sys.exit(main())
