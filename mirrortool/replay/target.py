"""Where a replay goes: the commit that it is to reach, and the place from which it gets there."""

from __future__ import annotations

from mirrortool import clock
from mirrortool.errors import NotComparableError, UsageError
from mirrortool.journal.commits import Commit, Until, commits, find_commit, is_flush, is_past
from mirrortool.journal.directory import Journal
from mirrortool.jsonfile import INTEGER_MAX
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.replay.start import Start, choose_start


def start_towards(
    journal: Journal, checkpoint: Checkpoint, target: Commit | None, until: Until | None, delay_seconds: float
) -> Start:
    """Where a replay to `target` begins; without one, of one that follows, with what that is limited by.

    Raises:
        PrunedJournalError: what the mirror needs next is gone, and no base helps.
    """
    if target:
        return choose_start(journal, checkpoint, target.lsn)
    last_lsn = until.lsn if until and until.lsn is not None else INTEGER_MAX
    last_ns = until.time_ns if until and until.time_ns is not None else INTEGER_MAX
    if delay_seconds:
        last_ns = clock.now_ns() - int(delay_seconds * 1e9)
    return choose_start(journal, checkpoint, last_lsn, last_ns)


def stop_point(journal: Journal, until: Until | None, follow: bool, delay_seconds: float) -> Until | None:
    """The point to stop at, with the delay of a replay that does not follow; a mark that is there as its LSN."""
    if until is not None and delay_seconds:
        raise UsageError("a delay and a point to stop at exclude each other")
    if delay_seconds and not follow:
        return Until(time_ns=clock.now_ns() - int(delay_seconds * 1e9))
    if follow and until is not None and until.mark is not None and (found := find_commit(journal, until)):
        return Until(lsn=found.lsn)
    return until


def require_commit(journal: Journal, until: Until | None, *, flush_only: bool = False) -> Commit:
    """The commit that a replay goes to.

    Raises:
        UsageError, NotComparableError: there is none.
        JournalError: damage may hide it.
    """
    commit = find_commit(journal, until, is_flush if flush_only else None)
    if commit is None:
        _raise_what_hides_commits(journal, until)
    if commit is None and until is not None:
        raise UsageError("no commit at or before that point", where=journal.path, remedy="mirrortool log lists them")
    if commit is None:
        raise NotComparableError(
            "no commit yet, so there is nothing to replay", where=journal.path, remedy="mirrortool record makes one"
        )
    return commit


def _raise_what_hides_commits(journal: Journal, until: Until | None) -> None:
    """Read what was searched for a commit again, as nothing may be called absent that is only damaged."""
    for commit in commits(journal):
        if until is not None and is_past(commit.lsn, commit.time_ns, until):
            return
