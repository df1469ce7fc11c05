"""What replay checks before it writes: that the mirror is as it was left, and that the journal asks for no more space
than it may.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from mirrortool.checksum import page_sums
from mirrortool.errors import UnusableVolumeError
from mirrortool.store.base import Store
from mirrortool.store.flat import FlatStore
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet

_SAMPLES = 64


def check_sizes(volumes: VolumeSet, store: FlatStore, max_bytes: int) -> None:
    """The volumes fit where they are kept, and in what their owner allows a journal to ask for.

    Raises:
        UnusableVolumeError: they do not.
    """
    check_total(volumes, max_bytes)
    for volume in volumes:
        capacity = store.capacity(volume.name)
        if capacity is not None and volume.size > capacity:
            raise UnusableVolumeError(
                f"volume {volume.name} grows to {volume.size} bytes, its device has {capacity}",
                remedy="make a mirror on a larger one",
            )


def check_total(volumes: VolumeSet, max_bytes: int) -> None:
    """Raise UnusableVolumeError if the volumes are larger together than that."""
    total = sum(volume.size for volume in volumes)
    if total > max_bytes:
        raise UnusableVolumeError(
            f"the journal's volumes have {total} bytes together, more than {max_bytes}",
            remedy="if that is right, allow it with --max-size",
        )


def find_changed_page(store: Store, sums: PageSums) -> int | None:
    """A page that differs from its sum, among samples spread over what is allocated; None if all are right."""
    buffer = memoryview(bytearray(sums.page_size))
    for page in _samples(sums):
        store.read_into(page, [buffer])
        if page_sums([buffer], sums.page_size) != sums.read(page, 1):
            return page
    return None


def _samples(sums: PageSums) -> Iterator[int]:
    """Pages spread evenly over each volume, and the first and middle ones of what is allocated first."""
    for volume in sums.volumes:
        first, count = sums.volumes.first_page(volume), sums.volumes.page_count(volume)
        number = min(count, _SAMPLES)
        yield from (first + count * i // number for i in range(number))
        for page, length in itertools.islice(sums.nonzero_runs(first, count), _SAMPLES // 2):
            yield page
            yield page + length // 2
