"""Numbers for blocks that are too narrow for their LSN and pages, and the list of these below the legend.

Rule: numbers ascend from left to right in a lane, and from lane to lane downwards.
Rule: numbers do not overlap; those that would are one range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mirrortool import svg
from mirrortool.replay.tracing import UnitRun
from mirrortool.trace.footprints import pages_of
from mirrortool.trace.lanes import LEFT, WIDTH

NUMBERED_MAX = 128
"""As many as the units of a part that is chosen, and those that its tasks are at when it begins and ends."""
NUMBER_SIZE = 9
_BETWEEN = 2.0
_COLUMNS_MAX = 5
_SIZE = 11
_ROW = 15.0
_PADDING = 16.0


@dataclass(frozen=True, slots=True)
class NumberedBlock:
    """A unit whose block has a number in place of its text; left and width in pixels."""

    number: int
    unit: UnitRun
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class NumberLabel:
    """A number, or a range of them, and where its middle is."""

    text: str
    x: float


def width_of(label: str) -> float:
    """Pixels that a number needs."""
    return svg.text_width(label, NUMBER_SIZE) + _BETWEEN


def labels_above(blocks: Sequence[NumberedBlock]) -> Iterator[NumberLabel]:
    """The numbers above the blocks of one lane, which are in their order."""
    found: list[tuple[NumberedBlock, NumberedBlock]] = []
    for each in blocks:
        first = each
        while found and _span(first, each)[0] < _span(*found[-1])[1]:
            first = found.pop()[0]
        found.append((first, each))
    return (NumberLabel(_text(*each), sum(_span(*each)) / 2) for each in found)


def _text(first: NumberedBlock, last: NumberedBlock) -> str:
    return str(first.number) if first is last else f"{first.number}-{last.number}"


def _span(first: NumberedBlock, last: NumberedBlock) -> tuple[float, float]:
    """From where to where the label of a range is: above its middle, and in the drawing."""
    half = width_of(_text(first, last)) / 2
    middle = min(max((first.left + last.left + last.width) / 2, LEFT - 4 + half), WIDTH - half)
    return middle - half, middle + half


def number_list(blocks: Sequence[NumberedBlock], top: float) -> tuple[list[str], float]:
    """Lines with LSN and pages of each, and where they end."""
    if not blocks:
        return [], top
    entries = [(str(each.number), _entry(each.unit)) for each in blocks]
    indent = max(svg.text_width(number, _SIZE) for number, _ in entries) * 1.1 + 4
    widest = indent + max(svg.text_width(entry, _SIZE) for _, entry in entries) + _PADDING
    columns = min(max(1, int(WIDTH / widest)), _COLUMNS_MAX, len(entries))
    rows = -(-len(entries) // columns)
    return list(_lines(entries, rows, WIDTH / columns, indent, top + 8)), top + 8 + _ROW * rows


def _lines(entries: Iterable[tuple[str, str]], rows: int, column: float, indent: float, top: float) -> Iterator[str]:
    """Column by column."""
    for index, (number, entry) in enumerate(entries):
        x, y = column * (index // rows), top + _ROW * (index % rows) + 10
        yield svg.text(x, y, number, "block strong")
        yield svg.text(x + indent, y, svg.fitted(entry, _SIZE, column - indent), "block")


def _entry(unit: UnitRun) -> str:
    pages = pages_of(unit)
    is_single = unit.footprint[0][1] == 1 == len(unit.footprint)
    return f"{'✗ ' if unit.failed else ''}LSN {unit.lsn}, page{'' if is_single else 's'} {pages}"
