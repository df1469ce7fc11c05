"""A crash at any call of a store over backings: nothing differs but what redo goes over, and redo puts that right.

Also where a cell that may hold anything does hold something, and where the power fails in the recovery.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.store import cellroom
from mirrortool.store.backing import Backing
from mirrortool.store.backingset import BackingSet
from tests.fakes.backings import EXTENT, make_backings
from tests.fakes.cuts import EACH_CALL
from tests.fakes.disk import Disk
from tests.fakes.volumes import fast_directory
from tests.store.spanneddriver import PAGE, Driver, Step, run_up_to

EXTENT_PAGES = EXTENT // PAGE
SIZES = {"a": 3 * EXTENT + 100, "b": 2 * EXTENT}
LOSE: dict[str, Callable[[Disk], object] | None] = {
    "nothing": None,  # as with kill -9
    "all": Disk.lose_all,
    "all but the newest": Disk.lose_all_but_newest,
    **{f"some, {seed}": lambda disk, seed=seed: disk.cut_power(random.Random(seed)) for seed in range(3)},
}
FILLED: list[Step] = [("write", at, EXTENT_PAGES) for at in range(0, 6 * EXTENT_PAGES, 2 * EXTENT_PAGES)]
CHECKPOINT: list[Step] = [("begin", 0, 0), ("end", 0, 0)]


def whole(volume: int, extent: int) -> Step:
    return ("zero", 2 * extent * EXTENT_PAGES + volume, EXTENT_PAGES)


def page(volume: int, extent: int, number: int = 1) -> Step:
    return ("write", 2 * (extent * EXTENT_PAGES + number) + volume, 1)


HISTORIES: dict[str, list[Step]] = {
    "a cell is given to another extent": [
        *FILLED, *CHECKPOINT, whole(0, 0), whole(0, 1), *CHECKPOINT, page(1, 0), page(1, 1), ("sync", 0, 0),
        page(0, 0, 2), *CHECKPOINT,
    ],
    "an extent gets its cell back": [
        *FILLED, *CHECKPOINT, whole(0, 0), page(0, 0), ("sync", 0, 0), whole(0, 1), ("sync", 0, 0), page(0, 1),
        *CHECKPOINT,
    ],
    "an extent gets another cell": [
        *FILLED, *CHECKPOINT, whole(0, 0), whole(0, 2), ("begin", 0, 0), page(0, 0), ("sync", 0, 0), page(0, 2, 2),
        ("end", 0, 0), page(1, 0), ("sync", 0, 0), *CHECKPOINT,
    ],
    "a ZERO comes in parts": [
        *FILLED, *CHECKPOINT, ("zero", 0, 2), ("zero", 4, 2), page(0, 0), ("zero", 8, 2), page(0, 1), ("zero", 12, 2),
        *CHECKPOINT, page(1, 0), *CHECKPOINT,
    ],
    "a volume shrinks and grows": [
        *FILLED, *CHECKPOINT, ("resize", 0, 3), ("sync", 0, 0), ("resize", 0, 20), page(0, 1), *CHECKPOINT,
        ("resize", 0, 40), page(0, 4, 3), ("sync", 0, 0), ("resize", 0, 5), *CHECKPOINT, page(1, 1), *CHECKPOINT,
    ],
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _small_and_one_by_one() -> Iterator[None]:
    """Of these small backings only a part is claimed at once; and calls have the same order in each run."""

    def on_each(backings: BackingSet, function: Callable[[Backing], None]) -> None:
        for backing in backings:
            function(backing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cellroom, "CLAIM_BYTES", 2 * EXTENT)
        patch.setattr(BackingSet, "_on_each", on_each)
        yield


AFTERWARDS: list[Step] = [whole(0, 0), whole(0, 2), ("sync", 0, 0), *CHECKPOINT, page(1, 0), page(0, 2), *CHECKPOINT]


def check_runs(cells: Sequence[int], runs: Sequence[tuple[Sequence[Step], int, str]], spoils: bool) -> int:
    """Each run ends before its call, or, with 0, when all its steps are done, and loses what it says.

    Returns the calls of the first.
    """
    with fast_directory() as path:
        driver = Driver(make_backings(path, *cells), dict(SIZES))
        calls = [run_up_to(driver, steps, cut, LOSE[how], spoils) for steps, cut, how in runs]
        driver.check_at_rest()
    return calls[0]


@EACH_CALL
def test_a_crash_at_any_call_changes_nothing_that_redo_does_not_go_over(step: int) -> None:
    """In some calls on two backings alone."""
    for steps, how, cells in itertools.product(HISTORIES.values(), LOSE, [(4, 3), (7,)] if step == 1 else [(4, 3)]):
        for cut in itertools.count(1, step):
            calls = check_runs(cells, [(steps, cut, how), (AFTERWARDS, 0, "all")], spoils=cells != (7,))
            if calls < cut:
                assert calls > 20
                break


@EACH_CALL
def test_what_a_killed_process_left_is_durable_before_anything_is_built_on_it(step: int) -> None:
    """The cache has what it wrote; then the power fails soon after the next has begun."""
    for steps, how in itertools.product(HISTORIES.values(), ["all", "some, 0", "some, 1"]):
        for cut, then in itertools.product(range(20, 110, 6 * step), range(1, 30, step)):
            check_runs((4, 3), [(steps, cut, "nothing"), (AFTERWARDS, then, how), (AFTERWARDS, 0, "all")], True)


def random_steps(seed: int) -> list[Step]:
    chance = random.Random(seed)

    def step() -> Step:
        kind = chance.choices(["write", "whole", "zero", "begin", "end", "sync", "resize"], [8, 6, 2, 3, 5, 2, 1])[0]
        if kind == "whole":
            return whole(chance.randrange(2), chance.randrange(4))
        if kind == "resize":
            return (kind, chance.randrange(2), chance.randrange(40))
        if kind in ("write", "zero"):
            return (kind, chance.randrange(32), chance.randrange(1, 7))
        return (kind, 0, 0)

    return [step() for _ in range(40)]


def check_random(seed: int, step: int) -> None:
    chance = random.Random(seed)
    cells = [chance.choice([2, 3, 5]) for _ in range(chance.choice([1, 2, 5]))]
    how, again = chance.choice(list(LOSE)), chance.choice(list(LOSE))
    for cut in itertools.count(1 + chance.randrange(step), step):
        first = random_steps(seed), cut, how
        if (
            check_runs(
                cells,
                [first, (random_steps(seed + 1), chance.randrange(40), again), (random_steps(seed + 2), 0, "all")],
                chance.random() < 0.5,
            )
            < cut
        ):
            break


@settings(max_examples=20)
@given(st.integers(0, 1 << 32))
def test_a_crash_changes_nothing_in_histories_at_random(seed: int) -> None:
    check_random(seed, 17)


@pytest.mark.soak
def test_a_crash_at_any_call_of_many_histories_changes_nothing() -> None:
    for seed in range(2_000):
        check_random(seed, 1)
