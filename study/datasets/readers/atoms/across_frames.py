"""What the frames of a file have to have in common, and what to say where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from study.core.errors import UserError
from study.datasets.parsing.guard import printable
from study.datasets.readers.atoms.labelled import Labelled
from study.datasets.reading import Reading

SHOWN = 8
"""Names of columns in a message."""
LABELS = ("energy", "forces", "stress")
UNITS_OF = (("", "length"), ("energy", "energy"), ("forces", "force"), ("stress", "stress"))
"""Labels with the factors of their units; positions are in every frame."""


def require_alike(made: Sequence[Labelled]) -> None:
    """Refuse frames of a file of which some declare units and others, in other ones, do not.

    Raises:
        ValueError: naming the first of each.
    """
    for label, unit in UNITS_OF:
        having = [place for place, each in enumerate(made) if not label or each.names[label]]
        silent = next((place for place in having if not made[place].factors.told), None)
        if silent is None:
            continue
        usual = getattr(made[silent].factors, unit)
        others = (place for place in having if getattr(made[place].factors, unit) != usual)
        if (told := next(others, None)) is not None:
            names = made[told].factors.names
            raise ValueError(
                f"frame {told} (from 0) declares units, {', '.join(names.values())}, and frame "
                f"{silent} none; declare them in every frame, or say them with "
                f"`units: {{{label or unit}: …}}`"
            )


def require_asked(made: Sequence[Labelled], there: set[str], path: Path, given: Reading) -> None:
    """Refuse names of labels that no frame has.

    Args:
        made: the frames.
        there: names of columns that are there.
        path: of the file or folder.
        given: what the user says of it.

    Raises:
        UserError: naming what is there.
    """
    for label, asked in given.labels.model_dump(exclude_none=True).items():
        name = "stress" if label == "virial" else label
        if not any(each.names[name] for each in made):
            raise UserError(
                f"{path}: `labels.{label}` must name a column of the frames, one of "
                f"{', '.join(map(printable, sorted(there))) or 'none'}, but got {asked!r}"
            )


def columns_of(made: Sequence[Labelled]) -> list[str]:
    """Which columns are labels, where their names are not those of the labels."""
    found: dict[str, None] = {}
    for label in LABELS:
        for name in dict.fromkeys(each.names[label] for each in made):
            if name and name != label:
                found[f"{label} from {printable(name)}"] = None
    return list(found)


def remarks_on(made: Sequence[Labelled]) -> list[str]:
    """What whoever reads the results should know of the labels."""
    first: dict[str, str] = {}
    for remark in (remark for each in made for remark in each.remarks):
        # Comments differ from frame to frame.
        first.setdefault(remark[:20] if remark.startswith("comments such as") else remark, remark)
    remarks = list(first.values())
    for label in LABELS:
        names = list(dict.fromkeys(name for each in made if (name := each.names[label])))
        if len(names) > 1:
            listed = " and ".join(f"`{printable(name)}`" for name in names)
            remarks.append(f"{label} is {listed}, of different frames")
    for label, others in candidates(made).items():
        shown = ", ".join(map(printable, others))
        remarks.append(
            f"no {label}; columns that may be such: {shown} "
            f"(`labels: {{{label}: {printable(others[0])}}}`)"
        )
    return remarks


def candidates(made: Sequence[Labelled]) -> dict[str, list[str]]:
    """Columns that may be a label that no frame has, the likeliest first."""
    found = {}
    for label in LABELS:
        others = dict.fromkeys(name for each in made for name in each.others.get(label, ()))
        if others and not any(each.names[label] for each in made):
            found[label] = list(others)[:SHOWN]
    return found
