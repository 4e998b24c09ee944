"""What each command of `python -m study.data` does."""

from __future__ import annotations

from dataclasses import replace

from study.commands.data_files import export_set, inspect, split_set, verify
from study.commands.data_labels import label
from study.commands.data_options import (
    DataOptions,
    ExportOptions,
    FetchOptions,
    ImportOptions,
    InspectOptions,
    LabelOptions,
    SimulateOptions,
    SplitOptions,
    VerifyOptions,
)
from study.commands.data_sources import fetch, import_file, simulate
from study.core.paths import follow_links


def run(options: DataOptions) -> None:
    """Run the command whose options these are.

    Raises:
        UserError: for an error the user can fix.
    """
    if not isinstance(options, InspectOptions | SplitOptions | ExportOptions):
        options = replace(options, out=follow_links(options.out))
    match options:
        case SimulateOptions():
            simulate(options)
        case FetchOptions():
            fetch(options)
        case ImportOptions():
            import_file(options)
        case LabelOptions():
            label(options)
        case InspectOptions():
            inspect(options)
        case VerifyOptions():
            verify(options)
        case SplitOptions():
            split_set(options)
        case ExportOptions():
            export_set(options)
