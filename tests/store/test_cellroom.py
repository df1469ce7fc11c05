"""Cells are given out once each, claimed before, and the backings take turns by their room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool import files
from mirrortool.store import cellroom
from mirrortool.store.backing import Backing
from mirrortool.store.cellroom import CellRoom, Turns, runs_of
from tests.fakes.backings import EXTENT, make_backings
from tests.fakes.volumes import fast_directory


@pytest.fixture(autouse=True, scope="module")
def _few_claims() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cellroom, "CLAIM_BYTES", 4 * EXTENT)
        yield


@pytest.fixture(scope="module")
def backing() -> Iterator[Backing]:
    with fast_directory() as path:
        made = make_backings(path, 100)
        opened = Backing(files.open_file(made.paths[0], write=True), made.headers[0])
        yield opened
        opened.close()


@given(st.lists(st.tuples(st.sampled_from(["claim", "take", "free", "top up", "give up"]), st.integers(0, 9))))
def test_each_cell_is_free_claimed_or_taken(backing: Backing, steps: list[tuple[str, int]]) -> None:
    room = CellRoom(backing, [(0, 30), (40, 60)])
    free, claimed, taken = set(range(30)) | set(range(40, 100)), set[int](), list[int]()
    for what, number in steps:
        if what in ("claim", "top up"):
            runs = room.to_claim(number) if what == "claim" else room.to_top_up()
            cells = {cell for first, count in runs for cell in range(first, first + count)}
            assert cells <= free and len(cells) == sum(count for _, count in runs)
            assert what == "top up" or len(cells) >= min(number, len(free))
            free -= cells
            claimed |= cells
            room.add_claimed(runs)
        elif what == "take" and claimed:
            cell = room.take()
            assert cell == min(claimed), "the lowest is used first, so that neighbours lie together"
            claimed.discard(cell)
            taken.append(cell)
        elif what == "free":
            back, taken = taken[:number], taken[number:]
            room.add_free(runs_of(back))
            free.update(back)
        elif what == "give up":
            runs = room.give_claimed_up()
            assert {cell for first, count in runs for cell in range(first, first + count)} == claimed
            free |= claimed
            claimed = set()
        assert room.left == len(free) + len(claimed)
        assert room.claimed_count == len(claimed)


def test_a_sync_claims_what_the_last_windows_took_and_nothing_where_nothing_was(backing: Backing) -> None:
    room = CellRoom(backing, [(0, 100)])
    assert room.to_top_up() == []
    room.add_claimed(room.to_claim(20))
    for _ in range(20):
        room.take()
    runs = room.to_top_up()
    assert sum(count for _, count in runs) == 20
    room.add_claimed(runs)
    assert room.to_top_up() == []


@pytest.mark.parametrize("sizes", [(100, 50, 25), (1, 80), (60, 60), (7,)])
def test_each_backing_has_turns_by_its_share_of_the_room(backing: Backing, sizes: tuple[int, ...]) -> None:
    rooms = [CellRoom(backing, [(0, size)]) for size in sizes]
    for room in rooms:
        room.add_claimed(room.to_claim(room.left))
    turns, taken, order = Turns(rooms), Counter[int](), list[int]()
    while (number := turns.next()) is not None:
        rooms[number].take()
        taken[number] += 1
        order.append(number)
        for each, size in enumerate(sizes):
            assert abs(taken[each] - len(order) * size / sum(sizes)) < len(sizes), "all fill up together"
    assert [taken[number] for number in range(len(sizes))] == list(sizes)
    if len(set(sizes)) == 1 and len(sizes) == 2:
        assert all(sorted(order[at : at + 2]) == [0, 1] for at in range(0, len(order), 2))


def test_nothing_is_taken_from_a_closed_room(backing: Backing) -> None:
    rooms = [CellRoom(backing, [(0, 50)], is_closed=True), CellRoom(backing, [(0, 1)])]
    turns = Turns(rooms)
    rooms[1].add_claimed(rooms[1].to_claim(1))
    assert [rooms[number].left for number in (0, 1)] == [0, 1]
    assert turns.next() == 1
    rooms[1].take()
    assert turns.next() is None
