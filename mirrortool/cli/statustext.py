"""What `mirrortool status` prints for people: some lines for each path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from mirrortool import clock, files
from mirrortool.cli.text import (
    counted,
    describe_ahead,
    describe_silence,
    format_bytes,
    format_seconds,
    format_time,
    printable,
    quoted,
)
from mirrortool.errors import MirrortoolError, NotAJournalError
from mirrortool.journal.copies.directory import is_primary, makes_a_commit
from mirrortool.journal.diskspace import Room
from mirrortool.lockholder import Worker
from mirrortool.mirror import receipts
from mirrortool.mirror.checkpoint import describe
from mirrortool.operation import CommitKind
from mirrortool.status import (
    Found,
    JournalStatus,
    MirrorStatus,
    SlotStatus,
    Unseen,
    Work,
    problems_of,
    world_readable_file,
)

_KINDS_TOLD = (CommitKind.FUZZY, CommitKind.INCOMPLETE, CommitKind.HEARTBEAT)


def lines_of(found: Found, left_out: MirrortoolError | None = None, *, verbose: bool = False) -> Iterator[str]:
    """The lines of one path.

    Args:
        left_out: the problem that the command ends with, which is printed then.
        verbose: with the engine's counts.
    """
    if isinstance(found, Unseen):
        yield printable(found.path)
    elif isinstance(found, JournalStatus):
        yield from _journal_lines(found)
    else:
        yield from _mirror_lines(found, verbose)
    for problem in problems_of(found):
        if str(problem) != str(left_out):
            yield f"  {printable(str(problem))}"


def _journal_lines(status: JournalStatus) -> Iterator[str]:
    journal = status.journal
    yield f"journal {printable(journal.path)}"
    paths: dict[str, str] = {}
    with suppress(NotAJournalError):  # which is among the problems
        paths = journal.volume_paths()
    for volume in status.volumes:
        path = paths.get(volume.name)
        yield f"  volume {volume.name}: {format_bytes(volume.size)}{'  ' + printable(path) if path else ''}"
    yield f"  {counted(status.file_count, 'file')}, {format_bytes(status.size)}, up to LSN {status.head.lsn}"
    yield f"  {_room_line(status.room)}"
    if status.commit:
        kind = status.commit.kind
        what = f" ({kind.name.lower()})" if kind in _KINDS_TOLD else ""
        yield f"  newest commit at LSN {status.commit.lsn}{what} of {format_time(status.commit.time_ns)}"
        uncommitted = status.head.lsn - status.commit.lsn
        if uncommitted:
            yield f"  {counted(uncommitted, 'newer operation is', 'newer operations are')} not committed yet"
    else:
        yield f"  {no_commit_yet(journal.path)}"
    yield f"  {_journal_work(status)}"
    if status.recorder is not None:
        yield from _recorder_lines(status.recorder)
    for reader in status.readers:
        yield f"  {_reader_line(reader, status.room)}"
    for hold in status.holds:
        yield f"  {_by(Work(True, hold.worker), 'read')}{_held(status.room.held_bytes(hold))}"
    yield from _silence_lines(status)
    yield from _world_readable_lines(status, journal.path)


def _world_readable_lines(status: Found, path: str) -> Iterator[str]:
    where = world_readable_file(status)
    if where is None:
        return
    if files.real(where).startswith(files.join(files.real(path), "")):
        closing = f"chmod o= {quoted(path)}"  # not its files: to replay, a new mode looks like a write
    else:
        closing = f"chmod o= {quoted(where)}, and mirrortool verify {quoted(path)} if no replay is running,"
    yield f"  open: every local user may read and lock {printable(where)}; {closing} closes it"


def _reader_line(reader: SlotStatus, room: Room) -> str:
    slot = reader.slot
    if reader.lag_operations is None or reader.lag_seconds is None:
        how = _unknown_lag(reader)
    elif reader.lag_operations:
        how = f"{counted(reader.lag_operations, 'operation')} and {format_seconds(reader.lag_seconds)} behind"
    elif reader.lag_seconds:
        how = "up to date with what has come; more is due"
    else:
        how = "up to date"
    then = f"{_held(room.held_bytes(slot))}{_reader_work(reader)}"
    return f"slot {slot.name}, {slot.kind} at {printable(slot.where)}: {how}{then}"


def _held(held_bytes: int) -> str:
    return f"; holds back {format_bytes(held_bytes)}" if held_bytes else ""


def _room_line(room: Room) -> str:
    bases = f"{format_bytes(room.base_bytes)} of bases, " if room.base_bytes else ""
    free = "free space not known" if room.free_bytes is None else f"{format_bytes(room.free_bytes)} free"
    return f"{bases}{free} in its file system"


def _reader_work(reader: SlotStatus) -> str:
    """Whether its owner is running; nothing where that is not known."""
    doing = "shipped" if reader.slot.kind == "ship" else "replayed"
    if reader.work.is_on is None:
        return ""
    return f"; {_by(reader.work, doing)}" if reader.work.is_on else f"; not being {doing} now"


def _unknown_lag(reader: SlotStatus) -> str:
    slot = reader.slot
    if slot.resync_lsn:
        return f"starts over from the base of LSN {slot.resync_lsn}"
    if reader.is_contained is False:
        return f"OF ANOTHER HISTORY, at position {slot.position}"
    return "LOST" if slot.is_lost else "nothing is committed yet"


def _verified(status: MirrorStatus) -> str:
    """When it was verified last; pages that are known to be bad are among the problems."""
    if status.verified:
        return receipts.describe(status.verified, clock.now_ns())
    return "never verified; mirrortool verify proves the content"


def _silence_lines(status: JournalStatus) -> Iterator[str]:
    if silence := describe_silence(status.time_ns, status.silent_seconds):
        yield f"  {silence}"
    if ahead := describe_ahead(status.time_ns, status.ahead_seconds):
        yield f"  {ahead}"


_DOING = {
    "record": "recorded",
    "scan": "scanned",
    "mark": "marked",
    "receive": "received",
    "ship": "shipped",
    "replay": "replayed",
    "follow": "followed",
    "promote": "promoted",
    "serve": "served",
    "export": "exported",
    "diff": "compared",
    "backing": "changed",
}


def no_commit_yet(path: str) -> str:
    """That a journal has none, or a copy of one, and what to do."""
    step = f"next: mirrortool record {quoted(path)}" if is_primary(path) else makes_a_commit(path)
    return f"no commit yet; {step}"


def _journal_work(status: JournalStatus) -> str:
    """Which process records or receives a journal."""
    if not status.work.is_on:
        role = "recorder" if is_primary(status.journal.path) else "receiver"
        return f"no {role} is running" if status.work.is_on is False else f"whether a {role} is running is not known"
    following = status.journal.next_scan
    is_between = following and status.journal.clean_end
    then = ""
    if following and is_between:
        begins = "begins" if following.begins_ns > clock.now_ns() else "was to begin"
        then = f"; the next scan {begins} at {format_time(following.begins_ns)}"
    return f"{_by(status.work, 'recorded')}{then}"


def _by(work: Work, doing: str) -> str:
    """What the running process does, and since when, as far as that is known."""
    worker = work.worker or Worker()
    doing = _DOING.get(worker.doing or "", doing)
    if worker.pid is None or worker.since_ns is None:
        return f"{doing} by an unknown process"
    return f"{doing} by process {worker.pid} since {format_time(worker.since_ns)}"


def _recorder_lines(recorder: Mapping[str, Any]) -> Iterator[str]:
    """Its own words. A recorder may be of another version: what it does not say is not shown."""
    clients = sum(export.get("clients", 0) for export in recorder.get("exports", ()))
    waiting = format_bytes(recorder.get("bytes_waiting", 0))
    yield f"  {counted(clients, 'client')}, {waiting} not yet written to the volumes"
    if recorder.get("incomplete"):
        done, total = recorder.get("base", (0, 0))
        problem = printable(str(recorder.get("base_problem") or ""))
        pages = f"{done} of {counted(total, 'page')} read"
        yield f"  the initial scan is not complete: {pages}{'; ' + problem if problem else ''}"


def _up_to_date(status: MirrorStatus) -> str:
    if status.lag_seconds:
        return "up to date with what has come; more is due"
    if not status.checkpoint.is_consistent:
        return "waiting for the commit that it needs"
    return "up to date with its journal"


def _mirror_work(status: MirrorStatus) -> str:
    """Which process replays into a mirror."""
    if status.work.is_on is None:
        return "whether a replay is running is not known"
    return _by(status.work, "replayed") if status.work.is_on else "no replay is running"


def _unknown_mirror_lag(status: MirrorStatus) -> str:
    path = status.mirror.journal_path
    if not files.exists(path):
        return f"its lag is not known: its journal {printable(path)} is not there"
    return f"its lag is not known: its journal {printable(path)} cannot be read"


def _mirror_lines(status: MirrorStatus, verbose: bool) -> Iterator[str]:
    mirror, checkpoint = status.mirror, status.checkpoint
    yield f"mirror {printable(mirror.path)} of {printable(mirror.journal_path)}"
    for volume, kept in zip(mirror.volumes, mirror.kept, strict=True):
        alone = kept.place.why_not_guarded()
        where = f"{printable(kept.place.describe(mirror.path))}{f'; {alone}' if alone else ''}"
        yield f"  volume {volume.name}: {format_bytes(volume.size)}  {where}"
    for backing in status.backings:
        size = format_bytes(backing.header.size) if backing.header else "?"
        draining = "; it is being drained" if backing.kept.is_draining else ""
        yield f"  backing {backing.kept.short}: {size}  {printable(backing.kept.path)}{draining}"
    when = f", {format_time(checkpoint.time_ns)}" if checkpoint.time_ns else ""
    yield f"  {describe(checkpoint, is_running=bool(status.work.is_on))}{when}"
    if not mirror.promoted:
        yield f"  {_mirror_work(status)}"
    yield f"  {_verified(status)}"
    if verbose and (last := status.last_replay):
        yield (
            f"  last replay: {counted(last.units, 'unit')}, {last.direct} direct, "
            f"{last.mini_queue} through mini queues, {last.counter_waits} after a counter wait, "
            f"{last.given_back} given back"
        )
    if mirror.promoted:
        since, where = format_time(mirror.promoted.time_ns), printable(mirror.promoted.journal_path)
        then = f"and replaced since: {where} does not record it any more" if status.damage else f"recorded in {where}"
        yield f"  promoted on {since} to the primary of epoch {mirror.promoted.epoch.number}, {then}"
    elif status.journal and status.journal.commit is None:
        yield "  its journal has no commit yet, so there is nothing to replay"
    elif status.lag_operations is None or status.lag_seconds is None:
        yield f"  {_unknown_mirror_lag(status)}"
    elif status.lag_operations:
        lag = f"{counted(status.lag_operations, 'operation')} and {format_seconds(status.lag_seconds)}"
        yield f"  {lag} behind its journal"
    elif status.damage is None:
        yield f"  {_up_to_date(status)}"
    if status.journal:
        yield from _silence_lines(status.journal)
    yield from _world_readable_lines(status, mirror.path)
