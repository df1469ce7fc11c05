"""Volumes: named runs of the address space, each with a size.

A journal's volumes never overlap and are based at multiples of 2^48, in the order in which they were named.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mirrortool.address import ADDRESS_LIMIT, VOLUME_ALIGNMENT, pages_in
from mirrortool.checksum import volume_term
from mirrortool.errors import UsageError

VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VOLUMES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume: where it is in the address space, and how large.

    Attributes:
        start: address of its first byte, a multiple of 2^48.
        size: bytes; its last page may be partial.
    """

    name: str
    start: int
    size: int

    @property
    def term(self) -> int:
        """What its name and size add to the state sum."""
        return volume_term(self.name, self.size)


class VolumeSet:
    """The volumes of a journal at one LSN; immutable."""

    def __init__(self, volumes: Sequence[Volume], page_size: int) -> None:
        self.page_size = page_size
        self._volumes = tuple(sorted(volumes, key=lambda volume: volume.start))
        self._first_pages = [volume.start // page_size for volume in self._volumes]
        self._by_name = {volume.name: volume for volume in self._volumes}
        if problem := self._problem():
            raise UsageError(problem)

    def __iter__(self) -> Iterator[Volume]:
        return iter(self._volumes)

    def __len__(self) -> int:
        return len(self._volumes)

    def __getitem__(self, name: str) -> Volume:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VolumeSet) and self._volumes == other._volumes

    def __hash__(self) -> int:
        return hash(self._volumes)

    def first_page(self, volume: Volume) -> int:
        """The page at which a volume begins."""
        return volume.start // self.page_size

    def page_count(self, volume: Volume) -> int:
        """Pages of a volume, a partial one included."""
        return pages_in(volume.size, self.page_size)

    def find(self, page: int, count: int = 1) -> Volume | None:
        """The volume that holds all of these pages, if one does."""
        index = bisect.bisect_right(self._first_pages, page) - 1
        if index < 0:
            return None
        volume = self._volumes[index]
        fits = page + count <= self._first_pages[index] + self.page_count(volume)
        return volume if fits else None

    def starting_at(self, page: int) -> Volume | None:
        """The volume that has this as its first page."""
        index = bisect.bisect_left(self._first_pages, page)
        found = index < len(self._first_pages) and self._first_pages[index] == page
        return self._volumes[index] if found else None

    def limit_of(self, volume: Volume) -> int:
        """The largest size that the volume can have before it meets the next, in bytes."""
        index = self._volumes.index(volume)
        end = ADDRESS_LIMIT if index + 1 == len(self._volumes) else self._volumes[index + 1].start
        return end - volume.start

    def resized(self, volume: Volume, size: int) -> VolumeSet:
        """The same volumes, one with another size."""
        changed = [replace(each, size=size) if each == volume else each for each in self._volumes]
        return VolumeSet(changed, self.page_size)

    def _problem(self) -> str | None:
        if len(self._by_name) != len(self._volumes):
            return "two volumes have the same name"
        if not 0 < len(self._volumes) <= VOLUMES_MAX:
            return f"a journal has 1 to {VOLUMES_MAX} volumes"
        for volume, following in zip(self._volumes, (*self._volumes[1:], None), strict=True):
            if not VOLUME_NAME.fullmatch(volume.name):
                return f"{volume.name!r} is not a volume name: letters, digits, '.', '_', '-', at most 64"
            if volume.start < 0 or volume.start % VOLUME_ALIGNMENT or volume.size < 0:
                return f"volume {volume.name} is not based at a multiple of 2^48"
            if volume.start + volume.size > (following.start if following else ADDRESS_LIMIT):
                return f"volume {volume.name} is too large for its place in the address space"
        return None


def place(sizes: Sequence[tuple[str, int]], page_size: int) -> VolumeSet:
    """Place named sizes one after another in the address space, each on the next free multiple of 2^48."""
    volumes, start = [], 0
    for name, size in sizes:
        volumes.append(Volume(name, start, size))
        start += max(1, -(-size // VOLUME_ALIGNMENT)) * VOLUME_ALIGNMENT
    return VolumeSet(volumes, page_size)
