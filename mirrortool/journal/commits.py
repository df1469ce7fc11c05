"""The commits of a journal: listed, and found by LSN, time or mark.

Headers alone are read, and files are bisected by the time in their headers, so that finding one costs a file, not the
journal. Not here: what people name (point.py), and what is said where the journal does not have that (pointlookup.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mirrortool.errors import JournalError, PrunedJournalError
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader, up_to_what_is_appended
from mirrortool.jsonfile import INTEGER_MAX
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import CommitKind


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit, or a mark if it has a name."""

    position: Position
    time_ns: int
    kind: CommitKind
    state_sum: int
    name: str | None = None
    durable_lsn: Lsn = NO_LSN

    @property
    def lsn(self) -> Lsn:
        return self.position.lsn

    @property
    def is_heartbeat(self) -> bool:
        """Whether it only repeats the commit before it."""
        return self.kind == CommitKind.HEARTBEAT


def commits(journal: Journal, start: Position | None = None) -> Iterator[Commit]:
    """The commits after `start`, by default all that are left, oldest first.

    Raises:
        JournalError: after the commits before the torn tail or the damage.
    """
    with up_to_what_is_appended(journal), JournalReader(journal, start) as reader:
        yield from _commits_of(reader)


def newest_commits(
    journal: Journal,
    count: int,
    damage: list[JournalError] | None = None,
    *,
    heartbeats: bool = True,
    accept: Callable[[Commit], bool] | None = None,
) -> list[Commit]:
    """The newest commits, oldest of them first; reads no older file than it must.

    Args:
        heartbeats: whether those count, which repeat the commit before them.
        damage: takes in what hides commits in the files that were read: those after it in its file, no others.
        accept: which commits count; by default all.
    """
    found: list[Commit] = []
    for first_lsn in reversed(journal.file_starts()):
        in_file = filter(accept, _commits_in_file(journal, first_lsn, damage))
        found = [commit for commit in in_file if heartbeats or not commit.is_heartbeat] + found
        if len(found) >= count:
            break
    return found[-count:]


def marks(journal: Journal) -> list[Commit]:
    """The commits that have a name, oldest first; of a name that was given twice the newest, which is what it means.

    Raises:
        JournalError: the journal is damaged, so that some may be hidden.
    """
    found: dict[str, Commit] = {}
    for commit in commits(journal):
        if commit.name is not None:
            found.pop(commit.name, None)
            found[commit.name] = commit
    return list(found.values())


def find_commit(journal: Journal, until: Until | None, accept: Callable[[Commit], bool] | None = None) -> Commit | None:
    """The last commit at or before a point, by default the newest; None if there is none.

    Of a mark that was given twice, the newest. A point beyond the journal's end counts as its end: what people name
    goes through pointlookup.py, which refuses that.

    Args:
        accept: which commits count; by default all.
    """
    for first_lsn in reversed(_files_to_search(journal, until)):
        for commit in reversed(_commits_in_file(journal, first_lsn)):
            if _is_meant(commit, until) and (accept is None or accept(commit)):
                return commit
    return None


def is_flush_or_mark(commit: Commit) -> bool:
    """Whether a client or a person asked for it: a flush, or a mark."""
    return commit.name is not None or commit.kind == CommitKind.FLUSH


def is_state(commit: Commit) -> bool:
    """Whether it is a state of the primary by itself: neither fuzzy nor incomplete, nor repeating what may be so."""
    return commit.kind in (CommitKind.FLUSH, CommitKind.INTERVAL, CommitKind.SCAN)


def _is_meant(commit: Commit, until: Until | None) -> bool:
    if until is None or until.is_newest:
        return True
    if until.mark is not None:
        return commit.name == until.mark
    return not is_past(commit.lsn, commit.time_ns, until)


def is_past(lsn: Lsn, time_ns: int, until: Until) -> bool:
    """Whether a frame that ends with this LSN, of this time, lies after a point; never after a mark."""
    if until.lsn is not None:
        return lsn > until.lsn
    return until.time_ns is not None and time_ns > until.time_ns


def _files_to_search(journal: Journal, until: Until | None) -> list[Lsn]:
    starts = journal.file_starts()
    if until is None or until.is_newest or until.mark is not None:
        return starts
    if until.lsn is not None:
        return [start for start in starts if start <= until.lsn]
    assert until.time_ns is not None
    return starts[: _files_begun_by(journal, starts, until.time_ns)]


def _files_begun_by(journal: Journal, starts: list[Lsn], time_ns: int) -> int:
    """How many files begin after frames no later than a time: bisects their headers' running maxima."""
    low, high = 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        if _time_before_file(journal, starts[middle:]) <= time_ns:
            low = middle + 1
        else:
            high = middle
    return low


def _time_before_file(journal: Journal, starts: list[Lsn]) -> int:
    """In the header of the first of these files; of the next, where damage hides it and with it the file's commits."""
    for first_lsn in starts:
        with contextlib.suppress(JournalError), JournalReader(journal, None, first_lsn=first_lsn) as reader:
            return reader.time_ns
    return INTEGER_MAX


def start_by_time(journal: Journal, time_ns: int) -> Position | None:
    """Before the frames of the last file that begins after earlier frames only; None if the oldest does not."""
    starts = journal.file_starts()
    begun = _files_begun_by(journal, starts, time_ns - 1)
    if not begun:
        return None
    with JournalReader(journal, None, first_lsn=Lsn(starts[begun - 1])) as reader:
        return reader.position


def _commits_in_file(journal: Journal, first_lsn: Lsn, damage: list[JournalError] | None = None) -> list[Commit]:
    found: list[Commit] = []
    try:
        with JournalReader(journal, None, first_lsn=first_lsn) as reader:
            found.extend(_commits_of(reader, only_file=first_lsn))
    except PrunedJournalError:
        return []  # just now
    except JournalError as error:
        if damage is not None:
            damage.insert(0, error)
    return found


def _commits_of(reader: JournalReader, only_file: int | None = None) -> Iterator[Commit]:
    while header := reader.next_header():
        if only_file is not None and reader.file_first_lsn != only_file:
            return
        if header.is_commit:
            yield commit_of(reader, header)


def kind_of(reader: JournalReader, header: FrameHeader) -> CommitKind | None:
    """What kind of commit the frame is to which the reader has just moved; None if it is none, or brings changes, too.

    Raises:
        JournalError: it cannot be decoded.
    """
    if not header.is_commit or header.operations > 1:
        return None
    return CommitKind(reader.batch(payload=False).pages[-1])


def may_rest(header: FrameHeader, kind: CommitKind | None) -> bool:
    """Whether a recorder that serves follows this frame up with heartbeats, when nothing changes.

    Not while a base is incomplete, nor in a scan; what clients changed is committed within a second or two.

    Args:
        kind: see `kind_of`.
    """
    if kind is not None:
        return kind not in (CommitKind.FUZZY, CommitKind.INCOMPLETE)
    return header.is_commit or not header.is_captured


def newest_change(journal: Journal, after_lsn: Lsn) -> Commit | None:
    """The newest commit after an LSN that is not a heartbeat; None if only heartbeats follow, which change nothing.

    Reads no older file than it must.
    """
    starts = journal.file_starts()
    for place, first_lsn in reversed(list(enumerate(starts))):
        if place + 1 < len(starts) and starts[place + 1] <= after_lsn + 1:
            return None
        for commit in reversed(_commits_in_file(journal, first_lsn)):
            if not commit.is_heartbeat:
                return commit if commit.lsn > after_lsn else None
    return None


def commit_of(reader: JournalReader, header: FrameHeader) -> Commit:
    """The commit that the frame is to which the reader has just moved.

    Raises:
        JournalError: it cannot be decoded.
    """
    batch = reader.batch()
    return Commit(
        header.position,
        header.time_ns,
        CommitKind(batch.pages[-1]),
        header.state_sum,
        batch.name,
        Lsn(batch.counts[-1]),
    )
