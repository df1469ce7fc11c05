"""Where a view of a commit begins: the newest base at or before it, or LSN 0; and the hold that keeps it there."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from mirrortool.errors import AccessError, HostError, MissingFileError, NoSpaceError, PrunedJournalError
from mirrortool.journal import holds, slots
from mirrortool.journal.bases.basefile import BaseFile
from mirrortool.journal.bases.listing import base_lsns, open_base
from mirrortool.journal.commits import Commit
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.lsn import Lsn
from mirrortool.volume import VolumeSet
from mirrortool.wording import quoted_word


@dataclass(frozen=True, slots=True)
class Origin:
    """Where it begins.

    Attributes:
        base: open; None to begin with volumes of zeros.
        position: what the frames of the journal are read after.
        volumes: with their sizes there.
        file_starts: first LSNs of the journal files that are read.
    """

    base: BaseFile | None
    position: Position
    volumes: VolumeSet
    file_starts: tuple[Lsn, ...]


def open_origin(journal: Journal, commit: Commit, doing: str, opening: ExitStack) -> tuple[Origin, HostError | None]:
    """Where a view of a commit begins, and why it is not held, if it is not; `opening` closes base and hold.

    Raises:
        PrunedJournalError: what it needs is gone.
        MissingFileError: the base that it needs lies elsewhere, and is not there.
        JournalError: the header of that base is damaged.
        LockedError: the slots of the journal are locked for long.
    """
    try:
        with slots.locked(journal):
            holds.remove_dead(journal)
            origin = _find(journal, commit, opening)
            opening.callback(holds.hold(journal, origin.position.lsn, doing).close)
            return origin, None
    except (AccessError, NoSpaceError) as error:
        return _find(journal, commit, opening), error


def _find(journal: Journal, commit: Commit, opening: ExitStack) -> Origin:
    starts = journal.file_starts()
    first_lsn = starts[0] if starts else 1
    missing: MissingFileError | None = None
    known = base_lsns(journal)
    for lsn in reversed([each for each in known if first_lsn <= each + 1 and each <= commit.lsn]):
        try:
            base = opening.enter_context(open_base(journal, lsn))
        except MissingFileError as error:
            missing = missing or error
            continue
        return Origin(
            base, base.header.position, base.volumes, files_between(starts, base.header.position.lsn, commit.lsn)
        )
    if first_lsn == 1:
        return Origin(None, journal.start, journal.volumes, files_between(starts, journal.start.lsn, commit.lsn))
    if missing:
        raise missing
    later = [each for each in known if first_lsn <= each + 1]
    if later:
        raise PrunedJournalError(
            f"begins with LSN {first_lsn}; the oldest point that can be restored is base {later[0]}",
            where=journal.path,
            remedy="ask for a later one",
        )
    raise PrunedJournalError(
        f"begins with LSN {first_lsn}, and the journal has no base after that",
        where=journal.path,
        remedy=f"mirrortool base {quoted_word(journal.path)} makes one",
    )


def files_between(starts: list[Lsn], after: Lsn, last: Lsn) -> tuple[Lsn, ...]:
    """Of the files that begin with these LSNs, those that hold what comes after an LSN, up to another."""
    if not starts:
        return ()
    ends = [*(Lsn(start - 1) for start in starts[1:]), last]
    return tuple(start for start, end in zip(starts, ends, strict=True) if start <= last and end > after)
