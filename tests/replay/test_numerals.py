"""A NumberedGroup says what its tasks do by the numerals of FIG. 11, and does what a TaskGroup does."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable

import pytest

from mirrortool.replay.inflight import InFlight
from mirrortool.replay.numerals import NumberedGroup, name, pages_of
from mirrortool.replay.stepwise import SteppedThreads
from mirrortool.replay.taskgroup import Apply, GroupStatistics, TaskGroup
from mirrortool.replay.tasktable import RowSnapshot
from mirrortool.replay.threads import Gate
from mirrortool.replay.writeunit import UNIT_COST_BYTES, Footprint, PageSet, WriteUnit
from tests.fakes.figure11 import NUMERALS, numerals_in_code, wrong_steps

SEEDS = range(60)
TASKS = 5
UNITS = 14
PAGES = 12
LEFT_OUT = NUMERALS - numerals_in_code()

Make = Callable[[Apply, InFlight, SteppedThreads], TaskGroup]


def numbered(apply: Apply, in_flight: InFlight, threads: SteppedThreads) -> NumberedGroup:
    return NumberedGroup(apply, in_flight, tasks=TASKS, threads=threads)


def plain(apply: Apply, in_flight: InFlight, threads: SteppedThreads) -> TaskGroup:
    return TaskGroup(0, apply, in_flight, tasks=TASKS, seam=threads)


class Play:
    """Units arrive and are let go in an order drawn from a seed; after each, every task has stopped."""

    def __init__(self, seed: int, make: Make = numbered) -> None:
        self._draw = random.Random(seed)
        self._threads = SteppedThreads()
        self.held: dict[int, Gate] = {}
        self.begun: list[int] = []
        self.tables: list[tuple[RowSnapshot, ...]] = []
        self.group = make(self._hold, InFlight(UNITS * UNIT_COST_BYTES, self._threads), self._threads)
        self._units = [self._unit(sequence) for sequence in range(UNITS)]
        self.group.start()
        self._threads.run()

    def _unit(self, sequence: int) -> WriteUnit:
        first = self._draw.randrange(PAGES)
        return WriteUnit(sequence, Footprint(first, min(PAGES, first + self._draw.choice((1, 1, 2, 4, PAGES)))))

    def _hold(self, unit: WriteUnit) -> None:
        gate = self.held[unit.sequence] = self._threads.gate()
        self.begun.append(unit.sequence)
        gate.wait()

    def run(self) -> GroupStatistics:
        """To the end; what the group counted."""
        while self._units or self.held:
            if self._units and (not self.held or self._draw.random() < 0.6):
                count = self._draw.choice((1, 1, 2, 4))
                arriving, self._units = self._units[:count], self._units[count:]
                self.group.submit(arriving)
            else:
                self.held.pop(self._draw.choice(sorted(self.held))).open()
            self._threads.run()
            self.tables.append(self.group.table())
        statistics = self.group.statistics()
        self.group.close()
        return statistics


def by_task(group: NumberedGroup) -> dict[int, list[int]]:
    """All that was passed."""
    passed = defaultdict(list)
    for each in group.pop_passages():
        passed[each.task] += each.numerals
    return passed


@pytest.mark.parametrize("seed", SEEDS)
def test_tasks_follow_the_figure(seed: int) -> None:
    play = Play(seed)
    play.run()
    assert isinstance(play.group, NumberedGroup)
    passed = by_task(play.group)
    assert set(passed) == set(range(TASKS))
    for task, numerals in passed.items():
        assert wrong_steps(numerals, LEFT_OUT) == [], f"task {task}"
        assert numerals[-1] == 1138, f"task {task} is parked at last"


@pytest.mark.parametrize("seed", SEEDS)
def test_watching_changes_nothing(seed: int) -> None:
    watched, unwatched = Play(seed), Play(seed, plain)
    assert watched.run() == unwatched.run()
    assert (watched.begun, watched.tables) == (unwatched.begun, unwatched.tables)


def test_numerals_agree_with_the_statistics() -> None:
    """Each way is one numeral: 1178, 1150 and 1174. A unit sent by a superseded task does not go through (A)."""
    for seed in SEEDS:
        play = Play(seed)
        statistics = play.run()
        assert isinstance(play.group, NumberedGroup)
        passed = [numeral for numerals in by_task(play.group).values() for numeral in numerals]
        ways = [passed.count(numeral) for numeral in (1178, 1150, 1174)]
        assert ways == [statistics.direct, statistics.delegated, statistics.waited]
        assert sum(passed.count(numeral) for numeral in (1120, 1184)) == UNITS


def test_the_random_histories_have_what_the_figure_does_not() -> None:
    """Give-back and handing out are noted without a numeral."""
    words = []
    for seed in SEEDS:
        play = Play(seed)
        play.run()
        assert isinstance(play.group, NumberedGroup)
        words += [each.words for each in play.group.pop_passages() if not each.numerals]
    for part in ("back to the main queue", "to idle tasks", "its row shows"):
        assert any(part in each for each in words), part


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([(3, 1)], "page 3"),
        ([(0, 8)], "pages 0-7"),
        ([(0, 3), (6, 4)], "pages 0-2, 6-9"),
        ([(4, 1), (2, 1)], "pages 2, 4"),
    ],
)
def test_pages_in_words(runs: list[tuple[int, int]], words: str) -> None:
    assert pages_of(PageSet(Footprint(first, first + count) for first, count in runs)) == words


@pytest.mark.parametrize(("sequence", "letter"), [(0, "A"), (25, "Z"), (26, "26")])
def test_a_unit_has_a_letter(sequence: int, letter: str) -> None:
    assert name(sequence) == letter
