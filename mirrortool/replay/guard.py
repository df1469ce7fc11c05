"""What replay checks before its first write: that the mirror is as it was left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from mirrortool.checksum import page_sums
from mirrortool.store.base import Store
from mirrortool.store.pagesums import PageSums

_SAMPLES = 64


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
