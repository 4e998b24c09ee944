"""How `python -m study.data` brings sets into the store: simulated, downloaded, imported."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pydantic import ValidationError

from study.commands.data_options import FetchOptions, ImportOptions, SimulateOptions
from study.console.formatting import write_lines
from study.console.progress_bar import fetch_data, progress_display
from study.core.errors import UserError
from study.datasets.config import DatasetConfig, RPBEWater, TIP3PWater
from study.datasets.parsing.header import read_header
from study.datasets.prepare import prepare
from study.datasets.readers.detect import parsed, settings_of
from study.datasets.sources import rpbe
from study.datasets.sources.catalog import SETS, bring


def simulate(options: SimulateOptions) -> None:
    """Simulate TIP3P water.

    Raises:
        UserError: for a recipe that gives none.
    """
    fields = ("molecules", "trajectories", "frames", "temperature", "flexible", "seed")
    try:
        recipe = TIP3PWater(name="tip3p_water", **{name: getattr(options, name) for name in fields})
    except ValidationError as error:
        raise UserError(
            *(f"--{e['loc'][0]}: {e['msg']}, but got {e['input']}" for e in error.errors())
        ) from None
    _require_workers(options.workers)
    _prepare(recipe, options.out, options.workers)


def _require_workers(workers: int) -> None:
    if workers < 1:
        raise UserError(f"--workers: must be at least 1, but got {workers}")


def fetch(options: FetchOptions) -> None:
    """Download a published set.

    Raises:
        UserError: if there is no such set, or it does not come.
    """
    if options.name != "rpbe":
        _fetch_published(options)
        return
    with progress_display("downloading RPBE-D3 water", "MB") as progress:
        file = rpbe.fetch(options.out, lambda done, all_: progress(done // 10**6, all_ // 10**6))
    sys.stdout.write(f"file          {file}\n")
    _prepare(RPBEWater(name="rpbe_water"), options.out)


def _fetch_published(options: FetchOptions) -> None:
    """Download a set, and say how a space names it; the study that does so reads it."""
    if options.name not in SETS:
        raise UserError(f"{options.name}: must be one of rpbe, {', '.join(SETS)}")
    published = SETS[options.name]
    sizes = [source.size for source in published.sources if source.size]
    known = f", {sum(sizes) / 1e6:.0f} MB" if sizes else ""
    sys.stdout.write(f"set           {published.title}{known}\nlicence       {published.licence}\n")
    for source in published.sources:
        checked = f"MD5 {source.md5}" if source.md5 else "no published checksum known"
        sys.stdout.write(f"file          {source.address} ({checked})\n")
    sys.stdout.flush()
    with progress_display(f"downloading {options.name}", "MB") as progress:
        place = bring(
            options.name, options.out, lambda done, all_: progress(done // 10**6, all_ // 10**6)
        )
    sys.stdout.write(f"in a space    dataset: {{name: {published.dataset}, path: {place}}}\n")


def import_file(options: ImportOptions) -> None:
    """Read files into the store.

    Raises:
        UserError: if they cannot be read.
    """
    _require_workers(options.workers)
    fetch_data(options.file, options.out)
    dataset = parsed(settings_of(options.file, **options.keys()))
    _prepare(dataset, options.out, options.workers)


def _prepare(dataset: DatasetConfig, out: Path, workers: int = 1) -> None:
    """Bring a data set into the store, and say how a space names it."""
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
        write_lines(f"note: {remark}\n")
    for line in header["origin"].get("warnings", []):
        write_lines(f"warning: {line}\n")


def _in_yaml(value: object) -> str:
    """A setting as a space has it."""
    match value:
        case dict():
            return f"{{{', '.join(f'{key}: {_in_yaml(each)}' for key, each in value.items())}}}"
        case list():
            return f"[{', '.join(map(_in_yaml, value))}]"
        case _:
            return str(value)
