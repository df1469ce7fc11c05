"""What lies on a backing is moved to the others, and no crash loses it, or leaves it in two places."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from mirrortool.errors import InputOutputError, NoSpaceError
from mirrortool.files import File
from mirrortool.store import cellroom, draining
from mirrortool.store.backing import Backing
from mirrortool.store.backingset import BackingSet
from mirrortool.store.spanned import SpannedStore
from mirrortool.volume import place
from tests.fakes.backings import EXTENT, Backings, make_backings
from tests.fakes.cuts import EACH_CALL
from tests.fakes.disk import Disk, PowerCut, cut_at, faulty, no_fault
from tests.fakes.volumes import fast_directory, pattern

PAGE = 512
VOLUMES = place([("a", 20 * EXTENT)], PAGE)
WAYS: list[Callable[[Disk], object] | None] = [
    None,
    Disk.lose_all,
    Disk.lose_all_but_newest,
    *(lambda disk, seed=seed: disk.cut_power(random.Random(seed)) for seed in range(3)),
]


@pytest.fixture(autouse=True)
def _small_and_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few extents at a time; and calls have the same order in each run."""

    def on_each(backings: BackingSet, function: Callable[[Backing], None]) -> None:
        for backing in backings:
            function(backing)

    monkeypatch.setattr(cellroom, "CLAIM_BYTES", 2 * EXTENT)
    monkeypatch.setattr(draining, "BATCH_BYTES", 2 * EXTENT)
    monkeypatch.setattr(BackingSet, "_on_each", on_each)


@pytest.fixture
def directory() -> Iterator[str]:
    with fast_directory() as path:
        yield path


def fill(made: Backings, extents: int) -> bytes:
    """Write some extents, each but for its first page."""
    store = made.open(VOLUMES)
    for extent in range(extents):
        data = pattern(extent, EXTENT - PAGE)
        store.write([(4 * extent + 1, [data], len(data))])
    store.begin_checkpoint()
    store.sync()
    store.end_checkpoint()
    store.close()
    return content(made)


def content(made: Backings) -> bytes:
    store = made.open(VOLUMES, write=False)
    found = read(store)
    store.close()
    return found


def read(store: SpannedStore) -> bytes:
    found = memoryview(bytearray(20 * EXTENT))
    store.read_into(0, [found])
    return bytes(found)


def drain(made: Backings, number: int) -> int:
    store = made.open(VOLUMES, draining=[number])
    moving = store.draining(number)
    moving.run(lambda: False)
    assert moving.left == 0
    store.close()
    return moving.left


def used(made: Backings) -> list[int]:
    return [sum(address is not None for address in addresses) for addresses in made.used()]


def test_extents_are_moved_in_proportion_to_the_room_of_the_others(directory: str) -> None:
    made = make_backings(directory, 9, 18, 6)
    before = fill(made, 11)
    assert used(made) == [3, 6, 2]
    drain(made, 1)
    assert used(made) == [7, 0, 4]
    assert content(made) == before
    made.assert_free_is_zero()
    assert all(not any(data) for _, data in made.cells()[1])


def test_where_they_do_not_fit_nothing_is_moved(directory: str) -> None:
    made = make_backings(directory, 4, 9, 1)
    before = fill(made, 13)
    store = made.open(VOLUMES)
    with pytest.raises(NoSpaceError, match="more are needed") as full:
        store.draining(1)
    assert full.value.remedy == "mirrortool backing add M PATH:SIZE"
    store.close()
    assert content(made) == before


def test_it_can_be_interrupted_and_continued(directory: str) -> None:
    made = make_backings(directory, 9, 9)
    before = fill(made, 9)
    here = used(made)[0]
    store = made.open(VOLUMES)
    moving = store.draining(0)
    turns = iter([False, True])
    moving.run(lambda: next(turns))
    assert moving.left == here - 2
    store.close()
    assert used(made)[0] == here - 2
    assert content(made) == before
    drain(made, 0)
    assert used(made) == [0, 9]
    assert content(made) == before


def test_a_copy_that_the_device_has_lost_keeps_the_extent_where_it_was(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_backings(directory, 5, 5)
    before = fill(made, 5)
    store = made.open(VOLUMES)
    moving = store.draining(0)
    real = File.pwrite

    def lose(file: File, data: bytes, offset: int) -> None:
        is_copy = file.path == made.paths[1] and len(data) == EXTENT
        real(file, bytes(len(data)) if is_copy else data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(File, "pwrite", lose)
        with pytest.raises(InputOutputError, match="does not read back"):
            moving.run(lambda: False)
    store.close()
    assert content(made) == before
    drain(made, 0)
    assert content(made) == before


@EACH_CALL
def test_a_crash_at_any_call_loses_nothing_and_the_next_call_completes_it(step: int) -> None:
    for lose in WAYS:
        for cut in itertools.count(1, step):
            with fast_directory() as path:
                made = make_backings(path, 5, 3, 4)
                before = fill(made, 7)
                with faulty(cut_at(cut)) as system:
                    store = None
                    try:
                        store = made.open(VOLUMES, draining=[0])
                        store.draining(0).run(lambda: False)
                        store.close()
                        has_ended = True
                    except PowerCut:
                        has_ended = False
                    if lose:
                        lose(system.disk)
                    if store:
                        store._backings.close()
                made.spoil_claimed()
                assert content(made) == before
                with faulty(cut_at(1 + cut % 20)) as system:  # in the recovery, too
                    store = None
                    try:
                        store = made.open(VOLUMES, draining=[0])
                        store.draining(0).run(lambda: False)
                    except PowerCut:
                        pass
                    if lose:
                        lose(system.disk)
                    if store:
                        store._backings.close()
                made.spoil_claimed()
                assert content(made) == before
                with faulty(no_fault) as system:
                    drain(made, 0)
                    system.disk.lose_all()
                assert content(made) == before
                made.assert_free_is_zero()
                assert used(made)[0] == 0 and sum(used(made)) == 7
            if has_ended:
                assert cut > 30
                break
