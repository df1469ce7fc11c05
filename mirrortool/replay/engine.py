"""The replay engine: starts and stops the task groups, and gives them their credits and the store to write.

One path, also with one group and one task: every write of the store goes through a task. RESIZE and large ZEROs run in
the receiver's thread, between two drains, so that nothing runs beside them.

Owned by one thread, the receiver, but for `statistics` and `tables`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from mirrortool import clock
from mirrortool.errors import UsageError
from mirrortool.lsn import Lsn
from mirrortool.malloc import keep_freed_memory
from mirrortool.operation import Kind
from mirrortool.processsettings import taking_turns
from mirrortool.replay.coalesce import Inline, Stretch, to_single_units, to_units
from mirrortool.replay.inflight import InFlight, InFlightStatistics
from mirrortool.replay.ranges import RANGES, divide
from mirrortool.replay.taskgroup import GroupStatistics, TaskGroup
from mirrortool.replay.tasktable import RowSnapshot
from mirrortool.replay.tracing import Divided, Drained, Ended, InlineRun, Tracer
from mirrortool.replay.writeunit import WriteUnit
from mirrortool.store.interface import PageWriter
from mirrortool.wording import counted

GROUPS_MAX = 256
TASKS_MAX = 1024
THREADS_MAX = 4096
IN_FLIGHT_BYTES = 48 << 20
BATCH_UNIT_PAGES = 512
_SMALL_RUN_BYTES = 32 << 10
_SWITCH_SECONDS = 500e-6
_SLICE_UNITS = 64
_UNITS_A_TASK = 4
_FEW_THREADS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How a replay is divided among threads.

    Attributes:
        ranges: one of ranges.RANGES.
        groups, tasks: task groups, and tasks in each.
        unit: "batch" for hundreds of pages, "op" for the patent's single operations.
        in_flight_bytes: what may be delegated and not yet written.
        io: "buffered" through the page cache, "direct" bypassing it; for the owner of the store.
    """

    ranges: str = "auto"
    groups: int = 2
    tasks: int = 1
    unit: str = "batch"
    in_flight_bytes: int = IN_FLIGHT_BYTES
    io: str = "buffered"

    @property
    def threads(self) -> int:
        """Tasks of all groups."""
        return self.groups * self.tasks

    def check(self) -> None:
        """Raise UsageError if it cannot be carried out."""
        if self.ranges not in RANGES or self.unit not in ("batch", "op") or self.io not in ("buffered", "direct"):
            raise UsageError(f"no such ranges, unit or I/O: {self.ranges}, {self.unit}, {self.io}")
        if not (1 <= self.groups <= GROUPS_MAX and 1 <= self.tasks <= TASKS_MAX):
            raise UsageError(f"groups are 1 to {GROUPS_MAX}, tasks 1 to {TASKS_MAX}")
        if self.threads > THREADS_MAX:
            raise UsageError(
                f"{counted(self.groups, 'group')} of {counted(self.tasks, 'task')} are more than {THREADS_MAX} threads"
            )


@dataclass(frozen=True, slots=True)
class UnitTime:
    """What a unit took: seconds, those of them on a processor, write calls, and pages."""

    seconds: float
    processor_seconds: float
    calls: int
    pages: int


class ReplayEngine:
    """Applies pieces of a window in parallel, with a task group for each range (620).

    `with` starts its threads, and drains and joins them.
    """

    def __init__(
        self,
        store: PageWriter,
        plan: Plan,
        *,
        tracer: Tracer | None = None,
        timed: bool = False,
        is_held: Callable[[int], bool] | None = None,
    ) -> None:
        """An engine with this plan.

        Args:
            is_held: whether a page is written at all; by default all are.
            timed: whether `pop_times` is to tell what each unit took.
        """
        plan.check()
        self._store = store
        self._page_size = store.volumes.page_size
        self._is_held = is_held
        self._in_flight = InFlight(plan.in_flight_bytes)
        self._tracer = tracer
        self._sequence = 0  # of the next unit
        self._traced_drain = 0  # the sequence of the newest drain that is in the trace
        self._times_lock = threading.Lock()  # protects _times; held for one operation of the list
        self._times: list[UnitTime] = []
        # The groups, and what those before them had done. Replaced together, so that any thread sees a whole.
        self._groups_and_earlier: tuple[list[TaskGroup], list[GroupStatistics]] = [], []
        self._running = ExitStack()  # the groups' threads
        self._around = ExitStack()  # what is set while they run
        self._set_plan(plan, timed)

    def _set_plan(self, plan: Plan, timed: bool) -> None:
        self._plan = plan
        self._ranges = divide(plan.ranges, plan.groups, self._store.volumes)
        earlier = [*self._groups_and_earlier[1], *(group.statistics() for group in self._groups)]
        apply = self._apply_timed if timed else self._apply
        groups = [
            TaskGroup(number, apply, self._in_flight, tasks=plan.tasks, tracer=self._tracer)
            for number in range(plan.groups)
        ]
        self._groups_and_earlier = groups, earlier
        if self._tracer:
            self._tracer(Divided(clock.monotonic_ns(), plan.ranges, plan.groups, plan.tasks, plan.unit, plan.io))

    @property
    def _groups(self) -> list[TaskGroup]:
        return self._groups_and_earlier[0]

    def __enter__(self) -> ReplayEngine:
        keep_freed_memory()
        self._around.enter_context(taking_turns(_SWITCH_SECONDS))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        for group in self._groups:
            self._running.enter_context(group)

    def __exit__(self, *exc: object) -> None:
        with self._around:
            self._running.close()
        if self._tracer:
            self._tracer(Ended(self._sequence, clock.monotonic_ns()))

    def change(self, plan: Plan, *, timed: bool) -> None:
        """Continue with another plan, once everything handed out is written.

        Raises:
            ExhaustedError: the system does not have enough threads; no group runs, and another plan must be tried.
        """
        plan.check()
        self.wait_drained()
        self._running.close()
        self._set_plan(plan, timed)
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise

    def pop_times(self) -> tuple[UnitTime, ...]:
        """What the units took since the last call, if they are timed."""
        with self._times_lock:
            times, self._times = self._times, []
        return tuple(times)

    def delegate(self, stretch: Stretch, lsn: Lsn) -> None:
        """Hand out writes to the groups (step 830). `lsn` is the last of their window.

        Few tasks with many small writes are waited for: they would contend with the receiver for the interpreter at
        every system call, and two threads that alternate at it are slower than one. Many tasks are used because the
        store waits, and continue meanwhile.

        Raises:
            MirrortoolError: a task failed, on these or on earlier writes.
        """
        runs = payload_bytes = 0
        units = self._units_of(stretch)
        # In slices, so that the first tasks write while the units after them are still being made.
        while part := list(islice(units, _SLICE_UNITS)):
            shares: list[list[WriteUnit]] = [[] for _ in self._groups]
            for number, unit in part:
                if self._is_held and not self._is_held(unit.footprint.first):
                    continue
                unit.sequence, unit.lsn = self._sequence, unit.lsn or lsn
                self._sequence += 1
                shares[number].append(unit)
                runs += len(unit.runs)
                payload_bytes += unit.payload_bytes
            for group, share in zip(self._groups, shares, strict=True):
                if share:
                    group.submit(share)
        if payload_bytes < runs * _SMALL_RUN_BYTES and self._plan.threads <= _FEW_THREADS:
            self.wait_drained()

    def _units_of(self, stretch: Stretch) -> Iterator[tuple[int, WriteUnit]]:
        if self._plan.unit == "op":
            return to_single_units(stretch, self._ranges, self._page_size)
        pages = stretch.without_overlaps(self._page_size)
        share = sum(pages.counts) // (_UNITS_A_TASK * self._plan.threads)
        unit_pages = max(1, min(share, BATCH_UNIT_PAGES))
        return to_units(pages, self._ranges, self._page_size, unit_pages)

    def run_inline(self, operation: Inline) -> None:
        """Carry out a RESIZE or a large ZERO with nothing beside it; everything is drained, with its sums."""
        self.wait_drained()
        if self._tracer is None:
            self._do_inline(operation)
        else:
            self._do_inline_traced(operation, self._tracer)
        self._sequence += 1

    def _do_inline_traced(self, operation: Inline, tracer: Tracer) -> None:
        start_ns = clock.monotonic_ns()
        self._do_inline(operation)
        what = operation.kind, operation.page, operation.count
        tracer(InlineRun(self._sequence, operation.lsn, *what, start_ns, clock.monotonic_ns()))

    def _do_inline(self, operation: Inline) -> None:
        if operation.kind == Kind.RESIZE:
            volume = self._store.volumes.starting_at(operation.page)
            assert volume is not None, "checked where the operation was decoded"
            self._store.resize(volume.name, operation.count)
            self._ranges = divide(self._plan.ranges, self._plan.groups, self._store.volumes)
        else:
            self._store.zero(operation.page, operation.count)

    def wait_drained(self) -> None:
        """Block until every piece that was handed out is written. Raises what a task failed with."""
        self._in_flight.wait_drained()
        if self._tracer and self._traced_drain < self._sequence:
            self._traced_drain = self._sequence
            self._tracer(Drained(self._sequence, clock.monotonic_ns()))

    def statistics(self) -> tuple[tuple[GroupStatistics, ...], InFlightStatistics]:
        """How the groups do now; from any thread."""
        groups, earlier = self._groups_and_earlier
        now = [group.statistics() for group in groups]
        for each in earlier:  # of groups that have ended, counted under the number that they had
            number = each.number % len(now)
            now[number] = now[number].with_earlier(each)
        return tuple(now), self._in_flight.statistics()

    def tables(self) -> tuple[tuple[RowSnapshot, ...], ...]:
        """Each group's active task table now (FIG. 10); from any thread."""
        return tuple(group.table() for group in self._groups)

    def _apply_timed(self, unit: WriteUnit) -> None:
        started, on_processor = clock.monotonic(), clock.processor_seconds()
        self._apply(unit)
        on_processor = clock.processor_seconds() - on_processor
        took = clock.monotonic() - started
        time = UnitTime(took, on_processor, len(unit.runs) + len(unit.zeros), unit.footprint.page_count())
        with self._times_lock:
            self._times.append(time)

    def _apply(self, unit: WriteUnit) -> None:
        """Perform a unit (840)."""
        for page, count in unit.zeros:
            self._store.zero(page, count)
        if unit.runs:
            self._store.write(unit.runs)
