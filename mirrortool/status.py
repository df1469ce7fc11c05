"""Status: what is to be known of a resting journal or mirror, from its small files and its newest frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mirrortool import clock, files
from mirrortool.errors import (
    HostError,
    JournalError,
    MirrortoolError,
    NotAJournalError,
    OtherJournalError,
    TornJournalError,
    UsageError,
)
from mirrortool.journal.commits import Commit, newest_commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.mirror import lastreplay
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.lastreplay import LastReplay
from mirrortool.record.control import ask
from mirrortool.volume import Volume, VolumeSet


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """A journal, at rest or being recorded.

    Attributes:
        recorder: what its running recorder says of itself; None if none is at work, or it does not answer.
        head: after the newest whole frame.
        commit: the newest one.
        damage: what stops a reader before the end of the newest file; None if nothing does.
        size: of all journal files, in bytes.
    """

    journal: Journal
    volumes: VolumeSet
    head: Position
    time_ns: int
    commit: Commit | None
    damage: JournalError | None
    file_count: int
    size: int
    recorder: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """A mirror at rest, and how far behind its journal it is.

    Attributes:
        journal: None if the journal is not at hand, or does not contain the mirror's position.
        last_replay: what the last replay did; None if that is not known.
        damage: of its journal, or why that is not this mirror's any more.
        lag_operations, lag_seconds: from the mirror's commit to the journal's newest; None without the journal.
    """

    mirror: Mirror
    checkpoint: Checkpoint
    last_replay: LastReplay | None
    journal: JournalStatus | None
    lag_operations: int | None
    lag_seconds: float | None
    damage: JournalError | None = None


def status_of(path: str) -> JournalStatus | MirrorStatus:
    """The status of whatever is at a path.

    Raises:
        NotAJournalError: neither a journal nor a mirror.
    """
    if files.exists(files.join(path, "mirror.json")):
        return mirror_status(path)
    if files.exists(files.join(path, "journal.json")):
        return journal_status(path)
    raise NotAJournalError(
        "neither a journal nor a mirror", where=path, remedy="mirrortool init makes a journal, replay a mirror"
    )


def journal_status(path: str) -> JournalStatus:
    """The status of a journal; reads its newest file, and older ones only until a commit is found."""
    journal = Journal(path)
    commit = next(iter(newest_commits(journal, 1)), None)  # first: while a recorder is at work, the end moves on
    starts = journal.file_starts()
    head, time_ns, damage = _read_to_end(journal, starts)
    facts = [files.find_facts(journal.file_path(start)) for start in starts]
    size = sum(each.size for each in facts if each)
    recorder = _ask_recorder(path)
    return JournalStatus(journal, _current_volumes(journal), head, time_ns, commit, damage, len(starts), size, recorder)


def _ask_recorder(path: str) -> Mapping[str, Any] | None:
    with suppress(MirrortoolError):
        return ask(path, {"request": "status"})
    return None


def mirror_status(path: str) -> MirrorStatus:
    """The status of a mirror, compared with its journal where that is at hand."""
    mirror = Mirror(path)
    checkpoint = mirror.checkpoint
    last = _last_replay(path)
    try:
        journal = journal_status(mirror.journal_path)
        mirror.check_mirrors(journal.journal)
        JournalReader(journal.journal, checkpoint.position).close()
    except (HostError, NotAJournalError, OtherJournalError):
        return MirrorStatus(mirror, checkpoint, last, None, None, None)
    except JournalError as error:
        return MirrorStatus(mirror, checkpoint, last, None, None, None, error)
    if journal.commit is None:
        return MirrorStatus(mirror, checkpoint, last, journal, 0, 0.0, journal.damage)
    behind = lag(checkpoint, journal.commit, clock.now_ns())
    return MirrorStatus(mirror, checkpoint, last, journal, *behind, journal.damage)


def _last_replay(path: str) -> LastReplay | None:
    with suppress(MirrortoolError):
        return lastreplay.load(path)
    return None


def lag(checkpoint: Checkpoint, newest: Commit, now_ns: int) -> tuple[int, float]:
    """Operations and seconds that a mirror is behind the newest commit; never negative.

    In sync it is 0 seconds behind, however old the commit is. Behind, it is as old as the state that it holds: if it
    took over now, that much would be lost. A clock that was stepped back does not make it negative.
    """
    behind = max(0, newest.lsn - checkpoint.position.lsn)
    if not behind:
        return 0, 0.0
    since_ns = checkpoint.time_ns or newest.time_ns
    return behind, max(0, now_ns - since_ns) / 1e9


def _read_to_end(journal: Journal, starts: Sequence[int]) -> tuple[Position, int, JournalError | None]:
    """The end of the newest file, or of the one before if that one has not even a header."""
    position, time_ns, damage = journal.start, 0, None
    for start in reversed(starts) if starts else [None]:
        try:
            with JournalReader(journal, first_lsn=start) as reader:
                try:
                    while reader.next_header():
                        reader.batch(payload=False)
                finally:
                    position, time_ns = reader.position, reader.time_ns
        except JournalError as error:
            is_append = isinstance(error, TornJournalError) and journal.is_at_work()
            damage = damage or (None if is_append else error)
        if position.lsn:
            break
    return position, time_ns, damage


def _current_volumes(journal: Journal) -> VolumeSet:
    """The volumes with the sizes that the recorder last saw, where it is this host's."""
    checkpoint = journal.recorder_checkpoint()
    if checkpoint is None:
        return journal.volumes
    sized = [
        Volume(volume.name, volume.base, checkpoint.volumes[volume.name].size)
        for volume in journal.volumes
        if volume.name in checkpoint.volumes
    ]
    if len(sized) < len(journal.volumes):
        return journal.volumes
    try:
        return VolumeSet(sized, journal.page_size)
    except UsageError as error:
        raise NotAJournalError(f"recorder.json: {error.what}", where=journal.path) from None
