"""Looks at journals and mirrors, again and again, and reads only what was appended since.

Of a journal, a reader stays open that stands at the newest frame; of a mirror, one that stands at its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mirrortool import clock
from mirrortool.errors import (
    HostError,
    JournalError,
    LockedError,
    MirrortoolError,
    NotAJournalError,
    OtherJournalError,
    PromotedError,
)
from mirrortool.journal.bases.listing import find_missing
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.commits import Commit, commit_of, may_rest, newest_commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.diskspace import room_of
from mirrortool.journal.holds import holds
from mirrortool.journal.newest import ahead_seconds
from mirrortool.journal.overdue import Heard, silent_seconds
from mirrortool.journal.pathkind import PathKind, kind_of, neither
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader, up_to_what_is_appended
from mirrortool.journal.slotpositions import SlotPlaces
from mirrortool.mirror import lastreplay, receipts
from mirrortool.mirror.backingvolumes import find_backings
from mirrortool.mirror.directory import Mirror, Promoted
from mirrortool.mirror.findings import findings
from mirrortool.mirror.lastreplay import LastReplay
from mirrortool.record.controlsocket import ask
from mirrortool.status.activity import work_on_journal, work_on_mirror
from mirrortool.status.lags import Changes, lag, readers_of
from mirrortool.status.missingfiles import Gaps
from mirrortool.status.snapshot import Found, JournalStatus, MirrorStatus, SlotStatus, Unseen


class Watch:
    """Looks at journals and mirrors by their paths; one thread's. Keeps at most two files open for each path."""

    def __init__(self) -> None:
        self._journals: dict[str, _Journal] = {}
        self._places: dict[str, _Place] = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        for journal in self._journals.values():
            journal.close()
        for place in self._places.values():
            place.close()

    def look_at_all(self, paths: Sequence[str]) -> list[Found]:
        """Each of them: what is wrong with one path does not hide the others."""
        return [self._seen(path) for path in paths]

    def _seen(self, path: str) -> Found:
        try:
            return self.look(path)
        except MirrortoolError as error:
            return Unseen(path, error)

    def look(self, path: str) -> JournalStatus | MirrorStatus:
        """How what is at a path stands now.

        Raises:
            NotAJournalError: it is neither a journal nor a mirror.
        """
        kind = kind_of(path)
        if kind == PathKind.MIRROR:
            return self.look_at_mirror(path)
        if kind in (PathKind.JOURNAL, PathKind.COPY):
            return self.look_at_journal(path)
        raise neither(path)

    def look_at_journal(self, path: str) -> JournalStatus:
        """A journal; the first look reads its newest file, and older ones only until a commit is found."""
        return self._journals.setdefault(path, _Journal(path)).look()

    def look_at_mirror(self, path: str) -> MirrorStatus:
        """A mirror, compared with its journal where that is at hand, and what verifications found."""
        work = work_on_mirror(path)  # first: a process that has ended since has left what is read after that
        found = self._look_at_mirror(path)
        verified, known_bad = receipts.newest(found.mirror), findings(found.mirror)
        backings = find_backings(found.mirror)
        return replace(found, work=work, verified=verified, known_bad=known_bad, backings=backings)

    def _look_at_mirror(self, path: str) -> MirrorStatus:
        mirror = Mirror(path)
        checkpoint = mirror.checkpoint
        last = _last_replay(path)
        if mirror.promoted:
            return MirrorStatus(mirror, checkpoint, last, None, None, None, _replaced(mirror, mirror.promoted))
        try:
            journal = self.look_at_journal(mirror.journal_path)
            mirror.check_is_of(journal.journal)
            self._places.setdefault(path, _Place()).require(journal.journal, checkpoint.position)
        except (HostError, NotAJournalError, OtherJournalError):
            return MirrorStatus(mirror, checkpoint, last, None, None, None)
        except JournalError as error:
            return MirrorStatus(mirror, checkpoint, last, None, None, None, error)
        if journal.commit is None:
            return MirrorStatus(mirror, checkpoint, last, journal, None, None, journal.damage)
        newest = self._journals[mirror.journal_path].changes.after(journal.journal, checkpoint.position.lsn)
        behind_by = lag(checkpoint, newest, clock.now_ns(), journal.silent_seconds)
        return MirrorStatus(mirror, checkpoint, last, journal, *behind_by, journal.damage)


class _Journal:
    """A journal that is looked at, and what was read of it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader: JournalReader | None = None
        self._commit: Commit | None = None
        self._may_rest = True
        self._slot_places = SlotPlaces()
        self._gaps = Gaps()
        self.changes = Changes()

    def close(self) -> None:
        if self._reader:
            self._reader.close()
            self._reader = None

    def look(self) -> JournalStatus:
        journal = Journal(self._path)
        if self._reader is None or not self._has_only_grown(journal, self._reader):
            self.close()
            # First: while the journal is recorded, its end moves.
            self._commit = next(iter(newest_commits(journal, 1)), None)
            self.changes = Changes(self._commit)
            head, time_ns, damage = self._read_to_end(journal)
        else:
            head, time_ns, damage = self._reader.position, self._reader.time_ns, None
        starts = journal.file_starts()
        damage = damage or self._gaps.find(journal) or find_missing(journal)
        room = room_of(journal)
        size = sum(each for _, each in room.file_bytes)
        recorder, unanswered = _ask_recorder(self._path)
        now_ns = clock.now_ns()
        silent = None if _is_well(recorder) else silent_seconds(journal, self._heard(head, time_ns), now_ns)
        ahead = ahead_seconds(time_ns, now_ns)
        volumes = journal.current_volumes()
        readers: Sequence[SlotStatus] = ()
        try:
            readers = readers_of(journal, self.changes, self._slot_places, now_ns, silent)
        except JournalError as error:
            damage = damage or error
        return JournalStatus(
            journal,
            volumes,
            head,
            time_ns,
            self._commit,
            damage,
            len(starts),
            size,
            recorder,
            silent,
            readers,
            ahead,
            unanswered,
            work_on_journal(journal),
            room,
            holds(journal),
        )

    def _has_only_grown(self, journal: Journal, reader: JournalReader) -> bool:
        """Read what was appended; False if more than that changed, and everything must be looked at anew."""
        known = reader.journal
        if (known.uuid, known.lineage, known.epoch) != (journal.uuid, journal.lineage, journal.epoch):
            return False
        reader.journal = journal  # with the end that is noted in it by now
        try:
            self._read_on(reader)
        except JournalError:
            return False
        return reader.is_in_place()

    def _read_on(self, reader: JournalReader) -> None:
        with up_to_what_is_appended(reader.journal):
            while header := reader.next_header():
                self._note(reader, header)

    def _note(self, reader: JournalReader, header: FrameHeader) -> None:
        if not header.is_commit:
            reader.batch(payload=False)
            self._may_rest = may_rest(header, None)
            return
        self._commit = commit_of(reader, header)
        self._may_rest = may_rest(header, self._commit.kind)
        self.changes.note(self._commit)

    def _heard(self, head: Position, time_ns: int) -> Heard:
        return Heard(head.lsn, time_ns, self._may_rest)

    def _read_to_end(self, journal: Journal) -> tuple[Position, int, JournalError | None]:
        """The end of the newest file, or of the one before if that one has not even a header."""
        starts = journal.file_starts()
        position, time_ns, damage = journal.start, 0, None
        for start in reversed(starts) if starts else [None]:
            self.close()
            try:
                with up_to_what_is_appended(journal):
                    self._reader = JournalReader(journal, first_lsn=start)
                    self._read_on(self._reader)
            except JournalError as error:
                damage = damage or error
            if self._reader:
                position, time_ns = self._reader.position, self._reader.time_ns
            if damage:
                self.close()  # the next look begins anew, as long as something is wrong
            if position.lsn:
                break
        return position, time_ns, damage


class _Place:
    """Where a mirror stands in its journal."""

    def __init__(self) -> None:
        self._reader: JournalReader | None = None

    def close(self) -> None:
        if self._reader:
            self._reader.close()
            self._reader = None

    def require(self, journal: Journal, position: Position) -> None:
        """The journal contains the position.

        Raises:
            ForkedJournalError: it does not.
            JournalError: it cannot be read at the position.
        """
        if self._reader and self._has_come_to(self._reader, journal, position):
            return
        self.close()
        self._reader = JournalReader(journal, position)

    def _has_come_to(self, reader: JournalReader, journal: Journal, position: Position) -> bool:
        """Read on to the position, if that is possible from where the reader is."""
        if (reader.journal.uuid, reader.journal.lineage) != (journal.uuid, journal.lineage):
            return False
        try:
            return reader.read_to(position.lsn) == position
        except JournalError:
            return False


def status_of(path: str) -> JournalStatus | MirrorStatus:
    """The status of whatever is at a path; see `Watch.look`."""
    with Watch() as watch:
        return watch.look(path)


def journal_status(path: str) -> JournalStatus:
    """The status of a journal; see `Watch.look_at_journal`."""
    with Watch() as watch:
        return watch.look_at_journal(path)


def mirror_status(path: str) -> MirrorStatus:
    """The status of a mirror; see `Watch.look_at_mirror`."""
    with Watch() as watch:
        return watch.look_at_mirror(path)


def _is_well(recorder: Mapping[str, Any] | None) -> bool:
    """Whether a recorder answers, and journals everything: then silence means that nothing was written."""
    return recorder is not None and not recorder.get("problem")


def _ask_recorder(path: str) -> tuple[Mapping[str, Any] | None, LockedError | None]:
    """What the recorder says, or that it does not answer."""
    try:
        return ask(path, {"request": "status"}), None
    except LockedError as error:
        return None, error
    except MirrortoolError:
        return None, None


def _replaced(mirror: Mirror, promoted: Promoted) -> PromotedError | None:
    """That a mirror is no longer the primary, as far as its journal is at hand."""
    try:
        mirror.check_not_replaced(Journal(promoted.journal_path))
    except PromotedError as error:
        return error
    except MirrortoolError:
        return None
    return None


def _last_replay(path: str) -> LastReplay | None:
    with suppress(MirrortoolError):
        return lastreplay.load(path)
    return None
