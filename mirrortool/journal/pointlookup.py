"""What a point means in one journal: the only way from what people name to a commit.

Rule: a point that the journal does not have is refused, never replaced by another. It has what its frames, heartbeats
included, have come to; what is later may still come; to wait for that is not done here.
Rule: nothing is called absent that damage may hide. A torn tail hides nothing, as it never was durable.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import suppress

from mirrortool import clock
from mirrortool.errors import JournalError, NotComparableError, TornJournalError, UsageError
from mirrortool.journal.bases.listing import bases
from mirrortool.journal.commits import (
    Commit,
    commits,
    find_commit,
    is_flush_or_mark,
    is_past,
    is_state,
    start_by_time,
)
from mirrortool.journal.copies.directory import makes_a_commit
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import NEWEST, Until
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import position_at
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.times import format_time

Accept = Callable[[Commit], bool]

_NOUNS: dict[Accept | None, str] = {
    None: "commit",
    is_flush_or_mark: "flush commit or mark",
    is_state: "commit that is a state of the primary",
}
_NEAR_MAX = 3
_SECONDS = range(10**9, 1 << 33)
"""Numbers that are more likely seconds since 1970 than LSNs: from 2001 on."""


def require_commit(
    journal: Journal, until: Until | None = None, accept: Accept | None = None, *, up_to_damage: bool = False
) -> Commit:
    """The last commit at or before a point, by default the newest.

    Args:
        accept: which commits count: None, `is_flush_or_mark` or `is_state`.
        up_to_damage: where damage may hide the point, what there is before it; for a caller that reads on to the point,
            and so finds the damage.
    Raises:
        UsageError: the journal does not have that point.
        NotComparableError: it has, but no commit that counts; or no commit yet.
        JournalError: damage may hide it.
    """
    if until is not None:
        _check_has(journal, until, up_to_damage=up_to_damage)
    commit = find_commit(journal, until, accept)
    if commit is None:
        raise_what_hides_commits(journal, until)
        raise _no_commit(journal, until, accept)
    return commit


def check_none_hidden(journal: Journal, commit: Commit, until: Until | None) -> None:
    """The commit that `require_commit` found is the last at or before the point: no damage after it may hide another.

    Of a mark nothing is hidden, as it was found.

    Raises:
        JournalError: damage may hide one.
    """
    if until is not None and (until.mark is not None or until.lsn == commit.lsn):
        return
    with suppress(TornJournalError), JournalReader(journal, commit.position) as reader:
        try:
            while (header := reader.next_header()) and not header.is_commit:
                pass
            if header:
                reader.batch(payload=False)
        except JournalError:
            if until is None or not is_past(reader.position.next_lsn, reader.time_ns, until):
                raise


def check_may_come(journal: Journal, until: Until) -> None:
    """A point that is waited for is there, or may come.

    Raises:
        UsageError: it never will, as the journal has gone past it, and had no commit before.
    """
    if find_commit(journal, until) is not None:
        return
    with suppress(JournalError):  # a follower meets the damage, and waits at a torn tail
        oldest = next(commits(journal), None)
        if oldest and is_past(oldest.lsn, oldest.time_ns, until):
            raise _no_commit(journal, until, None)


def commits_from(journal: Journal, since: Until) -> Iterator[Commit]:
    """The commits at or after a point, oldest first.

    Raises:
        UsageError: as `position_before`.
        JournalError: after the commits before the torn tail or the damage.
    """
    return commits(journal, position_before(journal, since))


def position_before(journal: Journal, since: Until) -> Position | None:
    """Before the frame with an LSN or a mark, or the first one not older than a time; None for the oldest that is left.

    Raises:
        UsageError: the journal does not have that point. One does not ask for a time between the newest frame and now,
            nor for one before the oldest, but for what came since: it is nothing, or all.
        JournalError: it is damaged before that.
    """
    begin_ns = since.begin_ns
    if begin_ns is None or begin_ns > clock.now_ns():
        _check_has(journal, since, up_to_damage=True)
    if begin_ns is not None:
        return _seek(journal, start_by_time(journal, begin_ns), lambda _, time_ns: time_ns >= begin_ns)
    wanted = since.lsn if since.lsn is not None else require_commit(journal, since).lsn
    return _seek(journal, _start_of_file(journal, wanted), lambda lsn, _: lsn >= wanted)


def position_after(journal: Journal, point: Until) -> Position:
    """Where what follows a point begins: after an LSN or mark; of a time, before the first frame not older than it.

    Raises:
        UsageError: the journal does not have that point.
        JournalError: it is damaged there.
    """
    _check_has(journal, point, up_to_damage=False)
    if point.lsn is not None:
        return position_at(journal, point.lsn)
    if point.time_ns is None:
        return require_commit(journal, point).position
    starts = journal.file_starts()
    position = position_before(journal, point)
    if position is None and starts and starts[0] > 1:
        raise _no_commit(journal, point, None)
    return position or journal.start


def _seek(journal: Journal, start: Position | None, is_wanted: Callable[[int, int], bool]) -> Position | None:
    """Before the first frame of which LSN and time are wanted, or after the last that can be read; from `start` on."""
    position = start
    with suppress(JournalError), JournalReader(journal, start, headers_only=True) as reader:
        while (header := reader.next_header()) and not is_wanted(header.position.lsn, header.time_ns):
            position = header.position
    return position


def _start_of_file(journal: Journal, lsn: Lsn) -> Position | None:
    """Before the first frame of the file that holds an LSN; None for that of the oldest."""
    first_lsn = journal.file_holding(lsn)
    if first_lsn is None:
        return None
    with JournalReader(journal, first_lsn=first_lsn, headers_only=True) as reader:
        return reader.position


def _check_has(journal: Journal, until: Until, *, up_to_damage: bool) -> None:
    """The journal has come to the point. Whether it has a commit there is another question."""
    if until.mark is not None:
        if find_commit(journal, until) is None:
            raise _no_mark(journal, until.mark)
        return
    try:
        end = _find_end(journal, until)
    except JournalError:
        if up_to_damage:
            return
        raise
    if end is None:
        return
    lsn, time_ns = end
    if until.lsn is not None:
        hint = f"; as seconds since 1970 it is @{until.lsn}" if until.lsn in _SECONDS else ""
        raise _refusal(journal, f"LSN {until.lsn} is above the newest, {lsn}{hint}")
    assert until.begin_ns is not None
    if not time_ns:
        raise _refusal(journal, f"no frame yet, and so nothing of {format_time(until.begin_ns)}")
    raise _refusal(
        journal, f"the newest frame is of {format_time(time_ns)}, so {format_time(until.begin_ns)} is not known yet"
    )


def _refusal(journal: Journal, what: str) -> UsageError:
    return UsageError(
        what, where=journal.path, remedy=f"mirrortool log lists what there is; {NEWEST!r} is the newest commit"
    )


def _find_end(journal: Journal, until: Until) -> tuple[int, int] | None:
    """LSN and time of the newest frame; None as soon as the journal has come to the point. Reads its newest file."""
    for first_lsn in reversed(journal.file_starts()):
        with suppress(TornJournalError), JournalReader(journal, first_lsn=first_lsn) as reader:
            return _end_in(reader, until)
        # Torn in its header, it is only begun.
    return None if _has_come(NO_LSN, 0, until) else (0, 0)


def _end_in(reader: JournalReader, until: Until) -> tuple[int, int] | None:
    with suppress(TornJournalError):
        while not _has_come(reader.position.lsn, reader.time_ns, until) and reader.next_header():
            pass
    return None if _has_come(reader.position.lsn, reader.time_ns, until) else (reader.position.lsn, reader.time_ns)


def _has_come(lsn: Lsn, time_ns: int, until: Until) -> bool:
    if until.lsn is not None:
        return lsn >= until.lsn
    return until.begin_ns is None or time_ns >= until.begin_ns


def _no_mark(journal: Journal, name: str) -> UsageError:
    """That there is no such mark, and which are like it.

    Raises:
        JournalError: damage may hide it.
    """
    marks = dict.fromkeys(commit.name for commit in _all_commits(journal) if commit.name)
    near = difflib.get_close_matches(name, marks, _NEAR_MAX)
    if near:
        return UsageError(f"no mark {name}; near: {', '.join(near)}", where=journal.path)
    return UsageError(f"no mark {name}", where=journal.path, remedy="mirrortool log lists those that there are")


def _no_commit(journal: Journal, until: Until | None, accept: Accept | None) -> UsageError | NotComparableError:
    noun = _NOUNS[accept]
    oldest = next(filter(accept, _all_commits(journal)), None)
    if until is None or until.is_newest or (accept is is_state and find_commit(journal, until)):
        remedy = "mirrortool log lists the others" if find_commit(journal, None) else makes_a_commit(journal.path)
        return NotComparableError(f"no {noun}{_phrase(until) or ' yet'}", where=journal.path, remedy=remedy)
    what = f"no {noun}{_phrase(until)}"
    if oldest is None:
        return UsageError(what, where=journal.path, remedy="mirrortool log lists what there is")
    return UsageError(f"{what}; the oldest is {_oldest(journal, oldest)}", where=journal.path)


def _oldest(journal: Journal, oldest: Commit) -> str:
    """The oldest commit; of a journal that was pruned, the base without which no new mirror gets to any."""
    starts = journal.file_starts()
    if starts and starts[0] > 1 and (known := bases(journal, [])):
        return f"base {known[0].lsn} of {format_time(known[0].header.time_ns)}"
    return f"{oldest.lsn} of {format_time(oldest.time_ns)}"


def _phrase(until: Until | None) -> str:
    if until is None or until.is_newest:
        return ""
    if until.time_ns is not None:
        return f" at or before {format_time(until.time_ns)}"
    return f" at or before {f'LSN {until.lsn}' if until.mark is None else f'mark {until.mark}'}"


def _all_commits(journal: Journal) -> Iterator[Commit]:
    """All that are readable; damage is raised, a torn tail is not."""
    with suppress(TornJournalError):
        yield from commits(journal)


def raise_what_hides_commits(journal: Journal, until: Until | None) -> None:
    """Read what was searched for a commit again, as nothing may be called absent that is only damaged."""
    for commit in commits(journal):
        if until is not None and is_past(commit.lsn, commit.time_ns, until):
            return
