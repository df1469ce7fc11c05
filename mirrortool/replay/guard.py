"""What replay checks before it writes: that the mirror is as it was left, and that the journal asks for no more space
than it may.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator

from mirrortool.checksum import SUM_BYTES, page_sums
from mirrortool.errors import UnusableVolumeError
from mirrortool.operation import Batch, Kind
from mirrortool.store.base import Store
from mirrortool.store.flat import FlatStore
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet
from mirrortool.wording import exact_bytes

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
                f"volume {volume.name} grows to {exact_bytes(volume.size)}, its device has {exact_bytes(capacity)}",
                remedy="make a mirror on a larger one",
            )


def check_total(volumes: VolumeSet, max_bytes: int) -> None:
    """Raise UnusableVolumeError if the volumes are larger together than that."""
    total = sum(volume.size for volume in volumes)
    if total > max_bytes:
        raise UnusableVolumeError(
            f"the journal's volumes have {exact_bytes(total)} together, more than {exact_bytes(max_bytes)}",
            remedy="if that is right, allow it with --max-size",
        )


def find_changed_page(store: Store, sums: PageSums, in_flight: Iterable[Batch] = ()) -> int | None:
    """A page that differs from its sum, among samples spread over what is allocated; None if all are right.

    Args:
        in_flight: what a replay that was killed may have written. A page of it may have any sum that it had since, and
            a power cut may have torn a few.
    """
    samples = sorted(set(_samples(sums)))
    since = _sums_since(in_flight, samples, sums)
    buffer = memoryview(bytearray(sums.page_size))
    right, torn = 0, list[int]()
    for page in samples:
        store.read_into(page, [buffer])
        found = page_sums([buffer], sums.page_size)
        if found == sums.read(page, 1) or found in since.get(page, ()):
            right += 1
        elif page in since:
            torn.append(page)
        else:
            return page
    return torn[0] if len(torn) > right else None


def _sums_since(batches: Iterable[Batch], samples: list[int], sums: PageSums) -> dict[int, set[bytes]]:
    """The sums that operations gave to those of the samples that they touched."""
    since: dict[int, set[bytes]] = {}
    for batch in batches:
        packed, done = memoryview(batch.sums), 0
        for kind, page, count in zip(batch.kinds, batch.pages, batch.counts, strict=True):
            first, end = page, page + count
            if kind == Kind.RESIZE and (volume := sums.volumes.at_base(page)):
                first, end = page + count // sums.page_size, page + sums.volumes.limit_of(volume) // sums.page_size
            elif kind not in (Kind.WRITE, Kind.ZERO):
                continue
            for each in samples[bisect.bisect_left(samples, first) : bisect.bisect_left(samples, end)]:
                place = (done + each - first) * SUM_BYTES
                new = bytes(packed[place : place + SUM_BYTES]) if kind == Kind.WRITE else bytes(SUM_BYTES)
                since.setdefault(each, set()).add(new)
            done += count if kind == Kind.WRITE else 0
    return since


def _samples(sums: PageSums) -> Iterator[int]:
    """Pages spread evenly over each volume, and the first and middle ones of what is allocated first."""
    for volume in sums.volumes:
        first, count = sums.volumes.first_page(volume), sums.volumes.page_count(volume)
        number = min(count, _SAMPLES)
        yield from (first + count * i // number for i in range(number))
        for page, length in itertools.islice(sums.nonzero_runs(first, count), _SAMPLES // 2):
            yield page
            yield page + length // 2
