"""Checks decoded operations against the volumes: each must lie entirely within one volume."""

from __future__ import annotations

import operator
from collections.abc import Callable

from mirrortool.errors import CorruptJournalError
from mirrortool.journal.codec import FrameHeader
from mirrortool.operation import Batch, Kind
from mirrortool.volume import VolumeSet


def of_unknown_size(volumes: VolumeSet) -> VolumeSet:
    """The volumes as large as they can be: to begin in the middle of a journal; a RESIZE or a base tells more."""
    for volume in volumes:
        volumes = volumes.resized(volume, volumes.limit_of(volume))
    return volumes


def check_inside(
    header: FrameHeader,
    batch: Batch,
    volumes: VolumeSet,
    path: str,
    on_resize: Callable[[VolumeSet], None] = lambda _: None,
) -> VolumeSet:
    """Every operation lies in a volume; returns the volumes with their sizes after the frame.

    Raises:
        CorruptJournalError: one does not. The checksums hold, so it was written on purpose, or by a bug.
    """
    kinds = batch.kinds[:-1] if batch.is_commit else batch.kinds
    if not kinds:
        return volumes
    if Kind.RESIZE not in kinds:
        pages, counts = batch.pages[: len(kinds)], batch.counts[: len(kinds)]
        low, high = min(pages), max(map(operator.add, pages, counts))
        if volumes.find(low, high - low):
            return volumes
    for kind, page, count in zip(kinds, batch.pages, batch.counts, strict=False):
        if kind == Kind.RESIZE:
            volume = volumes.starting_at(page)
            if volume is None or count > volumes.limit_of(volume):
                raise _outside(header, path)
            volumes = volumes.resized(volume, count)
            on_resize(volumes)
        elif volumes.find(page, count) is None:
            raise _outside(header, path)
    return volumes


def _outside(header: FrameHeader, path: str) -> CorruptJournalError:
    return CorruptJournalError(
        f"an operation in LSN {header.first_lsn}-{header.position.lsn} lies outside the volumes",
        where=path,
        remedy="do not trust this journal",
    )
