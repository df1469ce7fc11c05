"""Which bytes of a file a power cut leaves, by chance or one possibility after another; the rules: diskstate.py."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Protocol

from tests.fakes.disknodes import SECTOR, Resize, Write, sectors_of


class Chooser(Protocol):
    """What decides which of several states survives."""

    def turn(self) -> None:
        """Other names or another file come."""

    def is_in_order(self) -> bool: ...

    def keeps(self) -> bool: ...

    def version(self, low: int, high: int) -> int: ...

    def size(self, low: int, high: int) -> int: ...


class Sampled:
    """By chance; often all or nothing."""

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._share = chance, 1.0

    def turn(self) -> None:
        self._share = self._chance.choice([0.0, 0.5, 0.9, 1.0])

    def is_in_order(self) -> bool:
        return self._chance.random() < 0.3

    def keeps(self) -> bool:
        return self._chance.random() < self._share

    def version(self, low: int, high: int) -> int:
        if low == high or self.keeps():
            return high
        return self._chance.choice([low, self._chance.randrange(low, high)])

    def size(self, low: int, high: int) -> int:
        return high if self._chance.random() < 0.5 else self._chance.randrange(low, high + 1)


class Oldest:
    """Nothing that was not synced."""

    def turn(self) -> None:
        pass

    def is_in_order(self) -> bool:
        return False

    def keeps(self) -> bool:
        return False

    def version(self, low: int, high: int) -> int:
        return low

    def size(self, low: int, high: int) -> int:
        return low


class Newest(Oldest):
    """Everything."""

    def keeps(self) -> bool:
        return True

    def version(self, low: int, high: int) -> int:
        return high

    def size(self, low: int, high: int) -> int:
        return high


class Enumerated:
    """One combination after another, all of them; a size is of whole sectors, or one that the file had.

    Attributes:
        has_differed: what is decided was not what was decided before, as it is of another run of a program.
    """

    has_differed = False

    def __init__(self) -> None:
        self._picks: list[list[int]] = []  # of each decision the pick, and of how many
        self._next = 0

    def advance(self) -> bool:
        """On to the next combination; whether there is one."""
        while self._picks and self._picks[-1][0] + 1 == self._picks[-1][1]:
            self._picks.pop()
        self._next = 0
        if not self._picks:
            return False
        self._picks[-1][0] += 1
        return True

    def turn(self) -> None:
        pass

    def is_in_order(self) -> bool:
        return False

    def keeps(self) -> bool:
        return bool(self._pick(2))

    def version(self, low: int, high: int) -> int:
        return low + self._pick(high - low + 1)

    def size(self, low: int, high: int) -> int:
        sizes = sorted({low, high, *range(low - low % SECTOR + SECTOR, high, SECTOR)})
        return sizes[self._pick(len(sizes))]

    def _pick(self, count: int) -> int:
        if self._next == len(self._picks):
            self._picks.append([0, count])
        pick, of = self._picks[self._next]
        self.has_differed |= of != count
        self._next += 1
        return min(pick, count - 1)


def survive(medium: bytes, changes: list[Write | Resize], chooser: Chooser, dropped: set[int]) -> bytes:
    """What a cut leaves of a file that had `medium` durable, and these changes since."""
    resizes = [number for number, change in enumerate(changes) if isinstance(change, Resize)]
    kept = chooser.version(0, len(resizes))
    end = resizes[kept] if kept < len(resizes) else len(changes)  # where the first lost resize is
    first, last, sizes = _versions(medium, changes, end)
    chosen = {sector: chooser.version(first[sector], last[sector]) for sector in sorted(last)}
    chosen.update((sector, 0) for sector in dropped if sector in chosen)
    # A file has a version of a sector when as many changes touched the sector.
    image = bytearray(medium.ljust(max(sizes), b"\0"))
    result, seen = bytearray(image), defaultdict(int)
    for change, size in zip(changes, sizes, strict=False):
        if isinstance(change, Write):
            image[change.offset : change.end] = change.data
        else:
            image[change.size :] = bytes(len(image) - change.size)
        for sector in _touched(change, size):
            seen[sector] += 1
            if seen[sector] == chosen[sector]:
                place = slice(sector * SECTOR, sector * SECTOR + SECTOR)
                result[place] = image[place]
    begin = resizes[kept - 1] + 1 if kept else 0
    return bytes(result[: chooser.size(sizes[begin], sizes[end])])


def _versions(
    medium: bytes, changes: list[Write | Resize], end: int
) -> tuple[dict[int, int], dict[int, int], list[int]]:
    """The oldest and the newest version of each sector that may be, and the size before each change, and after all."""
    first: dict[int, int] = defaultdict(int)
    last: dict[int, int] = defaultdict(int)
    closed: set[int] = set()  # sectors that a lost resize cut: what came after is lost
    size, sizes = len(medium), [len(medium)]
    for number, change in enumerate(changes):
        for sector in _touched(change, size):
            if isinstance(change, Resize) and number >= end:
                closed.add(sector)
                last[sector] += 0
            elif sector not in closed:
                last[sector] += 1
                first[sector] = last[sector] if isinstance(change, Resize) else first[sector]
        size = max(size, change.end) if isinstance(change, Write) else change.size
        sizes.append(size)
    return first, last, sizes


def _touched(change: Write | Resize, size: int) -> range:
    """The sectors that change; of a resize those that it cuts."""
    if isinstance(change, Write):
        return sectors_of(change.offset, len(change.data))
    return sectors_of(change.size, max(0, size - change.size))
