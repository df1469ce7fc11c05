"""A task group: a main queue, an active task table, and tasks that run the method of FIG. 11 in parallel.

Rule: units whose footprints share a page are applied in arrival order, and nothing else is ordered.
Rule: a unit is on the main queue, on one mini queue, or in the work of one task, until it is finished.

The method is FIG. 11 with seven changes, which mirrortool-method(7) argues for:
- One lock for the table, the main queue and all mini queues. The figure holds both of its locks wherever the order
  depends on it, and one lock cannot be taken in the wrong order.
- An idle task parks instead of blocking in the dequeue (1138) with the main queue locked.
- The mini queue is emptied at once, not unit by unit.
- It is split as it is emptied: the task keeps the units that overlap the first one, shows no more than those, and gives
  the others back to the front of the main queue. Otherwise one wide unit captures all that follow it, and the group
  runs on a single thread until the load ends.
- A task that is waited for may not give units back: they must be done before its waiter. It hands them to idle tasks,
  each a part that shares no page with the others, and these post to the same counter.
- A leader that meets a mini queue with MINI_UNITS_MAX units stops leading. That task wakes the next leader as it
  empties its mini queue.
- An error stops the applying, not the method, so that no task and no receiver waits for ever.

Bound: threads, `tasks`; queues, the bytes that InFlight admits for all groups of an engine together.
Not here: which group a unit belongs to (delegator.py), and when the store is made durable (checkpointer.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import TracebackType

from mirrortool import clock
from mirrortool.errors import ExhaustedError
from mirrortool.replay.inflight import InFlight
from mirrortool.replay.task import Task, Verdict
from mirrortool.replay.tasktable import ActiveTaskTable, Row, RowSnapshot
from mirrortool.replay.threads import THREADS, Gate, Handle, ThreadSeam
from mirrortool.replay.tracing import Tracer, UnitRun
from mirrortool.replay.writeunit import How, PageSet, WriteUnit

Apply = Callable[[WriteUnit], None]

MINI_UNITS_MAX = 32
"""A leader that finds a mini queue this long stops, and leaves the remainder on the main queue.

After a unit over the whole range everything would go to that task's mini queue and come back from there, which costs
more than the writing: the work of all give-backs grew with the square of the units in flight.
"""


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """A task group at one moment.

    Attributes:
        number: of the group.
        tasks: threads.
        active: rows in the table: tasks that apply, or wait to.
        parked: tasks that wait for the main queue.
        main_queue, mini_queues: units queued.
        units, payload_bytes: finished.
        direct: units that a task took from the main queue for itself (1178).
        delegated: units sent to another task's mini queue (1150).
        waited: units whose task had to wait for its counter first (1174).
        given_back: units put back on the main queue; each is counted again by the way it then goes.
    """

    number: int
    tasks: int
    active: int
    parked: int
    main_queue: int
    mini_queues: int
    units: int
    payload_bytes: int
    direct: int
    delegated: int
    waited: int
    given_back: int

    def with_earlier(self, earlier: GroupStatistics) -> GroupStatistics:
        """The same moment, with what another group had done before counted too."""
        return replace(
            self,
            units=self.units + earlier.units,
            payload_bytes=self.payload_bytes + earlier.payload_bytes,
            direct=self.direct + earlier.direct,
            delegated=self.delegated + earlier.delegated,
            waited=self.waited + earlier.waited,
            given_back=self.given_back + earlier.given_back,
        )


class TaskGroup:
    """Applies units in parallel, in order where they overlap (124, 930).

    `with` starts its threads, and drains and joins them.
    """

    mini_units_max = MINI_UNITS_MAX

    def __init__(
        self,
        number: int,
        apply: Apply,
        in_flight: InFlight,
        *,
        tasks: int,
        seam: ThreadSeam = THREADS,
        tracer: Tracer | None = None,
    ) -> None:
        """A group whose tasks call `apply` for each unit; in parallel, but never for two that overlap."""
        assert tasks >= 1
        self.number = number
        self._apply = apply
        self._in_flight = in_flight
        self._seam = seam
        self._tracer = tracer
        self._now_ns = _now_ns if tracer else _no_time
        # _lock protects everything below, and what hangs on the tasks. No other lock is acquired while it is
        # held, nothing is applied, and no gate is opened: the thread that is woken would wait for this lock.
        self._lock = seam.lock()
        # The main queue (950). In arrival order; units given back go to its front. Bound: InFlight. Drained by close.
        self._main: deque[WriteUnit] = deque()
        # Parked tasks, the latest last: it is woken first, as its caches are warm. Whatever pops one opens its gate.
        self._idle: list[Task] = []
        self._table = ActiveTaskTable()
        self._tasks = [Task(each, seam.gate()) for each in range(tasks)]
        self._closed = False
        self._crashed = False
        # Owned by the thread that starts and closes the group.
        self._threads: list[Handle] = []

    def __enter__(self) -> TaskGroup:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the tasks, each in its thread.

        Raises:
            ExhaustedError: the system has no more threads; those started have ended again.
        """
        try:
            for task in self._tasks:
                name = f"mirrortool-{self.number}.{task.number}"
                self._threads.append(self._seam.spawn(name, lambda task=task: self._run(task)))  # type: ignore[misc]
        except RuntimeError as error:
            self.close()
            raise ExhaustedError("cannot start a thread", remedy="use fewer groups or tasks") from error

    def submit(self, units: Sequence[WriteUnit]) -> None:
        """Put units on the main queue, in arrival order, and wait for credit as often as needed. The receiver only.

        Raises:
            Cancelled: the receiver was told to stop; some of the first units may be on the queue.
            BaseException: the first error of a task; likewise.
        """
        start = 0
        while start < len(units):
            end = self._in_flight.admit(units, start)
            self._enqueue(islice(units, start, end))
            start = end

    def close(self) -> None:
        """Have the tasks finish what is queued, and end. Any number of times, by the thread that started them."""
        with self._lock:
            self._closed = True
            parked, self._idle = self._idle, []
            crashed = self._crashed
        for task in parked:
            task.gate.open()
        if not crashed:
            for thread in self._threads:
                thread.join()

    def statistics(self) -> GroupStatistics:
        """How the group does now; from any thread."""
        with self._lock:
            tasks = self._tasks
            return GroupStatistics(
                number=self.number,
                tasks=len(tasks),
                active=len(self._table),
                parked=len(self._idle),
                main_queue=len(self._main),
                mini_queues=sum(len(each.mini) for each in tasks),
                units=sum(each.units for each in tasks),
                payload_bytes=sum(each.payload_bytes for each in tasks),
                direct=sum(each.direct for each in tasks),
                delegated=sum(each.delegated for each in tasks),
                waited=sum(each.waited for each in tasks),
                given_back=sum(each.given_back for each in tasks),
            )

    def table(self) -> tuple[RowSnapshot, ...]:
        """The active task table now (FIG. 10); from any thread."""
        with self._lock:
            return self._table.snapshot(self._tasks)

    # A task's thread, outside the lock.

    def _run(self, me: Task) -> None:
        try:
            while (verdict := self._step(me)) is not Verdict.EXIT:  # 1122, 1186
                if verdict is not Verdict.RUN:
                    me.gate.wait()  # 1174, or parked
                if verdict is not Verdict.PARK:
                    self._apply_work(me)
        except BaseException as error:  # a bug, or no memory for the queues: the receiver must not wait for us
            with self._lock:
                self._crashed = True  # other tasks may wait for this one for ever, so `close` must not wait for them
            self._in_flight.fail(None, error)

    def _apply_work(self, me: Task) -> None:
        for unit in me.work:  # 1120, 1184
            if self._in_flight.failure is None:
                self._apply_one(me, unit)
            self._in_flight.finished(unit)

    def _apply_one(self, me: Task, unit: WriteUnit) -> None:
        try:
            if self._tracer is None:
                self._apply(unit)
            else:
                self._apply_traced(me, unit, self._tracer)
        except BaseException as error:  # whatever it is, the task continues, so that its successors are not stuck
            self._in_flight.fail(unit.sequence, error)

    def _apply_traced(self, me: Task, unit: WriteUnit, tracer: Tracer) -> None:
        start_ns, failed = self._now_ns(), True
        try:
            self._apply(unit)
            failed = False
        finally:
            tracer(self._run_of(me, unit, start_ns, failed))

    def _run_of(self, me: Task, unit: WriteUnit, start_ns: int, failed: bool) -> UnitRun:
        is_sent, has_waited = unit.how is How.MINI_QUEUE, unit.how is How.COUNTER_WAIT
        return UnitRun(
            sequence=unit.sequence,
            lsn=unit.lsn,
            group=self.number,
            task=me.number,
            footprint=unit.footprint.runs(),
            payload_bytes=unit.payload_bytes,
            start_ns=start_ns,
            end_ns=self._now_ns(),
            how=unit.how,
            given_back=unit.given_back,
            sent_by=unit.sent_by if is_sent else None,
            sent_ns=unit.sent_ns if is_sent else None,
            handed_out=unit.is_handed_out,
            wait_ns=me.wait_ns if has_waited else None,
            posts=tuple(me.counter.posts) if has_waited else (),
            failed=failed,
        )

    # The critical sections.

    def _enqueue(self, units: islice[WriteUnit]) -> None:
        gates: list[Gate] = []
        with self._lock:
            assert not self._closed
            self._main.extend(units)
            self._wake_one(gates)
        for gate in gates:
            gate.open()

    def _step(self, me: Task) -> Verdict:
        """FIG. 11 from TOP until it has something to apply (1120, 1184), to wait for (1174), or nothing."""
        gates: list[Gate] = []
        with self._lock:  # 1112
            self._count_finished(me)
            if me.mini:  # 1114, 1116; nothing is sent without the lock, so that this look is enough
                self._pop_mini(me, gates)
                verdict = Verdict.RUN
            else:  # 1124
                self._leave_table(me, gates)
                verdict = self._lead(me, gates)
        # The lock is dropped: 1118, 1170, 1172, 1180, 1182.
        for gate in gates:
            gate.open()
        return verdict

    # Inside the lock. Gates to open go to a list, for after it.

    def _pop_mini(self, me: Task, gates: list[Gate]) -> None:
        """Pop all that was sent to me, and keep what only I can do in order."""
        sent = list(me.mini)
        me.mini.clear()
        if me.row.range:
            self._split(me, sent)
        else:
            self._hand_out(me, sent, gates)
        if self._main:
            self._wake_one(gates)  # what was given back, or what did not fit into my mini queue

    def _split(self, me: Task, units: list[WriteUnit]) -> None:
        """Keep the first unit and what overlaps it, directly or not; but nothing that a unit given back precedes."""
        keep, back = [units[0]], []
        kept, given = PageSet([units[0].footprint]), PageSet()
        for unit in islice(units, 1, None):
            footprint = unit.footprint
            if kept.intersects(footprint) and not given.intersects(footprint):
                keep.append(unit)
                kept.add(footprint)
            else:
                back.append(unit)
                given.add(footprint)
        me.work, me.row.range = keep, kept
        self._give_back(me, back)

    def _hand_out(self, me: Task, units: list[WriteUnit], gates: list[Gate]) -> None:
        """Superseded: all of it must be done before what my waiter has. Share it with idle tasks.

        Each gets a part that has no page in common with the others, and my waiter waits for that task, too. Parts for
        which there is no idle task stay on my mini queue, so that I do not post before they are done.
        """
        counter = me.row.counter
        assert counter is not None, "a range is cleared after the counter pointer is set (1162, 1164)"
        me.work, *others = parts_without_overlap(units)
        for part in others:
            if self._idle:
                helper = self._idle.pop()
                for unit in part:
                    self._send(me, unit, helper)
                    unit.is_handed_out = True
                self._table.enter_cleared(helper.row, counter)
                gates.append(helper.gate)
            else:
                me.mini.extend(part)

    def _give_back(self, me: Task, back: list[WriteUnit]) -> None:
        """To the front of the main queue, in order: whatever it holds that overlaps them arrived later."""
        self._main.extendleft(reversed(back))
        for unit in back:
            unit.given_back += 1
        me.given_back += len(back)

    def _leave_table(self, me: Task, gates: list[Gate]) -> None:
        row = me.row
        if row.counter is not None:  # 1126
            if row.counter.post(me.number, self._now_ns()):  # 1128
                gates.append(row.counter.gate)
            row.counter = None  # 1130
        self._table.leave(row)  # 1132

    def _lead(self, me: Task, gates: list[Gate]) -> Verdict:
        """From (A) on: hand out the units on the main queue until one is for me."""
        while self._main:
            unit = self._main.popleft()  # 1138
            hits = self._table.matches(unit.footprint)  # 1142, 1144
            if len(hits) == 1:  # 1146
                if len(self._tasks[hits[0].task].mini) >= self.mini_units_max:
                    self._main.appendleft(unit)
                    return self._park(me)  # that task wakes another as it empties its mini queue
                self._delegate(me, unit, hits[0])
                continue  # 1154
            me.work = [unit]
            verdict = self._wait_for(me, unit, hits) if hits else self._claim_range(me, unit)  # 1160, 1176
            if self._main:
                self._wake_one(gates)  # another task must lead in my place
            return verdict
        if self._closed:
            self._wake_one(gates)  # a task may have parked beside a full mini queue after the closing
            return Verdict.EXIT
        return self._park(me)

    def _park(self, me: Task) -> Verdict:
        self._idle.append(me)
        return Verdict.PARK

    def _delegate(self, me: Task, unit: WriteUnit, hit: Row) -> None:
        """Send it to the one task that works on its pages, even if that task waits itself."""
        task = self._tasks[hit.task]
        hit.range.add(unit.footprint)  # 1148
        self._send(me, unit, task)  # 1150
        task.delegated += 1

    def _send(self, me: Task, unit: WriteUnit, task: Task) -> None:
        task.mini.append(unit)
        unit.how, unit.sent_by, unit.sent_ns = How.MINI_QUEUE, me.number, self._now_ns()

    def _wait_for(self, me: Task, unit: WriteUnit, hits: list[Row]) -> Verdict:
        """Stand for all tasks that it overlaps, and wait until they are done."""
        for hit in hits:
            assert hit.counter is None, "a cleared range matches nothing, so no task is superseded twice"
            hit.counter = me.counter  # 1162
            me.row.range.update(hit.range)  # 1166
            hit.range.clear()  # 1164: the range only; the row goes at 1132, after the pointer (1130)
        self._table.enter(me.row, unit.footprint)  # 1166
        me.counter.establish(len(hits))  # 1168
        unit.how, me.wait_ns = How.COUNTER_WAIT, self._now_ns()
        me.waited += 1
        return Verdict.WAIT

    def _claim_range(self, me: Task, unit: WriteUnit) -> Verdict:
        self._table.enter(me.row, unit.footprint)  # 1178
        unit.how = How.DIRECT
        me.direct += 1
        return Verdict.RUN

    def _count_finished(self, me: Task) -> None:
        me.units += len(me.work)
        for unit in me.work:
            me.payload_bytes += unit.payload_bytes
        me.work = []

    def _wake_one(self, gates: list[Gate]) -> None:
        """At most one: it wakes the next if it leaves something on the main queue, and wake-ups cost more than work."""
        if self._idle:
            gates.append(self._idle.pop().gate)


def parts_without_overlap(units: Iterable[WriteUnit]) -> list[list[WriteUnit]]:
    """The units in as many parts as possible of which no two share a page; each in order, that of the first unit first.

    Costs the square of their number, in the worst case.
    """
    parts: list[tuple[PageSet, list[WriteUnit]]] = []
    for unit in units:
        met = [part for part in parts if part[0].intersects(unit.footprint)]
        if not met:
            parts.append((PageSet([unit.footprint]), [unit]))
            continue
        (pages, members), *merged = met
        for other_pages, others in merged:
            pages.update(other_pages)
            members += others
        pages.add(unit.footprint)
        members.append(unit)
        parts = [part for part in parts if part not in merged]
    for _, members in parts:
        members.sort(key=_sequence)
    return [members for _, members in parts]


def _sequence(unit: WriteUnit) -> int:
    return unit.sequence


def _now_ns() -> int:
    return clock.monotonic_ns()


def _no_time() -> int:
    """Where nobody asks."""
    return 0
