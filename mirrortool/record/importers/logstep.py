"""The steps of a log, in any format, in the order in which they happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

PIECE_BYTES = 1 << 20
"""The data of a write comes in pieces of at most this many bytes."""


class Action(Enum):
    """What a step does."""

    WRITE = auto()
    ZERO = auto()
    FLUSH = auto()
    MARK = auto()


@dataclass(slots=True)
class Step:
    """One thing that a log says was done.

    Attributes:
        number: of the entry or line that says it.
        at: where in the log that is, in bytes.
        volume, offset, length: of WRITE and ZERO; bytes from the volume's start.
        data_at: where in the log the data is, where there is any.
        text: of a MARK, as the log has it.
    """

    action: Action
    number: int
    at: int
    volume: str = ""
    offset: int = 0
    length: int = 0
    data_at: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a write; without data it reads as zeros."""

    offset: int
    length: int
    data: bytes | None


class Log(Protocol):
    """A log in some format; it can be read many times.

    Attributes:
        path: of its file.
        unit: what its steps are numbered by.
    """

    path: str
    unit: str

    def count(self) -> int:
        """Entries or lines, known once all steps were read."""

    def steps(self) -> Iterator[Step]:
        """All of them.

        Raises:
            BadLogError: at the first that is not valid.
            UsageError: no volume stands for a file that it writes.
        """

    def pieces(self, step: Step) -> Iterator[Piece]:
        """The data of a WRITE in order."""
