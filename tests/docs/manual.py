"""Reads the manual pages as far as the tests need it: sections, list items, literal blocks, examples."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAN = ROOT / "man"
ESCAPES = {r"\-": "-", r"\e": "\\", r"\(dq": '"', r"\(aq": "'", r"\(ti": "~", r"\(ha": "^", r"\(mi": "-", r"\&": ""}
_ESCAPE = re.compile("|".join(map(re.escape, ESCAPES)))
_MACROS = {"Ar", "Cm", "Em", "Ev", "Fl", "Ic", "Nm", "Ns", "No", "Op", "Pa", "Ql", "Sy", "Va", "Xr", "Dq", "Pq"}


@dataclass(frozen=True)
class Example:
    """A command of a page; `is_special` if it needs root or a device."""

    command: str
    is_special: bool


class Page:
    """A manual page by name and section, such as mirrortool-log and 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name, self.section = path.stem, path.suffix[1:]
        self.lines = path.read_text(encoding="ascii").splitlines()

    def part(self, heading: str) -> list[str]:
        """The lines of a section, subsections included; none if the page has no such section."""
        lines: list[str] = []
        inside = False
        for line in self.lines:
            if line.startswith(".Sh "):
                inside = line[4:] == heading
            elif inside:
                lines.append(line)
        return lines

    def sub_part(self, heading: str) -> list[str]:
        """The lines of a subsection."""
        start = self.lines.index(f".Ss {heading}") + 1
        ends = (i for i in range(start, len(self.lines)) if self.lines[i].startswith((".Ss ", ".Sh ")))
        return self.lines[start : next(ends, len(self.lines))]

    def examples(self) -> list[Example]:
        """The commands of EXAMPLES. In section 3 they are Python."""
        return self.commands(literal_lines(self.part("EXAMPLES") if self.section != "3" else ()))

    @staticmethod
    def commands(lines: Iterable[str]) -> list[Example]:
        """The commands of literal lines; a line without a prompt continues the one before."""
        commands: list[str] = []
        for line in lines:
            if line.startswith(("$ ", "# ")):
                commands.append(line)
            else:
                commands[-1] += f"\n{line}"
        return [Example(command[2:], command.startswith("#")) for command in commands]

    def plain(self) -> str:
        """The text without macros, in one line."""
        return plain(self.lines)


def pages() -> list[Page]:
    """All of them, in order of their paths."""
    return [Page(path) for path in sorted(MAN.glob("man?/*.?"))]


def page(name: str, section: int = 1) -> Page:
    """One of them."""
    return Page(MAN / f"man{section}" / f"{name}.{section}")


def unescape(text: str) -> str:
    """What a reader sees of a roff line."""
    return _ESCAPE.sub(lambda match: ESCAPES[match[0]], text)


def literal_lines(lines: Sequence[str]) -> Iterator[str]:
    """The lines of the literal blocks."""
    inside = False
    for line in lines:
        if line.startswith(".Bd -literal"):
            inside = True
        elif line == ".Ed":
            inside = False
        elif inside:
            yield unescape(line)


def items(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Head and text of each list item, nested ones too; macros of the text are taken away."""
    found: list[tuple[str, list[str]]] = []
    inside = False
    for line in lines:
        if line.startswith(".It"):
            found.append((unescape(line[4:]), []))
            inside = True
        elif line == ".El":
            inside = False
        elif inside:
            found[-1][1].append(line)
    return [(head, plain(text)) for head, text in found]


def table(lines: Sequence[str]) -> list[tuple[str, ...]]:
    """The rows of a -column list without their heading; a row may continue in the next lines."""
    rows: list[str] = []
    for line in itertools.takewhile(lambda line: line != ".El", lines):
        if line.startswith(".It "):
            rows.append(line[4:])
        elif rows:
            rows[-1] += f" {line}"
    return [tuple(unescape(row).split(" Ta ")) for row in rows if not row.startswith("Sy ")]


def plain(lines: Sequence[str]) -> str:
    """Text of lines without their macros, in one line."""
    words: list[str] = []
    for line in lines:
        found = line[1:].split() if line.startswith(".") else line.split()
        if line.startswith("."):
            found = [word for word in found if word not in _MACROS]
        words += found
    return re.sub(r" ([.,;:])(?= |$)", r"\1", unescape(" ".join(words)))


def value_of(text: str) -> float:
    """A number as the pages write it, with a unit or as powers of 2."""
    if match := re.fullmatch(r"2\^(\d+)-1", text):
        return (1 << int(match[1])) - 1
    number, _, unit = text.partition(" ")
    return int(number) * {"": 1, "B": 1, "s": 1, "MiB": 1 << 20}[unit]
