"""Samples of a store, compared with its table of sums: whether another program wrote there, or it is another disk.

A sample is a page; they are spread over each volume, and over what the table says is not zero, so that a few pages of
data in a large volume are among them. That costs some reads, however large the volume is.
What is in flight counts: a page of which a crash may have left an older or a newer content may have any sum that it had
since, and a power cut may have torn a few.
Not here: what follows from what is found.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from mirrortool.checksum import SUM_BYTES, page_sums
from mirrortool.operation import Batch, Kind
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume

_SAMPLES = 64
_NONZERO_MAX, _NONZERO_MIN = 128, 8
"""Pages that are not zero, at most of all volumes together; and at least of each, where there are many volumes."""
_BLOCK_PAGES = 512
"""The number of sums in a block of the table on most file systems."""
_ZERO = bytes(SUM_BYTES)


@dataclass(frozen=True, slots=True)
class PageSample:
    """A page that was looked at.

    Attributes:
        page: numbered through the address space.
        known, found: its sum, packed, in the table and in the store.
        since: the sums that what is in flight gave it; nothing if it is not.
    """

    page: int
    known: bytes
    found: bytes
    since: Collection[bytes] = field(default=())

    @property
    def is_right(self) -> bool:
        return self.found == self.known or self.found in self.since

    @property
    def was_zero(self) -> bool:
        """Whether the table has it as zeros."""
        return self.known == _ZERO

    @property
    def is_zero(self) -> bool:
        """Whether the store has zeros there."""
        return self.found == _ZERO


def sample_pages(
    store: Store, sums: PageSums, in_flight: Iterable[Batch] = (), *, names: Collection[str] | None = None
) -> list[PageSample]:
    """Look at pages of volumes, by default of all.

    Args:
        in_flight: what a process that was killed may have written.
    """
    volumes = [volume for volume in sums.volumes if names is None or volume.name in names]
    nonzero = max(_NONZERO_MIN, _NONZERO_MAX // max(1, len(volumes)))
    pages = sorted({page for volume in volumes for page in _chosen(sums, volume, nonzero)})
    since = _sums_since(in_flight, pages, sums)
    buffer = memoryview(bytearray(sums.page_size))
    found = []
    for page in pages:
        store.read_into(page, [buffer])
        found.append(
            PageSample(page, sums.read(page, 1), page_sums([buffer], sums.page_size), since.get(page, frozenset()))
        )
    return found


def first_changed(samples: Iterable[PageSample]) -> int | None:
    """A page that only a write of another program explains; None if there is none."""
    right, torn = 0, list[int]()
    for sample in samples:
        if sample.is_right:
            right += 1
        elif sample.since:
            torn.append(sample.page)
        else:
            return sample.page
    return torn[0] if len(torn) > right else None


def _sums_since(batches: Iterable[Batch], samples: list[int], sums: PageSums) -> dict[int, set[bytes]]:
    """The sums that operations gave to those of the samples that they touched."""
    since: dict[int, set[bytes]] = {}
    for batch in batches:
        for kind, page, count, packed, _ in batch.runs():
            first, end = page, page + count
            if kind == Kind.RESIZE and (volume := sums.volumes.starting_at(page)):
                first, end = page + count // sums.page_size, page + sums.volumes.limit_of(volume) // sums.page_size
            elif kind not in (Kind.WRITE, Kind.ZERO):
                continue
            for each in samples[bisect.bisect_left(samples, first) : bisect.bisect_left(samples, end)]:
                place = (each - first) * SUM_BYTES
                new = bytes(packed[place : place + SUM_BYTES]) if kind == Kind.WRITE else bytes(SUM_BYTES)
                since.setdefault(each, set()).add(new)
    return since


def _chosen(sums: PageSums, volume: Volume, nonzero_most: int) -> Iterator[int]:
    """Pages spread evenly, some that are not zero, and the first and middle ones of what is allocated first."""
    first, count = sums.volumes.first_page(volume), sums.volumes.page_count(volume)
    number = min(count, _SAMPLES)
    yield from (first + count * i // number for i in range(number))
    nonzero = list(_nonzero_pages(sums, first, count))
    number = min(len(nonzero), nonzero_most)
    yield from (nonzero[len(nonzero) * i // number] for i in range(number))
    for page, length in itertools.islice(sums.nonzero_runs(first, count), _SAMPLES // 2):
        yield page
        yield page + length // 2


def _nonzero_pages(sums: PageSums, first: int, count: int) -> Iterator[int]:
    """Of each of as many stretches of a volume, those that are not zero in the first allocated block of the table.

    So each page that is not zero is as likely a sample as another, where a volume has little, as after mkfs: one in
    each stretch would be mostly what a file system changes always.
    """
    for i in range(_SAMPLES):
        page, end = first + count * i // _SAMPLES, first + count * (i + 1) // _SAMPLES
        run = next(iter(sums.nonzero_runs(page, end - page)), None)
        if run:
            packed = sums.read(run[0], min(run[1], _BLOCK_PAGES))
            places = range(0, len(packed), SUM_BYTES)
            yield from (run[0] + at // SUM_BYTES for at in places if packed[at : at + SUM_BYTES] != _ZERO)
