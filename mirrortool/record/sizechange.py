"""A volume's new size, as an operation of its journal. It is captured: the volume had it before the journal did."""

from __future__ import annotations

from dataclasses import replace

from mirrortool.errors import UnusableVolumeError
from mirrortool.operation import Batch, BatchBuilder
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume
from mirrortool.wording import format_bytes


def check_room(sums: PageSums, volume: Volume, size: int, where: str) -> None:
    """A volume does not reach the next one with a new size.

    Raises:
        UnusableVolumeError: it does.
    """
    limit = sums.volumes.limit_of(volume)
    if size > limit:
        raise UnusableVolumeError(
            f"volume {volume.name} has grown into the addresses of the next one",
            where=where,
            remedy=f"cut it to {format_bytes(limit)}, or make another journal that places them further apart",
        )


def cut_off(sums: PageSums, volume: Volume, size: int) -> tuple[int, int]:
    """The run of pages (first, count) that a smaller size makes zeros, that of the new end included."""
    kept, count = size // sums.page_size, sums.volumes.page_count(volume)
    is_smaller = size < volume.size and kept < count
    return sums.volumes.first_page(volume) + kept, count - kept if is_smaller else 0


def size_change(sums: PageSums, volume: Volume, size: int) -> tuple[Batch, int]:
    """The RESIZE as a batch, and what it changes of the state sum; the sums of what it cuts off are right."""
    first, count = cut_off(sums, volume, size)
    builder = BatchBuilder(sums.page_size)
    builder.resize(sums.volumes.first_page(volume), size)
    gone = sums.term_of(first, count) if count else 0
    return builder.build(), gone ^ volume.term ^ replace(volume, size=size).term
