"""The map is what the tables say: the higher sequence counts, what is damaged is named, and the remainder is free."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirrortool import files
from mirrortool.errors import ChangedOutsideError
from mirrortool.store.allocation import place_of
from mirrortool.store.backing import Backing
from mirrortool.store.backingset import BackingSet
from mirrortool.store.extentload import load_extents, refuse_damaged
from mirrortool.store.syncgate import SyncGate
from mirrortool.volume import place
from tests.fakes.backings import EXTENT, Backings, make_backings
from tests.fakes.volumes import fast_directory

VOLUMES = place([("a", 10 * EXTENT), ("b", 5)], 512)
B = VOLUMES["b"].start


@pytest.fixture
def made() -> Iterator[Backings]:
    with fast_directory() as path:
        yield make_backings(path, 6, 3)


@pytest.fixture
def backings(made: Backings) -> Iterator[BackingSet]:
    gate = SyncGate()
    opened = [
        Backing(files.open_file(path, write=True), header, gate)
        for path, header in zip(made.paths, made.headers, strict=True)
    ]
    yield BackingSet(opened, gate)
    for each in opened:
        each.close()


def note(backing: Backing, cell: int, address: int, sequence: int) -> None:
    backing.write_records({cell: backing.records.used(cell, address, sequence)})


def test_new_backings_have_room_and_nothing_else(backings: BackingSet) -> None:
    found = load_extents(backings, VOLUMES)
    assert (len(found.places), found.sequence, found.damaged) == (0, 0, [])
    assert (found.free, found.leftovers) == ([[(0, 6)], [(0, 3)]], [[], []])


def test_of_two_cells_of_an_extent_the_higher_sequence_counts(backings: BackingSet) -> None:
    """Whichever is read first; the other is left over."""
    note(backings[0], 1, 0, 5)
    note(backings[0], 4, EXTENT, 9)
    note(backings[1], 0, 0, 6)
    note(backings[1], 2, EXTENT, 8)
    note(backings[0], 2, B, 1)
    found = load_extents(backings, VOLUMES)
    assert dict(found.places.each(0, 1 << 50)) == {
        0: place_of(1, 0), 1: place_of(0, 4), B // EXTENT: place_of(0, 2)
    }  # fmt: skip
    assert found.sequence == 9
    assert found.leftovers == [[(1, 1)], [(2, 1)]]
    assert found.free == [[(0, 1), (3, 1), (5, 1)], [(1, 1)]]


def test_claimed_cells_are_left_over(backings: BackingSet) -> None:
    backings[0].write_records({cell: backings[0].records.claimed(cell) for cell in (0, 1, 5)})
    found = load_extents(backings, VOLUMES)
    assert found.leftovers == [[(0, 2), (5, 1)], []]
    assert found.free == [[(2, 3)], [(0, 3)]]


def test_a_damaged_record_is_named_and_its_cell_is_not_free(backings: BackingSet) -> None:
    note(backings[0], 2, 1 << 48, 1)
    backings[0].write_records({3: b"\1" * 32})
    note(backings[1], 1, 0, 2)  # of no volume
    found = load_extents(backings, place([("a", 10 * EXTENT)], 512, {"a": 1 << 48}))
    assert found.damaged == [(backings[0].path, 3), (backings[1].path, 1)]
    assert len(found.places) == 1
    assert found.free == [[(0, 2), (4, 2)], [(0, 1), (2, 1)]]
    with pytest.raises(ChangedOutsideError, match="cell 3 is damaged, and 1 more"):
        refuse_damaged(found)


def test_a_store_over_a_damaged_table_is_read_and_not_written(made: Backings, backings: BackingSet) -> None:
    note(backings[0], 0, 0, 1)
    backings[0].file.pwrite(b"data", backings[0].offset_of(0))
    backings[0].write_records({1: b"\1" * 32})
    with pytest.raises(ChangedOutsideError, match="damaged"):
        made.open(VOLUMES)
    store = made.open(VOLUMES, write=False)
    found = bytearray(512)
    store.read_into(0, [memoryview(found)])
    store.close()
    assert found[:4] == b"data"
