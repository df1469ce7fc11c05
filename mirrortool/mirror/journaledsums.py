"""A table of sums made of a journal alone, with its base where it does not reach back to LSN 1."""

from __future__ import annotations

from mirrortool.errors import PrunedJournalError
from mirrortool.journal.bases.listing import base_lsns, open_base
from mirrortool.journal.directory import Journal, empty_state_sum
from mirrortool.journal.position import Position
from mirrortool.store.pagesums import PageSums


def journaled_sums(journal: Journal, directory: str, last_lsn: int) -> tuple[PageSums, Position]:
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
