"""Where the lanes of a picture are: a row for each task, below a heading for its group.

Rule: few lanes are high enough for two lines of text in a block, many for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mirrortool.trace.scene import Lane

WIDTH = 1000
LEFT = 74.0
RIGHT = WIDTH - 8.0
TOP = 66.0

_HEADING = 26.0
_HIGH, _LOW = 48.0, 34.0
_HIGH_LANES_MAX = 16
_BETWEEN = 16.0
"""Above each block, for arrows."""


class Lanes:
    """The rows, from top to bottom.

    Attributes:
        block_height: pixels.
        bottom: below the last row.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        pitch = _HIGH if len(lanes) <= _HIGH_LANES_MAX else _LOW
        self.block_height = pitch - _BETWEEN
        self._tops: dict[Lane, float] = {}
        self._headings: dict[int, float] = {}
        y = TOP
        for lane in lanes:
            if lane[0] not in self._headings:
                self._headings[lane[0]] = y
                y += _HEADING
            self._tops[lane] = y + _BETWEEN / 2
            y += pitch
        self.bottom = y + 4

    @property
    def has_two_lines(self) -> bool:
        """Whether a block has room for them."""
        return self.block_height >= _HIGH - _BETWEEN

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._tops

    def top(self, lane: Lane) -> float:
        """Where the blocks of a task begin."""
        return self._tops[lane]

    def middle(self, lane: Lane) -> float:
        """Half-way down its blocks."""
        return self._tops[lane] + self.block_height / 2

    def edge_towards(self, lane: Lane, other: Lane) -> float:
        """The upper or the lower edge of its blocks: that which is nearer to another lane; the upper for itself."""
        return self._tops[lane] + (self.block_height if self._tops[other] > self._tops[lane] else 0)

    def headings(self) -> Iterator[tuple[int, float]]:
        """Each group, and where its heading begins."""
        return iter(self._headings.items())

    def rows(self) -> Iterator[tuple[Lane, float]]:
        """Each task, and the middle of its row."""
        return ((lane, self.middle(lane)) for lane in self._tops)
