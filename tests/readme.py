"""What the documents tell their readers to type, or to write into files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

DOCUMENTS = [
    REPOSITORY / folder / "README.md"
    for folder in ("", "study", "search_spaces", "analysis", "tests")
]

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Args:
        place: document and line.
        language: as the fence says.
        text: what stands in it.
    """

    place: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    """All fenced blocks of a language, document by document."""
    found = []
    for document in DOCUMENTS:
        text, name = document.read_text(), document.relative_to(REPOSITORY)
        for match in FENCED.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 2
                found.append(Block(f"{name}:{line}", language, match[2]))
    return found


def example(name: str) -> str:
    """The block of code below `<!-- name -->`, in whichever document it stands."""
    marked = re.compile(
        rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE
    )
    found = [match[1] for document in DOCUMENTS for match in marked.finditer(document.read_text())]
    assert len(found) == 1, f"{len(found)} blocks are named {name}"
    return found[0]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Place and words of each simple command in a block of shell, scripts left out."""
    for block in blocks("sh"):
        if block.text.startswith("#!"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<()")
            lexer.whitespace_split = True
            simple: list[str] = []
            for word in lexer:
                if set(word) <= set("&|;<()"):
                    yield block.place, simple
                    simple = []
                else:
                    simple.append(word)
            yield block.place, simple


def whole_space() -> str:
    """The space that is explained line by line."""
    return next(block.text for block in blocks("yaml") if block.text.startswith("question: Which"))


def write_examples(folder: Path) -> None:
    """Write all files that the documents tell their readers to write."""
    text = "".join(document.read_text() for document in DOCUMENTS)
    for name in re.findall(r"<!-- (\w+\.(?:py|yaml)) -->", text):
        (folder / name).write_text(example(name))
    (folder / "my_space.yaml").write_text(whole_space())
