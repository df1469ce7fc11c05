"""Which cell each extent has: gives cells out at the first write, and takes them back.

    none ---first write---> in use ---ZERO of all of it---> freed ---begin_checkpoint---> covered
                              ^                               |                              | end_checkpoint:
                              +-----------next write----------+                              | zeroed and synced
                                      its own cell, zeroed                                   v
                                                                                           free

Rule: a free cell is durably zero. So a record that gives it to an extent may become durable at any time after: pages of
the extent that were never written read as zeros.
Rule: what a freed cell held stays there until a checkpoint that was begun after the free is durable. Redo from any
checkpoint before goes over the ZERO again, so until then nobody needs the bytes; but in another extent's place, or in
the same extent's after that checkpoint, they would be pages that no redo touches.
Rule: a freed extent that is written before `begin_checkpoint` gets its own cell back, zeroed in place: redo zeroes it,
too. One that is written after it gets another cell.
Rule: the record of a freed cell says claimed with the next sync, so before the sums are durable that say zeros.

Lock: `_lock` protects everything here, but for `places.get` and `returned`; held for a claim's sync, too. Before it may
be held a store's gate, after it a backing's.
Bound: 8 bytes of a number for each extent that was freed, or changed, since the last sync or checkpoint.
"""

from __future__ import annotations

import itertools
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence

from mirrortool.address import ADDRESS_LIMIT
from mirrortool.errors import NoSpaceError
from mirrortool.store.backing import Backing
from mirrortool.store.backingset import BackingSet
from mirrortool.store.cellroom import CellRoom, Run, Turns, runs_of
from mirrortool.store.extentmap import NO_PLACE, ExtentMap
from mirrortool.store.zeroedparts import ZeroedParts
from mirrortool.wording import counted, format_bytes

CELL_BITS = 40
CELL_MASK = (1 << CELL_BITS) - 1
FREED = 1 << 60
"""Beside a place in the map: the extent reads as zeros, but its cell is not to be had yet."""
_SLICE = 1 << 14

Changes = tuple["array[int]", "array[int]"]
"""Places, and the extents that got or lost them."""


def place_of(number: int, cell: int) -> int:
    """What the map holds of a cell of the backing with this number: never NO_PLACE, and less than FREED."""
    return 1 + (number << CELL_BITS | cell)


def number_and_cell(place: int) -> tuple[int, int]:
    """Backing and cell of a place; freed or not."""
    place = (place & (FREED - 1)) - 1
    return place >> CELL_BITS, place & CELL_MASK


class Allocation:
    """The cells of all backings, and which extents have them.

    Attributes:
        places: the map; its numbers are places, those of freed extents with FREED.
        returned: how often cells became free; a reader that sees another number than before reads again.
    """

    def __init__(
        self, backings: BackingSet, rooms: Sequence[CellRoom], places: ExtentMap, sequence: int, owner: str
    ) -> None:
        """
        Args:
            sequence: above those of all records.
            owner: the mirror, as a word of a command, for errors.
        """
        self.places = places
        self.returned = 0
        self._backings, self._rooms = backings, rooms
        self._extent_bytes = backings.extent_bytes
        self._owner = owner
        self._lock = threading.Lock()
        self._topped = threading.Condition(self._lock)  # notified when claims that a sync made are usable
        self._is_topping = False
        self._turns = Turns(rooms)
        self._sequence = sequence
        self._parts = ZeroedParts()
        self._freed: array[int] = array("Q")  # extents; also such as have their cell back
        self._covered: array[int] = array("Q")  # places of cells that the checkpoint covers which was begun
        # In the order in which it happened since the last sync began.
        self._changed: Changes = array("Q"), array("Q")

    @property
    def frees_wait(self) -> bool:
        """Whether cells were freed that no checkpoint has covered."""
        return bool(self._freed or self._covered)

    @property
    def has_parts(self) -> bool:
        """Whether a write has to ask `require` also where the map has a place."""
        return bool(self._parts)

    def require(self, extent: int) -> int:
        """The place of an extent that is about to be written.

        Raises:
            NoSpaceError: it has none, and there is none.
        """
        with self._lock:
            if self._parts:
                self._parts.forget(extent)
            return self._require(extent, 1)

    def reserve(self, extents: Iterable[int]) -> list[int]:
        """Give all of these a place, or none of them; returns those that got one.

        Raises:
            NoSpaceError: there are not enough.
        """
        get = self.places.get
        missing = {extent for extent in extents if not get(extent)}
        if not missing:
            return []
        with self._lock:
            new = sorted(extent for extent in missing if not get(extent))
            self._wait_until_topped(len(new))
            left = sum(room.left for room in self._rooms)
            if len(new) > left:
                raise self.full(len(new), left)
            for done, extent in enumerate(new):
                self._require(extent, len(new) - done)
            return new

    def give_back(self, extents: Iterable[int]) -> None:
        """These have got a place by `reserve`, and nothing was written there."""
        with self._lock:
            for extent in extents:
                number, cell = number_and_cell(self.places.get(extent))
                self.places.remove(extent)
                self._rooms[number].add_claimed([(cell, 1)])

    def free(self, first: int, end: int) -> None:
        """The extents from `first` to before `end` read as zeros from now on."""
        with self._lock:
            for extent, place in self.places.each(first, end):
                if place < FREED:
                    self._free(extent, place)

    def zero_part(self, extent: int, pages: range, whole: int) -> int:
        """The place of an extent of which these pages, counted from its first, are to be zeroed there.

        NO_PLACE where nothing is to be done: it has none, or with this part all `whole` pages of it have become zeros,
        so that it is freed.
        """
        with self._lock:
            place = self.places.get(extent)
            if place == NO_PLACE or place >= FREED:
                return NO_PLACE
            if self._parts.add(extent, pages, whole):
                self._free(extent, place)
                return NO_PLACE
            return place

    def begin_checkpoint(self) -> None:
        """What was freed up to now is covered by the checkpoint that begins."""
        with self._lock:
            self._parts.clear()
            freed, self._freed = self._freed, array("Q")
            for extent in freed:
                place = self.places.get(extent)
                if place >= FREED:
                    self.places.remove(extent)
                    self._covered.append(place - FREED)

    def end_checkpoint(self) -> None:
        """The checkpoint is durable: what it covers is zeroed, durably, and then free.

        Raises:
            HostError: that failed; no cell was lost, as the next opening zeroes them.
        """
        with self._lock:
            covered, self._covered = self._covered, array("Q")
        self.free_cells(covered)

    def free_cells(self, places: Iterable[int]) -> None:
        """Zero cells that no extent has any more, durably; then they are free."""
        for number, here in _by_backing(places):
            backing, runs = self._backings[number], runs_of(cell for _, cell in here)
            for run in runs:
                backing.zero(*run)
            backing.sync()
            for run in runs:
                backing.free_records(*run)
            with self._lock:
                self.returned += 1
                self._rooms[number].add_free(runs)

    def extents_on(self, number: int) -> array[int]:
        """The extents that have a cell of the backing with this number."""
        found = array("Q")
        for extent, place in self.places.each(0, ADDRESS_LIMIT // self._extent_bytes):
            if number_and_cell(place)[0] == number:
                found.append(extent)
        return found

    def room_beside(self, number: int) -> int:
        """How many cells the other backings have left."""
        with self._lock:
            return sum(room.left for each, room in enumerate(self._rooms) if each != number)

    def close_room(self, number: int) -> None:
        """No cell of this backing is given out any more."""
        with self._lock:
            self._rooms[number].is_closed = True

    def take_other_cells(self, extents: Sequence[int]) -> list[int]:
        """A cell for each of these, beside the one that it has: places, which nothing knows yet."""
        with self._lock:
            return [self._take(len(extents) - done) for done in range(len(extents))]

    def move(self, extents: Sequence[int], places: Sequence[int]) -> None:
        """These have these places from now on, and the cells there hold their bytes, durably."""
        with self._lock:
            for extent, place in zip(extents, places, strict=True):
                self.places.put(extent, place)
                self._note(place, extent)

    def take_changes(self) -> Changes:
        """What became different since the last call, for a sync that begins."""
        with self._lock:
            changes, self._changed = self._changed, (array("Q"), array("Q"))
        return changes

    def records(self, changes: Changes) -> Iterator[tuple[int, dict[int, bytes]]]:
        """The records that a sync has to write, in order: pairs of a backing's number, and records by cell.

        They are as things stand when they are taken, which may be later than the changes.
        """
        places, extents = changes
        for start in range(0, len(places), _SLICE):
            with self._lock:
                part = zip(places[start : start + _SLICE], extents[start : start + _SLICE], strict=True)
                records = {place: self._record(place, extent) for place, extent in part}
            for number, here in _by_backing(records):
                yield number, {cell: records[place] for place, cell in here}

    def begin_topping(self) -> list[list[Run]]:
        """Choose cells to be claimed by a sync: runs for each backing."""
        with self._lock:
            self._is_topping = True
            return [room.to_top_up() for room in self._rooms]

    def end_topping(self, chosen: Sequence[Sequence[Run]], *, are_durable: bool) -> None:
        """The sync has ended."""
        with self._lock:
            self._is_topping = False
            if are_durable:
                for room, runs in zip(self._rooms, chosen, strict=True):
                    room.add_claimed(runs)
            self._topped.notify_all()

    def give_claims_up(self) -> None:
        """At the end: what was claimed and not used is free, and its records say so."""
        with self._lock:
            for backing, room in zip(self._backings, self._rooms, strict=True):
                for run in room.give_claimed_up():
                    backing.free_records(*run)

    def _require(self, extent: int, wanted: int) -> int:
        """Under the lock; `wanted` cells may be needed in all."""
        place = self.places.get(extent)
        if place >= FREED:
            place -= FREED
            number, cell = number_and_cell(place)
            self._backings[number].zero(cell)
        elif place == NO_PLACE:
            place = self._take(wanted)
        else:
            return place
        self.places.put(extent, place)
        self._note(place, extent)
        return place

    def _take(self, wanted: int) -> int:
        self._wait_until_topped(1)
        number = self._turns.next()
        if number is None:
            raise self.full(1, 0)
        room = self._rooms[number]
        if not room.claimed_count:
            share = wanted * room.left // sum(each.left for each in self._rooms) + 1
            runs = room.to_claim(share)
            write_claims(self._backings[number], runs)
            self._backings[number].sync()
            room.add_claimed(runs)
        return place_of(number, room.take())

    def _wait_until_topped(self, wanted: int) -> None:
        """Wait for claims that are being made, where without them there is not enough; under the lock."""
        while self._is_topping and wanted > sum(room.left for room in self._rooms):
            self._topped.wait()

    def _free(self, extent: int, place: int) -> None:
        self._parts.forget(extent)
        self.places.put(extent, place + FREED)
        self._freed.append(extent)
        self._note(place, extent)

    def _note(self, place: int, extent: int) -> None:
        places, extents = self._changed
        places.append(place)
        extents.append(extent)

    def _record(self, place: int, extent: int) -> bytes:
        """What the table has to say of a place that the extent got or lost."""
        number, cell = number_and_cell(place)
        records = self._backings[number].records
        if self.places.get(extent) != place:
            return records.claimed(cell)
        self._sequence += 1
        return records.used(cell, extent * self._extent_bytes, self._sequence)

    def full(self, wanted: int, left: int) -> NoSpaceError:
        """The error where extents need cells, and fewer are left."""
        free = f"{counted(left, 'extent is', 'extents are')} free" if left else "no extent is free"
        return NoSpaceError(
            f"the backings are full: {free}, {counted(wanted, 'more is', 'more are')} needed, "
            f"{format_bytes(self._extent_bytes)} each",
            where=self._owner,
            remedy=f"mirrortool backing add {self._owner} PATH:SIZE",
        )


def write_claims(backing: Backing, runs: Iterable[Run]) -> None:
    """Write that these cells are claimed; durable with the next sync."""
    for first, count in runs:
        for start in range(first, first + count, _SLICE):
            cells = range(start, min(start + _SLICE, first + count))
            backing.write_records({cell: backing.records.claimed(cell) for cell in cells})


def _by_backing(places: Iterable[int]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Places in order of backings: each one's number, with pairs of its places and their cells."""
    for number, group in itertools.groupby(sorted(places), key=lambda place: number_and_cell(place)[0]):
        yield number, [(place, number_and_cell(place)[1]) for place in group]
