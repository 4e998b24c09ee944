"""What the options of a choice are called, by what is in them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from study.space.yaml_loader import Block

SCRATCH = "scratch"
"""The option without a first stage."""

PARTS = ("pretrain", "model", "dataset", "finetune", "transfer")
"""Of options that are whole trials, the parts by which they may be told apart."""


def labels_of(options: list[Any], place: str) -> list[Any]:
    """A label for each option: a value is its own, a block is called by its content.

    Blocks are called by name, task or pretrained weights; whole trials by the parts that differ.
    Those that are alike in this are numbered.

    Args:
        options: of the choice.
        place: dotted name of its key in the trial.
    """
    labels = [_word(option, place.rpartition(".")[2]) for option in options]
    blocks = [isinstance(option, Block) for option in options]
    if any(label is None for label, block in zip(labels, blocks, strict=True) if block):
        labels = _by_parts(options, labels)
    seen = Counter[Any]()
    for number, block in enumerate(blocks):
        if block:
            seen[labels[number]] += 1
            times = seen[labels[number]]
            labels[number] = f"{labels[number]} {times}" if times > 1 else labels[number]
    return labels


def _by_parts(options: list[Any], labels: list[Any]) -> list[Any]:
    """Labels of blocks that have no name: the words of the parts that differ between them."""
    words = [
        {part: _word(option[part], part) for part in PARTS if part in option}
        if isinstance(option, Block)
        else {}
        for option in options
    ]
    differing = [part for part in PARTS if len({str(each.get(part)) for each in words}) > 1]
    joined = [" ".join(str(each[part]) for part in differing if each.get(part)) for each in words]
    return [
        (name or "option") if isinstance(option, Block) and label is None else label
        for option, label, name in zip(options, labels, joined, strict=True)
    ]


def _word(option: Any, key: str) -> Any:
    """What an option of a key is called; none for a block that no single word names."""
    if option is None and key == "pretrain":
        return SCRATCH
    if not isinstance(option, Block):
        return option
    task, start = option.get("task"), option.get("from")
    named = task if isinstance(task, Block) else option
    if isinstance(named.get("name"), str):
        return named["name"]
    return start.rstrip("/").rpartition("/")[2] if isinstance(start, str) else None
