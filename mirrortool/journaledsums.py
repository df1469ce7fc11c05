"""Calculates the table of page sums from a journal alone, from its oldest base if older frames are gone."""

from __future__ import annotations

from mirrortool.errors import PrunedJournalError
from mirrortool.journal.bases.listing import base_lsns, open_base
from mirrortool.journal.bounds import check_inside
from mirrortool.journal.description import empty_state_sum
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import Lsn
from mirrortool.store.pagesums import PageSums


def journaled_sums(journal: Journal, directory: str, last_lsn: Lsn) -> tuple[PageSums, Position]:
    """A new table in a directory, and the position that it is of; the caller applies the frames from there on.

    Args:
        last_lsn: where the caller goes; the position is not after it.
    Raises:
        PrunedJournalError: the older files are gone, and there is no base before `last_lsn`.
        JournalError: the base is damaged.
    """
    starts = journal.file_starts()
    if not starts or starts[0] == 1:
        return PageSums(directory, journal.volumes, journal.first_state_sum, write=True), journal.start
    fit = [lsn for lsn in base_lsns(journal) if starts[0] - 1 <= lsn <= last_lsn]
    if not fit:
        raise PrunedJournalError(
            f"begins with LSN {starts[0]}, and there is no base between that and LSN {last_lsn}", where=journal.path
        )
    with open_base(journal, fit[-1]) as base:
        sums = PageSums(directory, base.volumes, empty_state_sum(base.volumes), write=True)
        try:
            for _, batch in base.frames(payload=False):
                sums.apply_batch(batch)
        except BaseException:
            sums.close()
            raise
        return sums, base.header.position


def sums_as_of(journal: Journal, directory: str, lsn: Lsn) -> PageSums:
    """A new table in a directory of what the journal's operations give up to an LSN, or to its end if that is before.

    Raises:
        PrunedJournalError: as `journaled_sums`.
        JournalError: the journal or the base is damaged, or an operation lies outside the volumes.
    """
    sums, start = journaled_sums(journal, directory, lsn)
    try:
        with JournalReader(journal, start) as reader:
            for header in reader.up_to(lsn):
                batch = reader.batch(payload=False)
                check_inside(header, batch, sums.volumes, journal.path)
                sums.apply_batch(batch)
    except BaseException:
        sums.close()
        raise
    return sums
