"""What a connection sends first: the frames after the end of the copy, or a base in place of those that are gone.

Rule: no byte of a base is sent before the frame around it was checked, and its last ones after all of it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
        base: comes before everything; None if the journal goes on where the copy ends.
        reader: of what comes then: with a base, from the start of the file that holds its commit.
    """

    base: Base | None
    reader: RunReader


def first_after(journal: Journal, position: Position | None, name: str) -> First:
    """What follows `position`, or, without one, everything that there is: a reader that hears no replies has it all.

    The only place that decides this. A copy gets the newest base, as the least is to be sent then; a reader that hears
    nothing gets the oldest, as it may have the journal up to there, and needs no base.

    Raises:
        MissingFileError: the frame that follows is gone, and no base takes its place.
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


def checked_parts(base: BaseFile, start: int, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """The bytes of a base from `start` on: offsets and pieces, an empty one where there is none yet for a while.

    Raises:
        CorruptJournalError: the base is damaged; what is missing then makes what was given out worth nothing.
    """
    for _ in base.frames(payload=False):
        for offset, length in _pieces(start, base.checked, bytes_max):
            yield offset, base.raw(offset, length)
        start = max(start, base.checked)
        yield start, b""
    for offset, length in _pieces(start, base.size, bytes_max):
        yield offset, base.raw(offset, length)


def _pieces(start: int, end: int, bytes_max: int) -> Iterator[tuple[int, int]]:
    for offset in range(start, end, bytes_max):
        yield offset, min(bytes_max, end - offset)


def _with_base(journal: Journal, oldest: int, position: Position | None, name: str) -> First:
    # Who begins at a base needs its commit: the file that holds that stays as long as the base does (plan.py).
    missing: list[MissingFileError] = []
    fit = [base for base in bases(journal, missing) if base.lsn >= oldest]
    if not fit and missing:
        raise missing[0]
    if not fit:
        raise MissingFileError(
            f"begins at LSN {oldest}, but {name} needs LSN {(position.lsn if position else 0) + 1}, and no base "
            "takes the place of what is gone",
            where=journal.path,
            remedy=f"mirrortool base {quoted_word(journal.path)} makes one",
        )
    base = fit[-1] if position else fit[0]
    return First(base, RunReader(journal, first_lsn=journal.file_holding(base.lsn)))
