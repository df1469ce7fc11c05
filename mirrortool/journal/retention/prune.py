"""Removes what plan.py plans: journal files, oldest first, then bases.

Rule: slots are locked from the look at them until the last file is gone, so that none registers in between for a
position that goes; a later reader is told (slots.py). A slot is marked lost, durably, before its files go.
Rule: each file's name is durably gone before the next goes, so that a crash leaves a journal without a gap.

It works beside a recorder and readers: a process that has a file open keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass

from mirrortool import clock, files
from mirrortool.errors import HostError, JournalError, NoSpaceError, UsageError
from mirrortool.journal import format as layout
from mirrortool.journal.bases import basefile
from mirrortool.journal.bases.listing import base_lsns, bases, bases_path, lock_bases, remove_base, remove_unfinished
from mirrortool.journal.commits import find_commit, newest_commits
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.directory import Journal
from mirrortool.journal.holds import JournalHold, holds, remove_dead
from mirrortool.journal.newest import ahead_seconds
from mirrortool.journal.point import Until
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.retention.plan import Hold, KeptFile, PrunePlan, SlotLag, Wish, bytes_from, plan
from mirrortool.journal.slots import Slot, damaged_slots, locked, remove, save, slots, slots_path
from mirrortool.lsn import NO_LSN, Lsn


@dataclass(frozen=True, slots=True)
class Keep:
    """What the user wants kept, as the command says it.

    Attributes:
        seconds: every commit of the last `seconds` stays restorable.
        size, slot_size, slot_seconds: as in retention.Wish.
    """

    seconds: float | None = None
    size: int | None = None
    slot_size: int | None = None
    slot_seconds: float | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: a value is negative.
        """
        if any(value is not None and value < 0 for value in astuple(self)):
            raise UsageError("what is to stay cannot be less than nothing")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go.

    Attributes:
        size: bytes of the journal files and bases that went.
        kept: how many journal files stay.
        ahead_seconds: how far the journal's times are ahead of this host's clock; None if that is little.
        newest_ns: of its newest commit.
    """

    plan: PrunePlan
    size: int
    kept: int
    ahead_seconds: float | None
    newest_ns: int


def prune(path: str, keep: Keep, *, dry_run: bool = False) -> Pruned:
    """Remove what no reader needs; with `dry_run` only say what that is.

    Raises:
        LockedError: a base is being made, or another prune is running.
        JournalError: a base is damaged; nothing was removed.
        HostError: a file cannot be removed; the newer ones are there.
    """
    journal = Journal(path) if dry_run else open_finished(path)
    with ExitStack() as held:
        if not dry_run:
            held.enter_context(lock_bases(journal))
            remove_unfinished(journal)
            held.enter_context(locked(journal))
            remove_dead(journal)
        now = _look(journal)
        newest = next(iter(newest_commits(journal, 1)), None)
        newest_ns, now_ns = newest.time_ns if newest else 0, clock.now_ns()
        planned = plan(now.files, now.bases, now.lags, now.holds, _wish(journal, keep, min(now_ns, newest_ns)))
        size = sum(file.size for file in now.files if file.lsn in planned.files)
        size += sum(base.size for base in now.bases if base.lsn in planned.bases)
        if not dry_run:
            _carry_out(journal, planned)
        ahead = ahead_seconds(newest_ns, now_ns)
        return Pruned(planned, size, len(now.files) - len(planned.files), ahead, newest_ns)


@dataclass(frozen=True, slots=True)
class _Found:
    files: Sequence[KeptFile]
    bases: Sequence[KeptFile]
    lags: Sequence[SlotLag]
    holds: Sequence[Hold]


def _look(journal: Journal) -> _Found:
    """Everything that a plan depends on. Slots and bases are looked at before the files, which only become more."""
    now_ns = clock.now_ns()
    for problem in damaged_slots(journal).values():  # it is not known what that one needs
        raise problem
    lags = [SlotLag(slot, _seconds_behind(journal, slot, now_ns)) for slot in slots(journal)]
    kept_bases = [KeptFile(base.lsn, base.size) for base in bases(journal)]
    checkpoint = journal.recorder_checkpoint()  # what the recorder needs must be known
    others = [Hold(each.needs_lsn, each.why, each.lsn) for each in holds(journal)]
    if checkpoint:
        others.append(Hold(checkpoint.position.next_lsn, "the recorder would redo it"))
    return _Found(_kept_files(journal), kept_bases, lags, others)


def held_bytes(journal: Journal, holder: Slot | JournalHold) -> int:
    """Bytes of the journal files that a slot, or a process that reads, holds back, whatever else does."""
    return bytes_from(_kept_files(journal), holder.needs_lsn) if holder.holds_back else 0


def _kept_files(journal: Journal) -> list[KeptFile]:
    return [KeptFile(start, _size(journal.file_path(start))) for start in journal.file_starts()]


def _size(path: str) -> int:
    facts = files.find_facts(path)
    return facts.size if facts else 0


def _seconds_behind(journal: Journal, slot: Slot, now_ns: int) -> float:
    """How old the first frame is that the slot's owner lacks; 0 if it lacks none, or none is left."""
    if not slot.holds_back:
        return 0.0
    try:
        first_lsn = journal.file_holding(slot.needs_lsn)
        with JournalReader(journal, None, first_lsn=first_lsn, headers_only=True) as reader:
            while header := reader.next_header():
                if header.position.lsn >= slot.needs_lsn:
                    return max(0, now_ns - header.time_ns) / 1e9
    except JournalError:
        pass  # damage holds back no longer than it must
    return 0.0


def _wish(journal: Journal, keep: Keep, now_ns: int) -> Wish:
    """What the owner wants, at a time no later than the newest commit: a clock that is ahead here makes nothing old."""
    promised = None
    if keep.seconds is not None:
        horizon = find_commit(journal, Until(time_ns=now_ns - int(keep.seconds * 1e9)))
        promised = horizon.lsn if horizon else NO_LSN
    return Wish(promised, keep.size, keep.slot_size, keep.slot_seconds)


def _carry_out(journal: Journal, planned: PrunePlan) -> None:
    # The plan relies on the recorder's checkpoint, on bases and slots. Another process may have replaced one a moment
    # ago, or have been killed then: its new name is durable before what only the old one needs is gone.
    files.sync_directories(journal.path, bases_path(journal), slots_path(journal))
    for slot in planned.lost:
        try:
            save(journal, slot.losing())
        except NoSpaceError:  # that is what there is to be mended; an owner without a slot learns of it just so
            remove(journal, slot.name)
    for first_lsn in planned.files:
        files.remove_durably(journal.file_path(Lsn(first_lsn)))
    for lsn in planned.bases:
        remove_base(journal, Lsn(lsn))
    if planned.bases:
        files.sync_directory(bases_path(journal))
    with suppress(HostError):
        _remove_indexes(journal)


def _remove_indexes(journal: Journal) -> None:
    """Remove the indexes of what is not there any more, and what was left of some in the making."""
    names = map(layout.file_name, journal.file_starts()), map(basefile.file_name, base_lsns(journal))
    kept = {files.base_name(journal.index_path(name)) for each in names for name in each}
    for name in files.list_directory(journal.indexes_path):
        if name not in kept:
            files.remove(files.join(journal.indexes_path, name))
