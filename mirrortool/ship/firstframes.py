"""The first frames of a connection: those after the end of the copy, or a base in place of those that are gone.

Rule: no byte of a base is sent before its frame was checked, and its last bytes are sent after all of it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mirrortool.errors import ForkedJournalError, MissingFileError
from mirrortool.journal.bases.basefile import BaseFile
from mirrortool.journal.bases.listing import Base, bases
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import RunReader
from mirrortool.wording import quoted_word


@dataclass(frozen=True, slots=True)
class First:
    """What is sent first.

    Attributes:
        base: is sent before everything; None if the journal continues where the copy ends.
        reader: of the frames after that: with a base, from the start of the file that holds its commit.
    """

    base: Base | None
    reader: RunReader


class BasePart(NamedTuple):
    """Bytes of a base, which start at `offset`; none while more of it is being checked."""

    offset: int
    data: bytes


def first_after(journal: Journal, position: Position | None, name: str) -> First:
    """What follows `position`, or, without one, everything: a one-way link needs all of it.

    The only place that decides this. A copy gets the newest base, as the least is to be sent then; a one-way link gets
    the oldest, as its reader may have the journal up to that, and needs no base.

    Raises:
        MissingFileError: the frame that follows is gone, and no base replaces it.
        ForkedJournalError: the journal does not contain the position.
        JournalError: the header of a base is damaged.
    """
    oldest = next(iter(journal.file_starts()), 1)
    if oldest > (position.lsn if position else 0) + 1:
        return _with_base(journal, oldest, position, name)
    try:
        return First(None, RunReader(journal, position))
    except ForkedJournalError as error:
        raise ForkedJournalError(
            f"{error.what}, while the copy {name} has the former",
            where=journal.path,
            remedy="the copy follows another history: ship to a new path, and keep it until you know which is right",
        ) from None


def checked_parts(base: BaseFile, start: int, bytes_max: int) -> Iterator[BasePart]:
    """The bytes of a base from `start` on, in parts; an empty one while nothing more is checked for a while.

    Raises:
        CorruptJournalError: the base is damaged; without its end, the parts before are useless.
    """
    for _ in base.frames(payload=False):
        yield from _parts(base, start, base.checked, bytes_max)
        start = max(start, base.checked)
        yield BasePart(start, b"")
    yield from _parts(base, start, base.size, bytes_max)


def _parts(base: BaseFile, start: int, end: int, bytes_max: int) -> Iterator[BasePart]:
    for offset in range(start, end, bytes_max):
        yield BasePart(offset, base.raw(offset, min(bytes_max, end - offset)))


def _with_base(journal: Journal, oldest: int, position: Position | None, name: str) -> First:
    # A copy that begins at a base needs its commit: the file that holds that is kept while the base is (plan.py).
    missing: list[MissingFileError] = []
    fit = [base for base in bases(journal, missing) if base.lsn >= oldest]
    if not fit and missing:
        raise missing[0]
    if not fit:
        raise MissingFileError(
            f"begins at LSN {oldest}, but {name} needs LSN {(position.lsn if position else 0) + 1}, and no base "
            "replaces what is gone",
            where=journal.path,
            remedy=f"mirrortool base {quoted_word(journal.path)} makes one",
        )
    base = fit[-1] if position else fit[0]
    return First(base, RunReader(journal, first_lsn=journal.file_holding(base.lsn)))
