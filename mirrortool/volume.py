"""Volumes: named runs of the address space, each with a size.

A journal's volumes never overlap and start at multiples of 2^48. Each takes whole multiples of it, an empty one too, so
that no two start at one address.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mirrortool.address import ADDRESS_LIMIT, VOLUME_ALIGNMENT, format_address, pages_in
from mirrortool.checksum import volume_term
from mirrortool.errors import UsageError
from mirrortool.wording import exact_bytes, format_bytes

VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VOLUMES_MAX = 1024
_SAME_NAME = "two volumes have the same name"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume: where it is in the address space, and how large. On the primary, primary storage (520, FIG. 5).

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

    @property
    def sizes(self) -> dict[str, int]:
        """By name, in bytes."""
        return {volume.name: volume.size for volume in self._volumes}

    def with_sizes(self, sizes: Mapping[str, int]) -> VolumeSet:
        """The same volumes, each with the size that it has in `sizes`.

        Raises:
            UsageError: these are of other volumes, or one is too large for its place.
        """
        if sizes.keys() != self._by_name.keys():
            raise UsageError("sizes of other volumes")
        return VolumeSet([replace(each, size=sizes[each.name]) for each in self._volumes], self.page_size)

    def _problem(self) -> str | None:
        if len(self._by_name) != len(self._volumes):
            return _SAME_NAME
        if not 0 < len(self._volumes) <= VOLUMES_MAX:
            return f"a journal has 1 to {VOLUMES_MAX} volumes"
        for volume, following in zip(self._volumes, (*self._volumes[1:], None), strict=True):
            if not VOLUME_NAME.fullmatch(volume.name):
                return f"{volume.name!r} is not a volume name: letters, digits, '.', '_', '-', at most 64"
            if volume.start < 0 or volume.start % VOLUME_ALIGNMENT or volume.size < 0:
                return f"volume {volume.name} does not start at a multiple of 2^48"
            if volume.start + max(1, volume.size) > (following.start if following else ADDRESS_LIMIT):
                return f"volume {volume.name} is too large for its place in the address space"
        return None


def place(sizes: Sequence[tuple[str, int]], page_size: int, addresses: Mapping[str, int] | None = None) -> VolumeSet:
    """Place named sizes in the address space.

    A volume without an address goes to the lowest free multiple of 2^48 at which it fits, in the order given: one after
    another, where none has an address.

    Args:
        sizes: each volume's name, and its size in bytes, 0 or more.
        addresses: where some of them are to start, by name.
    Raises:
        UsageError: an address is not valid, two volumes overlap, or one does not find room.
    """
    if len(dict(sizes)) != len(sizes):
        raise UsageError(_SAME_NAME)
    for name, size in sizes:
        if size > ADDRESS_LIMIT:
            what = f"volume {name} is too large, with {exact_bytes(size)}"
            raise UsageError(what, remedy=f"the whole address space has {exact_bytes(ADDRESS_LIMIT)}")
    addresses = addresses or {}
    placed = [Volume(name, addresses[name], size) for name, size in sizes if name in addresses]
    for volume in placed:
        _check_address(volume)
    placed.sort(key=lambda volume: volume.start)
    for volume, following in itertools.pairwise(placed):
        _check_apart(volume, following)
    gaps = list(_gaps_between(placed))
    placed += [_fill_gap(gaps, name, size) for name, size in sizes if name not in addresses]
    return VolumeSet(placed, page_size)


def _room_of(size: int) -> int:
    """What a volume of this size takes of the address space: multiples of 2^48, one at least."""
    return max(1, -(-size // VOLUME_ALIGNMENT)) * VOLUME_ALIGNMENT


def _check_address(volume: Volume) -> None:
    """Raise UsageError unless a volume, by itself, may start where it does."""
    at, last = f"volume {volume.name} cannot start at {format_address(volume.start)}", ADDRESS_LIMIT - VOLUME_ALIGNMENT
    if not 0 <= volume.start < ADDRESS_LIMIT:
        reach = f"addresses are {format_address(0)} to {format_address(ADDRESS_LIMIT - 1)}"
        raise UsageError(f"{at}: {reach}", remedy=f"the last that a volume can have is {format_address(last)}")
    below = volume.start - volume.start % VOLUME_ALIGNMENT
    if below != volume.start:
        nearest = " or ".join(format_address(each) for each in (below, below + VOLUME_ALIGNMENT) if each <= last)
        raise UsageError(f"{at}: that is not a multiple of 2^48", remedy=f"place it at {nearest}")
    highest = ADDRESS_LIMIT - _room_of(volume.size)
    if volume.start > highest:
        what = f"{at}: with {exact_bytes(volume.size)} it would reach beyond the last address"
        raise UsageError(what, remedy=f"place it at {format_address(highest)} or lower")


def _check_apart(volume: Volume, following: Volume) -> None:
    """Raise UsageError if a volume that starts no later than another one reaches into it."""
    end = volume.start + _room_of(volume.size)
    if end <= following.start:
        return
    what = f"volumes {volume.name} and {following.name} overlap"
    if volume.start == following.start:
        what = f"{what}: both start at {format_address(volume.start)}"
    else:
        what = f"{what}: the first ends at {format_address(volume.start + volume.size - 1)}"
    remedy = f"place {following.name} at {format_address(end)} or higher" if end < ADDRESS_LIMIT else "place them apart"
    raise UsageError(what, remedy=remedy)


def _gaps_between(placed: Sequence[Volume]) -> Iterator[tuple[int, int]]:
    """What volumes, ascending, leave free: pairs of the first address and the one after the last."""
    start = 0
    for volume in placed:
        if start < volume.start:
            yield start, volume.start
        start = volume.start + _room_of(volume.size)
    if start < ADDRESS_LIMIT:
        yield start, ADDRESS_LIMIT


def _fill_gap(gaps: list[tuple[int, int]], name: str, size: int) -> Volume:
    """Place a volume in the first gap that is wide enough, and narrow that gap."""
    room = _room_of(size)
    for number, (start, end) in enumerate(gaps):
        if start + room <= end:
            gaps[number] = start + room, end
            return Volume(name, start, size)
    widest = max((end - start for start, end in gaps), default=0)
    raise UsageError(
        f"volume {name} is too large for what the others leave, with {exact_bytes(size)}: {format_bytes(widest)} are "
        "free in one piece",
        remedy="place the others closer together, or make several journals",
    )
