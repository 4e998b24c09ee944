# PYTHON_ARGCOMPLETE_OK
"""Make, fetch, import, look at, verify, split or export data: `python -m study.data inspect SET`.

SET is a folder of OUT/data, where a study with the same --out finds it, or a file or folder that
can be read: input.data of n2p2, extxyz or what else ASE reads, DeePMD npy systems, npz files of
GAMD or MD17, HDF5 files of ANI-1x or SPICE.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from study.console import label_options, reading_options
from study.console.command_line import parse
from study.console.progress_bar import progress_display
from study.core.errors import UserError, exit_code
from study.core.provenance import cores
from study.datasets.sizes import SplitBy
from study.datasets.sources.catalog import SETS, bring

if TYPE_CHECKING:
    from study.datasets.config import DatasetConfig
    from study.datasets.frames import Frames

# Nothing heavy is imported before it is needed, so that help appears at once.


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    chosen = parse(parser(), arguments)
    interrupted = "interrupted; run again to go on from what is there\n"
    return exit_code(lambda: chosen.command(chosen), interrupted)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m study.data", description=__doc__)
    commands = made.add_subparsers(required=True)
    _add_tip3p(commands.add_parser("tip3p", help="simulate TIP3P water with OpenMM"))
    fetch = commands.add_parser("fetch", help="download a published data set")
    fetch.set_defaults(command=_fetch)
    fetch.add_argument("name", metavar="NAME", help=f"rpbe, {', '.join(SETS)}")
    bring = commands.add_parser("import", help="read files of n2p2, ASE, DeePMD, GAMD, MD17, SPICE")
    bring.set_defaults(command=_import)
    bring.add_argument(
        "file", type=Path, help="*.data of n2p2, *.npz, *.h5, a folder of them, or what ASE reads"
    )
    for command in (fetch, bring):
        command.add_argument("--out", type=Path, default=Path("runs"), help="default: runs")
    label_options.add_commands(commands)
    inspect = commands.add_parser("inspect", help="what a data set holds, and what looks wrong")
    inspect.set_defaults(command=_inspect)
    verify = commands.add_parser("verify", help="check every stored set, or those named")
    verify.set_defaults(command=_verify)
    verify.add_argument("set", type=Path, nargs="*")
    verify.add_argument("--out", type=Path, default=Path("runs"), help="default: runs")
    divide = commands.add_parser("split", help="write train, validation and test as extxyz")
    divide.set_defaults(command=_split)
    export = commands.add_parser("export", help="write a set as extxyz")
    export.set_defaults(command=_export)
    for command in (inspect, divide, export):
        command.add_argument("set", type=Path, metavar="SET")
    for command in (bring, inspect, divide, export):
        reading_options.add_options(command)
    _add_split(divide)
    export.add_argument("file", type=Path, help="*.extxyz; must not exist yet")
    export.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th frame")
    return made


def _add_split(divide: argparse.ArgumentParser) -> None:
    divide.add_argument("folder", type=Path, help="for the three files; must not exist yet")
    divide.add_argument("--by", choices=get_args(SplitBy), default="trajectory")
    divide.add_argument(
        "--test", type=portion, default=0.1, help="fraction, or number (default: 0.1)"
    )
    divide.add_argument(
        "--validation", type=portion, default=0.1, help="of the rest, or number (default: 0.1)"
    )
    divide.add_argument("--seed", type=int, default=0, help="that of a trial gives its split")


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

    from study.datasets.config import TIP3PWater

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
    if chosen.name != "rpbe":
        _fetch_published(chosen)
        return
    from study.datasets.config import RPBEWater
    from study.datasets.sources import rpbe

    with progress_display("downloading RPBE-D3 water", "MB") as progress:
        file = rpbe.fetch(chosen.out, lambda done, all_: progress(done // 10**6, all_ // 10**6))
    sys.stdout.write(f"file          {file}\n")
    _prepare(RPBEWater(name="rpbe_water"), chosen.out)


def _fetch_published(chosen: argparse.Namespace) -> None:
    """Download a set, and say how a space names it; the study that does so reads it."""
    if chosen.name not in SETS:
        raise UserError(f"{chosen.name}: must be one of rpbe, {', '.join(SETS)}")
    published = SETS[chosen.name]
    sizes = [source.size for source in published.sources if source.size]
    known = f", {sum(sizes) / 1e6:.0f} MB" if sizes else ""
    sys.stdout.write(f"set           {published.title}{known}\nlicence       {published.licence}\n")
    for source in published.sources:
        checked = f"MD5 {source.md5}" if source.md5 else "no published checksum known"
        sys.stdout.write(f"file          {source.address} ({checked})\n")
    sys.stdout.flush()
    with progress_display(f"downloading {chosen.name}", "MB") as progress:
        place = bring(
            chosen.name, chosen.out, lambda done, all_: progress(done // 10**6, all_ // 10**6)
        )
    sys.stdout.write(f"in a space    dataset: {{name: {published.dataset}, path: {place}}}\n")


def _import(chosen: argparse.Namespace) -> None:
    from study.datasets.readers.detect import parsed, settings_of

    said = reading_options.said(chosen)
    _prepare(parsed(settings_of(chosen.file, **said)), chosen.out)


def _prepare(dataset: DatasetConfig, out: Path, workers: int = 1) -> None:
    """Bring a data set into the store, and say how a space names it."""
    from study.datasets.frames import read_header
    from study.datasets.prepare import prepare

    started = time.monotonic()
    with progress_display(f"preparing {dataset.label}") as progress:
        folder = prepare(dataset, out, workers, progress)
    header, seconds = read_header(folder), time.monotonic() - started
    settings = dataset.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    named = ", ".join(f"{key}: {_in_yaml(value)}" for key, value in settings.items())
    sys.stdout.write(
        f"folder        {folder}\ncontent hash  {header['content_hash']}\n"
        f"frames        {header['frames']}\ntime          {seconds:.1f} s\n"
        f"in a space    dataset: {{{named}}}\n"
    )
    for remark in header["origin"].get("labels", []):
        sys.stdout.write(f"note: {remark}\n")
    for line in header["origin"].get("warnings", []):
        sys.stdout.write(f"warning: {line}\n")


def _in_yaml(value: object) -> str:
    """A setting as a space has it."""
    match value:
        case dict():
            return f"{{{', '.join(f'{key}: {_in_yaml(each)}' for key, each in value.items())}}}"
        case list():
            return f"[{', '.join(map(_in_yaml, value))}]"
        case _:
            return str(value)


def _read(chosen: argparse.Namespace) -> Frames:
    """The frames of a set, as the options say; sane ones.

    Raises:
        UserError: if they cannot be read, or no model can learn from them.
    """
    from study.datasets.readers.detect import read_set
    from study.datasets.validation import check

    frames = read_set(chosen.set, **reading_options.said(chosen))
    check(frames, chosen.set)
    return frames


def _inspect(chosen: argparse.Namespace) -> None:
    frames = _read(chosen)
    from study.datasets.diagnostics import warnings
    from study.datasets.inspection import summary

    rows = summary(frames)
    width = max(len(name) for name in rows)
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in rows.items()))
    lines = [*warnings(frames), *_odd_parts(frames)]
    sys.stdout.write("".join(f"warning: {line}\n" for line in lines))


def _odd_parts(frames: Frames) -> list[str]:
    """What is odd about the parts of the usual split, or of one by frame without groups."""
    from study.datasets.diagnostics import split_warnings
    from study.datasets.split_config import Split
    from study.datasets.splits import split

    kinds: tuple[SplitBy, ...] = ("trajectory", "frame")
    for by in kinds:
        try:
            parts = vars(split(frames, Split(by=by), seed=0))
        except UserError:
            continue
        return [f"{line} (split by {by}, seed 0)" for line in split_warnings(frames, parts)]
    return []


def _verify(chosen: argparse.Namespace) -> None:
    """Every file against its hash, and every frame against what no set may contain."""
    from study.datasets.frames import HEADER
    from study.datasets.readers.detect import read_set
    from study.datasets.validation import check

    sets = chosen.set or sorted(path.parent for path in chosen.out.glob(f"data/*/{HEADER}"))
    if not sets:
        raise UserError(f"{chosen.out / 'data'}: no data set here; name one, or another --out")
    problems: list[str] = []
    for place in sets:
        try:
            frames = read_set(place)
            check(frames, place)
        except UserError as error:
            problems += error.problems
        else:
            sys.stdout.write(f"ok  {place}  {len(frames)} frames  {frames.content_hash()[:12]}\n")
    if problems:
        raise UserError(*problems)


def portion(text: str) -> float:
    """A fraction, or a whole number as such."""
    return int(text) if text.isdecimal() else float(text)


def _split(chosen: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from study.datasets.diagnostics import split_warnings
    from study.datasets.readers.ase_file import write
    from study.datasets.split_config import Split
    from study.datasets.splits import split

    if chosen.folder.exists():
        raise UserError(f"{chosen.folder}: must not exist yet; remove it, or name another folder")
    try:
        settings = Split(by=chosen.by, test=chosen.test, validation=chosen.validation)
    except ValidationError as error:
        raise UserError(
            *(f"--{e['loc'][0]}: {e['msg']}, but got {e['input']}" for e in error.errors())
        ) from None
    frames = _read(chosen)
    parts = split(frames, settings, chosen.seed)
    for name, indices in vars(parts).items():
        write(frames.select(indices), chosen.folder / f"{name}.extxyz")
        sys.stdout.write(f"{chosen.folder / name}.extxyz  {len(indices)} frames\n")
    for line in split_warnings(frames, vars(parts)):
        sys.stdout.write(f"warning: {line}\n")


def _export(chosen: argparse.Namespace) -> None:
    import numpy as np

    from study.datasets.readers.ase_file import write

    if chosen.file.exists():
        raise UserError(f"{chosen.file}: must not exist yet; remove it, or name another file")
    if chosen.every < 1:
        raise UserError(f"--every: must be at least 1, but got {chosen.every}")
    frames = _read(chosen)
    chosen_frames = frames.select(np.arange(0, len(frames), chosen.every))
    write(chosen_frames, chosen.file)
    sys.stdout.write(f"{chosen.file}  {len(chosen_frames)} frames\n")


if __name__ == "__main__":
    sys.exit(main())
