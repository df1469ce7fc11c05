"""FIG. 11 to the letter, as a second opinion on mirrortool.replay.taskgroup.

Two locks, table and main queue; one unit at a time from a mini queue that has no lock of its own; a leader that blocks
in the dequeue with the main queue locked; ranges never shrink. Sets of pages are Python sets. Nothing is shared with
the production code but the unit and the seam.

Left open by the figure, and filled in here: a STOP message, put back by each task that reads it, ends the tasks.
Not here: errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from mirrortool.replay.inflight import InFlight
from mirrortool.replay.writeunit import WriteUnit
from tests.fakes.scheduler import Scheduler

Message = WriteUnit | None
STOP = None


class BlockingQueue:
    """The main queue: a receive blocks until there is a message. One task receives at a time."""

    def __init__(self, seam: Scheduler) -> None:
        self._seam = seam
        self._lock = seam.lock()
        self._messages: deque[Message] = deque()
        self._waiting = None

    def send(self, messages: Sequence[Message]) -> None:
        with self._lock:
            self._messages.extend(messages)
            gate, self._waiting = self._waiting, None
        if gate is not None:
            gate.open()

    def receive(self) -> Message:
        while True:
            with self._lock:
                if self._messages:
                    return self._messages.popleft()
                gate = self._waiting = self._seam.gate()
            gate.wait()


class Entry:
    """A row of FIG. 10, with the range as a set; the pointer is to the other task."""

    def __init__(self, pages: set[int]) -> None:
        self.pages = pages
        self.counter: LiteralTask | None = None


class LiteralTask:
    def __init__(self, number: int, seam: Scheduler) -> None:
        self.number = number
        self.mini: deque[WriteUnit] = deque()
        self.count = 0
        self.zero = seam.gate()


class LiteralGroup:
    """A task group with the interface of TaskGroup, as far as the tests use it."""

    def __init__(
        self, number: int, apply: Callable[[WriteUnit], None], in_flight: InFlight, *, tasks: int, seam: Scheduler
    ) -> None:
        self.number = number
        self._apply = apply
        self._in_flight = in_flight
        self._seam = seam
        self._main = BlockingQueue(seam)
        self._main_lock = seam.lock()
        self._table_lock = seam.lock()
        self._table: dict[LiteralTask, Entry] = {}
        self._tasks = [LiteralTask(each, seam) for each in range(tasks)]

    def __enter__(self) -> LiteralGroup:
        self._threads = [
            self._seam.spawn(f"task {task.number}", lambda task=task: self._run(task)) for task in self._tasks
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._main.send([STOP])
        for thread in self._threads:
            thread.join()

    def submit(self, units: Sequence[WriteUnit]) -> None:
        start = 0
        while start < len(units):
            end = self._in_flight.admit(units, start)
            self._main.send(units[start:end])
            start = end

    def _run(self, me: LiteralTask) -> None:
        while True:  # TOP
            unit = self._own(me)  # 1102-1104
            if unit is None:
                unit = self._leave(me)  # 1112-1134
            if unit is None:
                unit = self._lead(me)  # 1136-1182
            if unit is STOP:
                return
            self._apply(unit)  # 1106, 1120, 1184
            self._in_flight.finished(unit)

    def _own(self, me: LiteralTask) -> WriteUnit | None:
        self._seam.point()
        return me.mini.popleft() if me.mini else None

    def _leave(self, me: LiteralTask) -> WriteUnit | None:
        with self._table_lock:  # 1112
            unit = self._own(me)  # 1114
            if unit is None:  # 1124
                entry = self._table.get(me)
                if entry is not None and entry.counter is not None:  # 1126
                    self._send_to_counter(entry.counter)  # 1128
                    entry.counter = None  # 1130
                self._table.pop(me, None)  # 1132
        return unit

    def _send_to_counter(self, owner: LiteralTask) -> None:
        self._seam.point()
        owner.count -= 1
        if owner.count == 0:
            owner.zero.open()

    def _lead(self, me: LiteralTask) -> Message:
        waits = False
        with self._main_lock:  # 1136
            while True:  # (A)
                unit = self._main.receive()  # 1138
                if unit is STOP:
                    self._main.send([STOP])
                    return STOP
                with self._table_lock:  # 1140
                    pages = set(unit.footprint.each_page())
                    hits = [task for task, entry in self._table.items() if entry.pages & pages]  # 1142
                    self._seam.point()
                    if len(hits) == 1:  # 1146
                        self._table[hits[0]].pages |= pages  # 1148
                        self._seam.point()
                        hits[0].mini.append(unit)  # 1150
                        continue  # 1152, 1154
                    waits = bool(hits)
                    self._enter(me, pages, hits)
                break
        if waits:
            me.zero.wait()  # 1174
        return unit

    def _enter(self, me: LiteralTask, pages: set[int], hits: list[LiteralTask]) -> None:
        for hit in hits:
            entry = self._table[hit]
            entry.counter = me  # 1162
            pages |= entry.pages
            entry.pages = set()  # 1164
            self._seam.point()
        self._table[me] = Entry(pages)  # 1166, 1178
        me.count = len(hits)  # 1168
