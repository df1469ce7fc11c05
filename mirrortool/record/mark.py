"""Marks: a commit with a name, of what a running recorder has acknowledged, or of an idle journal's newest commit."""

from __future__ import annotations

from mirrortool import files
from mirrortool.errors import LockedError, NotComparableError, UsageError
from mirrortool.journal.commits import newest_commits
from mirrortool.journal.point import MARK_NAMES, is_mark_name
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.jsonfile import Fields
from mirrortool.operation import BatchBuilder, CommitKind
from mirrortool.record.controlsocket import ask
from mirrortool.record.recovery import OpenJournal


def mark(journal_path: str, name: str) -> Position:
    """Append a MARK: a commit with a name. A running recorder makes it; else it is of the state of the newest commit.

    A name may be given again; the newest counts.

    Raises:
        UsageError: a mark cannot have this name.
        NotComparableError: there is no commit, or operations of an unfinished scan follow the newest.
        LockedError: another process has the journal; or its recorder does not answer, and may make the mark later.
    """
    if not is_mark_name(name):
        raise UsageError(f"{name!r} is not a mark's name: {MARK_NAMES}")
    made = _ask_for_mark(journal_path, name)
    if made is not None:
        return made
    with OpenJournal(journal_path, doing="mark") as opened:
        if files.exists(opened.journal.detached_path):
            raise NotComparableError(
                "the journal had no room, and lacks some of what the volumes have",
                where=journal_path,
                remedy="make room, and record until it has caught up",
            )
        newest = next(iter(newest_commits(opened.journal, 1)), None)
        if newest is None or newest.kind == CommitKind.INCOMPLETE or not _is_whole(opened, newest.position):
            what = "no commit yet" if newest is None else "an unfinished scan is all there is after the newest commit"
            raise NotComparableError(
                f"{what}, so there is nothing to mark", where=journal_path, remedy="run mirrortool record first"
            )
        builder = BatchBuilder(opened.journal.page_size)
        kind = CommitKind.INTERVAL if newest.is_heartbeat else newest.kind
        builder.commit(kind, opened.writer.durable.lsn, name)
        position = opened.writer.append(builder.build(), captured=True, state_sum=opened.sums.state_sum)
        opened.writer.sync()
        opened.save_checkpoint({})
        return position


def _is_whole(opened: OpenJournal, commit: Position) -> bool:
    """Whether the journal ends with a commit, or with all that clients were acknowledged, as a crash leaves it.

    An earlier start may have redone that, and ended before it made a commit.
    """
    if commit == opened.writer.position:
        return True
    if opened.checkpoint.incomplete:
        return False
    if opened.redone:
        return True
    with JournalReader(opened.journal, commit, headers_only=True) as reader:
        return not any(header.is_captured for header in iter(reader.next_header, None))


def _ask_for_mark(journal_path: str, name: str) -> Position | None:
    """Where a running recorder made the mark; None if none is running."""
    try:
        answer = ask(journal_path, {"request": "mark", "name": name})
        return None if answer is None else Position.from_json(Fields(answer, journal_path, _UnknownAnswerError))
    except LockedError as error:
        error.remedy = f"whether it makes the mark is not known: see mirrortool log, or mark again; {error.remedy}"
        raise


class _UnknownAnswerError(LockedError):
    """A recorder has the journal, and answers what this version cannot parse."""

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        remedy = "upgrade mirrortool, and start the recorder again"
        super().__init__(f"what the recorder answers is not valid: {what}", where=where, remedy=remedy)
