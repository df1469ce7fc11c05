"""Resizes a volume of a journal at rest: its file, then the journal.

Order: the volume is noted as not wholly journaled; its file gets the new size; the RESIZE is journaled, and whatever
lies where it says zeros; then a commit, and the note goes. So a crash in between leaves what a scan journals: the
volume has a size that the journal does not know, or is read again as a whole.

A device has its size already: what lies after the old end there is read, and journaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mirrortool.checksum import state_term, unpack_sums
from mirrortool.errors import CorruptJournalError, NotComparableError, UnusableVolumeError, UsageError
from mirrortool.journal.position import Position
from mirrortool.operation import Batch, BatchBuilder, CommitKind
from mirrortool.record.damagedsegments import SegmentCheck
from mirrortool.record.heldvolumes import HeldVolumes
from mirrortool.record.missingsegments import load_noted
from mirrortool.record.recovery import OpenJournal
from mirrortool.record.scan import PENDING_PAGES, captured_batch
from mirrortool.record.sizechange import check_room, size_change
from mirrortool.store.interface import Store
from mirrortool.store.parallelread import PieceReader, pieces
from mirrortool.volume import Volume
from mirrortool.wording import exact_bytes, format_bytes


@dataclass(frozen=True, slots=True)
class Resized:
    """What was done.

    Attributes:
        before, size: of the volume, in bytes; the same if nothing was to be done.
        is_device: whether the volume is a device, which had its size before.
        commit: that has it; None if nothing was to be done.
    """

    before: int
    size: int
    is_device: bool
    commit: Position | None


def resize_volume(journal_path: str, name: str, size: int, *, may_shrink: bool = False) -> Resized:
    """Give a volume of a journal, which is not being recorded, a new size in bytes.

    Args:
        may_shrink: whether what lies after a smaller end may be lost.
    Raises:
        UsageError: the journal has no such volume; or the size is smaller, and may not be.
        UnusableVolumeError: it does not fit: into the addresses, or on its device.
        ChangedOutsideError: the volume changed since it was recorded; nothing was done.
        NotComparableError: the journal lacks some of what the volumes have.
        LockedError: the journal is being recorded, or the volume is in use.
    """
    with OpenJournal(journal_path, doing="volume resize", hold=True) as opened:
        held = opened.held
        assert held is not None
        volume = _volume(opened, name)
        device_size = held.device_size(name)
        is_device = device_size is not None
        if size == volume.size:
            return Resized(size, size, is_device, None)
        _check(opened, volume, size, may_shrink)
        if device_size is not None and device_size < size:
            raise UnusableVolumeError(
                f"the device of volume {name} has {exact_bytes(device_size)}, and not {exact_bytes(size)}",
                where=opened.journal.path,
                remedy="make the device larger first",
            )
        commit = _Resizing(opened, held, volume, size, is_device=is_device).run()
        return Resized(volume.size, size, is_device, commit)


def _volume(opened: OpenJournal, name: str) -> Volume:
    volumes = opened.sums.volumes
    if name not in volumes:
        known = ", ".join(volume.name for volume in volumes)
        where = opened.journal.path
        raise UsageError(f"the journal has no volume {name}", where=where, remedy=f"its volumes: {known}")
    return volumes[name]


def _check(opened: OpenJournal, volume: Volume, size: int, may_shrink: bool) -> None:
    check_room(opened.sums, volume, size, opened.journal.path)
    if load_noted(opened.journal).segments:
        raise NotComparableError(
            "the journal had no room, and lacks some of what the volumes have",
            where=opened.journal.path,
            remedy="make room, and run mirrortool record: it catches up",
        )
    if size < volume.size and not may_shrink:
        raise UsageError(
            f"volume {volume.name} has {format_bytes(volume.size)}, and would lose its last "
            f"{exact_bytes(volume.size - size)}",
            where=opened.journal.path,
            remedy="give --shrink if that may be lost",
        )
    # The sums of what is cut off are taken out of the state sum, and those of the page at the end replaced.
    volumes, kept = opened.sums.volumes, min(size, volume.size) // opened.sums.page_size
    try:
        SegmentCheck(opened.sums).require_right(volumes.first_page(volume) + kept, volumes.page_count(volume) - kept)
    except CorruptJournalError:
        opened.sums_are_damaged = True
        raise


class _Resizing:
    """One resize, whose checks are made."""

    def __init__(self, opened: OpenJournal, held: HeldVolumes, volume: Volume, size: int, *, is_device: bool) -> None:
        self._open, self._held, self._volume, self._size = opened, held, volume, size
        self._is_device = is_device
        self._pending: dict[int, int] = {}  # sums of frames that may not be durable
        self._sums, self._writer = opened.sums, opened.writer
        self._page_size = opened.sums.page_size
        self._state_sum = opened.sums.state_sum

    def run(self) -> Position:
        """Resize; returns the commit."""
        incomplete = self._open.checkpoint.incomplete
        self._open.save_checkpoint({}, incomplete={*incomplete, self._volume.name})
        if not self._is_device:
            self._held.resize_file(self._volume.name, self._size)
        self._journal_size()
        self._journal_content(self._held.store(self._sums.volumes))
        self._apply_pending()
        builder = BatchBuilder(self._page_size)
        builder.commit(CommitKind.INCOMPLETE if incomplete else CommitKind.SCAN, self._writer.durable.lsn)
        self._writer.append(builder.build(), captured=True, state_sum=self._state_sum)
        self._writer.sync()
        self._open.save_checkpoint(self._held.records(), incomplete=incomplete)
        return self._writer.durable

    def _journal_size(self) -> None:
        batch, change = size_change(self._sums, self._volume, self._size)
        self._state_sum ^= change
        self._writer.append(batch, captured=True, state_sum=self._state_sum)
        self._writer.sync()
        self._sums.resize(self._volume.name, self._size)

    def _journal_content(self, store: Store) -> None:
        """Journal what is not zeros where the sums are: the page of the smaller end, and what a device has after it."""
        reader = PieceReader(store, self._page_size)
        kept = min(self._volume.size, self._size) // self._page_size
        for page, count in pieces(store, self._sums, self._sums.volumes[self._volume.name], skip=kept):
            reader.read(page, count)
            found, known = reader.sums(count), self._sums.read(page, count)
            new, old = unpack_sums(found), unpack_sums(known)
            places = [place for place in range(count) if new[place] != old[place]]
            if places:
                batch = captured_batch(page, places, reader.buffer, found, self._page_size)
                self._append({page + place: new[place] for place in places}, [old[place] for place in places], batch)

    def _append(self, changes: Mapping[int, int], old: Sequence[int], batch: Batch) -> None:
        pages = list(changes)
        self._state_sum ^= state_term(pages, old) ^ state_term(pages, list(changes.values()))
        self._writer.append(batch, captured=True, state_sum=self._state_sum)
        self._pending.update(changes)
        if len(self._pending) >= PENDING_PAGES:
            self._apply_pending()

    def _apply_pending(self) -> None:
        """Make the frames durable, then apply their sums to the table."""
        self._writer.sync()
        self._sums.apply(self._pending)
        self._pending = {}
