"""The groups of a replay, their credits, and the store that their tasks write.

One path, also with one group and one task: every write of the store goes through a task. RESIZE and large ZEROs run in
the receiver's thread, between two drains, so that nothing runs beside them.

Owned by one thread, the receiver, but for `statistics` and `tables`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from mirrortool.errors import UsageError
from mirrortool.memory import keep_freed_memory
from mirrortool.operation import Kind
from mirrortool.replay.barrier import InFlight, InFlightStatistics
from mirrortool.replay.coalesce import Inline, Stretch, to_single_units, to_units
from mirrortool.replay.group import GroupStatistics, Observer, TaskGroup
from mirrortool.replay.ranges import RANGES, divide
from mirrortool.replay.table import RowSnapshot
from mirrortool.replay.unit import Unit
from mirrortool.store.base import PageWriter

GROUPS_MAX = 256
TASKS_MAX = 1024
THREADS_MAX = 4096
IN_FLIGHT_BYTES = 48 << 20
BATCH_UNIT_PAGES = 512
_SMALL_RUN_BYTES = 32 << 10
_SWITCH_INTERVAL = 0.0005


@dataclass(frozen=True, slots=True)
class Plan:
    """How a replay is divided among threads.

    Attributes:
        ranges: one of ranges.RANGES.
        groups, tasks: task groups, and tasks in each.
        unit: "batch" for hundreds of pages, "op" for the patent's single operations.
        in_flight_bytes: what may be delegated and not yet written.
    """

    ranges: str = "auto"
    groups: int = 2
    tasks: int = 1
    unit: str = "batch"
    in_flight_bytes: int = IN_FLIGHT_BYTES

    def check(self) -> None:
        """Raise UsageError if it cannot be carried out."""
        if self.ranges not in RANGES or self.unit not in ("batch", "op"):
            raise UsageError(f"no such ranges or unit: {self.ranges}, {self.unit}")
        if not (1 <= self.groups <= GROUPS_MAX and 1 <= self.tasks <= TASKS_MAX):
            raise UsageError(f"groups are 1 to {GROUPS_MAX}, tasks 1 to {TASKS_MAX}")
        if self.groups * self.tasks > THREADS_MAX:
            raise UsageError(f"{self.groups} groups of {self.tasks} tasks are more than {THREADS_MAX} threads")


class ReplayEngine:
    """Applies pieces of a window in parallel; `with` starts its threads, and drains and joins them."""

    def __init__(self, store: PageWriter, plan: Plan, *, on_applied: Observer | None = None) -> None:
        plan.check()
        self._store = store
        self._plan = plan
        self._page_size = store.volumes.page_size
        self._in_flight = InFlight(plan.in_flight_bytes)
        self._ranges = divide(plan.ranges, plan.groups, store.volumes)
        self._groups = [
            TaskGroup(number, self._apply, self._in_flight, tasks=plan.tasks, on_applied=on_applied)
            for number in range(plan.groups)
        ]
        self._sequence = 0
        self._running = ExitStack()

    def __enter__(self) -> ReplayEngine:
        keep_freed_memory()
        self._switch_interval = sys.getswitchinterval()
        # A task that comes back from the kernel waits this long for the interpreter if the receiver computes.
        sys.setswitchinterval(_SWITCH_INTERVAL)
        for group in self._groups:
            self._running.enter_context(group)
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.close()
        sys.setswitchinterval(self._switch_interval)

    def delegate(self, stretch: Stretch, lsn: int) -> None:
        """Hand out writes to the groups (step 830).

        Many small ones are waited for: they would contend with the receiver for the interpreter at every system call,
        and two threads that take turns at it are slower than one.

        Raises:
            MirrortoolError: a task failed, on these or on earlier writes.
        """
        shares: list[list[Unit]] = [[] for _ in self._groups]
        runs = payload_bytes = 0
        for number, unit in self._units_of(stretch):
            unit.sequence, unit.lsn = self._sequence, lsn
            self._sequence += 1
            shares[number].append(unit)
            runs += len(unit.runs)
            payload_bytes += unit.payload_bytes
        for group, units in zip(self._groups, shares, strict=True):
            if units:
                group.submit(units)
        if payload_bytes < runs * _SMALL_RUN_BYTES:
            self.wait_drained()

    def _units_of(self, stretch: Stretch) -> Iterator[tuple[int, Unit]]:
        if self._plan.unit == "op":
            return to_single_units(stretch.pieces, self._ranges, self._page_size)
        return to_units(stretch.settled(self._page_size), self._ranges, self._page_size, BATCH_UNIT_PAGES)

    def run_inline(self, operation: Inline) -> None:
        """Carry out a RESIZE or a large ZERO with nothing beside it; everything is drained and settled."""
        self.wait_drained()
        if operation.kind == Kind.RESIZE:
            volume = self._store.volumes.at_base(operation.page)
            assert volume is not None, "checked where the operation was decoded"
            self._store.resize(volume.name, operation.count)
            self._ranges = divide(self._plan.ranges, self._plan.groups, self._store.volumes)
        else:
            self._store.zero(operation.page, operation.count)

    def wait_drained(self) -> None:
        """Block until every piece that was handed out is written. Raises what a task failed with."""
        self._in_flight.wait_drained()

    def statistics(self) -> tuple[tuple[GroupStatistics, ...], InFlightStatistics]:
        """How the groups do now; from any thread."""
        return tuple(group.statistics() for group in self._groups), self._in_flight.statistics()

    def tables(self) -> tuple[tuple[RowSnapshot, ...], ...]:
        """Each group's active task table now (FIG. 10); from any thread."""
        return tuple(group.table() for group in self._groups)

    def _apply(self, unit: Unit) -> None:
        for page, count in unit.zeros:
            self._store.zero(page, count)
        if unit.runs:
            self._store.write(unit.runs)
