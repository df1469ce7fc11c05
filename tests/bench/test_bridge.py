"""How long units that share no page take between two wide ones, with and without handing out.

python -m pytest -m bench -s tests/bench/test_bridge.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import pytest

from mirrortool.replay.counter import Counter
from mirrortool.replay.inflight import InFlight
from mirrortool.replay.task import Task
from mirrortool.replay.taskgroup import TaskGroup
from mirrortool.replay.threads import Gate
from mirrortool.replay.writeunit import Footprint, WriteUnit

SECONDS = 0.01
TASKS = 8
RUNS = 9
PAGES = [(0, 1), (40, 41), (0, 41), *((first, first + 1) for first in range(1, 21, 2)), (50, 51), (0, 60)]
"""Two units; one that waits for both; ten that join its mini queue; one elsewhere; and one over everything."""

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]


class KeepsAll(TaskGroup):
    """As FIG. 11 has it: a task that is waited for does what is on its mini queue one unit after another."""

    def _hand_out(self, me: Task, units: list[WriteUnit], _gates: list[Gate]) -> None:
        assert isinstance(me.row.counter, Counter)
        me.work = units


def milliseconds(kind: type[TaskGroup], units: Sequence[WriteUnit]) -> float:
    in_flight = InFlight(1 << 30)
    with kind(0, lambda _: time.sleep(SECONDS), in_flight, tasks=TASKS) as group:
        started = time.perf_counter()
        group.submit(units)
        in_flight.wait_drained()
        return 1000 * (time.perf_counter() - started)


def test_ten_units_between_two_operations_on_the_whole_range() -> None:
    found: dict[type[TaskGroup], list[float]] = {TaskGroup: [], KeepsAll: []}
    for _ in range(RUNS):
        for kind, times in found.items():
            times.append(milliseconds(kind, [WriteUnit(n, Footprint(*pages)) for n, pages in enumerate(PAGES)]))
    ours, text = (statistics.median(found[kind]) for kind in (TaskGroup, KeepsAll))
    least = 1000 * SECONDS * 5  # two units, the one that waits, ten by seven idle tasks, and the last
    print(f"\nten units of {1000 * SECONDS:.0f} ms between two wide ones, {TASKS} tasks: {ours:.0f} ms")
    print(f"    one after another {text:.0f} ms, {text / ours:.1f} x; {least:.0f} ms is the least")
    assert ours < text
