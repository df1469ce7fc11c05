"""Chooses the commit that a replay is to reach, and whether it begins at the mirror or at a base to reach it."""

from __future__ import annotations

from typing import NoReturn

from mirrortool import clock
from mirrortool.errors import NotComparableError, UsageError
from mirrortool.journal.commits import Commit, find_commit, is_flush_or_mark
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.journal.pointlookup import check_may_come, raise_what_hides_commits, require_commit
from mirrortool.jsonfile import INTEGER_MAX
from mirrortool.lsn import Lsn
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.replay.startposition import Start, choose_start


def start_towards(
    journal: Journal, checkpoint: Checkpoint, goal: Commit | None, until: Until | None, delay_seconds: float
) -> Start:
    """Where a replay to `goal` begins; without a goal, one that follows, within its limits.

    Raises:
        PrunedJournalError: what the mirror needs next is gone, and no base helps.
    """
    if goal:
        return choose_start(journal, checkpoint, goal.lsn)
    last_lsn = until.lsn if until and until.lsn is not None else INTEGER_MAX
    last_ns = until.time_ns if until and until.time_ns is not None else INTEGER_MAX
    if delay_seconds:
        last_ns = clock.now_ns() - int(delay_seconds * 1e9)
    return choose_start(journal, checkpoint, Lsn(last_lsn), last_ns)


def find_goal(
    journal: Journal, until: Until | None, delay_seconds: float = 0.0, *, flush_only: bool = False
) -> tuple[Until | None, Commit]:
    """The point where a replay that ends stops, and the commit there.

    Raises:
        UsageError: the journal does not have that point.
        NotComparableError: it has no such commit yet.
        JournalError: damage hides all commits that could be the goal. Where it hides only the point, the replay goes
            up to the damage, and finds it.
    """
    _check_excluded(until, delay_seconds)
    accept = is_flush_or_mark if flush_only else None
    if delay_seconds:
        old = Until(time_ns=clock.now_ns() - int(delay_seconds * 1e9))
        return old, find_commit(journal, old, accept) or _raise_none_old_enough(journal, old)
    commit = require_commit(journal, until, accept, up_to_damage=True)
    return None if until is None or until.is_newest else until, commit


def stop_point(journal: Journal, until: Until | None, delay_seconds: float) -> Until | None:
    """The point where a replay that follows stops; as an LSN, if the journal has it already.

    Raises:
        UsageError: it will never come.
        NotComparableError: the newest commit is asked for, and there is none.
    """
    _check_excluded(until, delay_seconds)
    if until is None:
        return None
    if until.is_newest:
        return Until(lsn=require_commit(journal, until).lsn)
    if until.mark is not None and (found := find_commit(journal, until)):
        return Until(lsn=found.lsn)
    check_may_come(journal, until)
    return until


def _check_excluded(until: Until | None, delay_seconds: float) -> None:
    if until is not None and delay_seconds:
        raise UsageError("a delay and a point to stop at exclude each other")


def _raise_none_old_enough(journal: Journal, old: Until) -> NoReturn:
    raise_what_hides_commits(journal, old)
    raise NotComparableError(
        "no commit is as old as the delay yet", where=journal.path, remedy="replay again when one is"
    )
