"""Gives the newest commit of a resting journal a name."""

from __future__ import annotations

from mirrortool.errors import NotComparableError, UsageError
from mirrortool.journal.commits import newest_commits
from mirrortool.journal.position import Position
from mirrortool.operation import MARK_NAME, BatchBuilder
from mirrortool.record.recovery import OpenJournal


def mark(journal_path: str, name: str) -> Position:
    """Append a MARK: a commit with a name, of the state of the newest commit.

    A name may be given again; the newest counts.

    Raises:
        UsageError: this can be no mark's name.
        NotComparableError: there is no commit, or operations of an unfinished scan follow the newest.
        LockedError: a recorder has the journal.
    """
    if not MARK_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no mark's name: a letter, then letters, digits, '.', '_', '-', at most 64")
    with OpenJournal(journal_path) as opened:
        newest = next(iter(newest_commits(opened.journal, 1)), None)
        if newest is None or newest.position != opened.writer.position:
            what = "no commit yet" if newest is None else "an unfinished scan follows the newest commit"
            raise NotComparableError(
                f"{what}, so there is nothing to mark", where=journal_path, remedy="run mirrortool record first"
            )
        builder = BatchBuilder(opened.journal.page_size)
        builder.commit(newest.kind, opened.writer.durable.lsn, name)
        position = opened.writer.append(builder.build(), captured=True, state_sum=opened.sums.state_sum)
        opened.writer.sync()
        opened.save_checkpoint({})
        return position
