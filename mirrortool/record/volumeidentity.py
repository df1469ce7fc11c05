"""The identity of a volume: whether its path still has the volume that was recorded, and not another one.

    what identifies it   a file's inode; a disk's wwid and partition, or its number where these tell nothing
    samples of pages     compared with the table of sums: another disk has other bytes

A live recording needs every sample to be right, as nothing but the recorder writes then. Others may write between two
scans; so a scan stops only where it is another disk, where most of what was recorded is gone from a device, or all of
it from a file: that may be a mkfs, or a disk that was swapped. Where the journal lacks some of what a volume has, or
the table is damaged, its sums do not tell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from mirrortool.address import pages_per_segment
from mirrortool.errors import ChangedOutsideError
from mirrortool.journal.directory import Journal
from mirrortool.journal.recordercheckpoint import VolumeRecord
from mirrortool.operation import Batch
from mirrortool.record.missingsegments import load_noted
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.store.sampling import PageSample, first_changed, sample_pages
from mirrortool.wording import counted


class ForeignPage(NamedTuple):
    """A page that another process changed.

    Attributes:
        volume: its name.
        page: from the start of the volume.
    """

    volume: str
    page: int


def find_other(known: VolumeRecord, now: VolumeRecord) -> str | None:
    """What tells that it is not the file or device that was recorded; None if nothing does."""
    is_same = known.disk_ids.is_same_disk(now.disk_ids) if known.identity.is_device and now.identity.is_device else None
    if is_same is False:
        return f"it is another disk than the one recorded: {now.disk_ids}, not {known.disk_ids}"
    if is_same is None and (known.identity.inode, known.identity.is_device) != (
        now.identity.inode,
        now.identity.is_device,
    ):
        return "it is another file or device than the one recorded"
    return None


def was_reattached(known: VolumeRecord, now: VolumeRecord) -> bool:
    """Of one boot: whether a device was away in between, as by a replug; then nothing that the kernel counts holds."""
    return known.disk_ids.is_same_attachment(now.disk_ids) is False


def find_foreign(
    journal: Journal, store: Store, sums: PageSums, in_flight: Iterable[Batch], names: Collection[str]
) -> ForeignPage | None:
    """A page of the volumes `names` that only a write of another process explains; None if there is none.

    Args:
        sums: as of the recorder's checkpoint.
        in_flight: what was journaled since. A page of it that is neither old nor new proves nothing: a power cut may
            have torn it, and redo mends it.
    """
    samples = _samples(journal, store, sums, in_flight, names)
    page = first_changed(sample for sample in samples if sample.is_right or not sample.since)
    if page is None:
        return None
    volume = sums.volumes.find(page)
    assert volume is not None, "a sample lies in a volume"
    return ForeignPage(volume.name, page - sums.volumes.first_page(volume))


def check_not_emptied(journal: Journal, store: Store, sums: PageSums, name: str, path: str, *, is_device: bool) -> None:
    """Check that a scan may begin without being told `--scan`: the volume still has what was recorded of it.

    Args:
        store: the volume, in its old size.
        sums: as of the newest frame.
    Raises:
        ChangedOutsideError: more than half of it is not, on a device; or a file has nothing of it.
    """
    samples = [sample for sample in _samples(journal, store, sums, (), [name]) if not sample.was_zero]
    gone = [sample for sample in samples if not sample.is_right]
    if is_device and 2 * len(gone) > len(samples):
        looked_at = counted(len(samples), "page")
        what = f"volume {name} may be another disk: {len(gone)} of {looked_at} that were looked at changed"
    elif samples and all(sample.is_zero for sample in samples):
        what = f"volume {name} was emptied: nothing is left of what was recorded"
    else:
        return
    raise ChangedOutsideError(what, where=path, remedy="if it is the right one, record --scan accepts it as it is")


def _samples(
    journal: Journal, store: Store, sums: PageSums, in_flight: Iterable[Batch], names: Collection[str]
) -> list[PageSample]:
    """Without those of segments that the journal lacks, as it had no room, and those that damaged sums make wrong."""
    noted = load_noted(journal).segments
    step = pages_per_segment(sums.page_size)
    samples = [
        sample for sample in sample_pages(store, sums, in_flight, names=names) if sample.page // step not in noted
    ]
    return [sample for sample in samples if sample.is_right or sums.is_segment_right(sample.page)]
