"""Runs that give nothing but their trace: task groups under the scheduler with no other check, as lines of a file.

Time is a counter that ticks whenever it is looked at, so what came first has the lower number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress

import pytest

from mirrortool import clock
from mirrortool.replay.tracing import Divided, Drained, Ended, Started, TraceRecord, UnitRun
from mirrortool.trace.check import Checker
from mirrortool.trace.jsonlines import decode, encode
from mirrortool.trace.violation import Violation
from tests.fakes.scheduler import Scheduler
from tests.replay.harness import Bench, BoomError, Case


class _Unchecked:
    """A history that allows everything."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.finished: set[int] = set()

    def begin(self, _unit: object) -> None:
        """Nothing is checked."""

    end = check_serial = begin


class TracedBench(Bench):
    """A bench that checks nothing, and keeps the records that an engine would write."""

    def __init__(self, case: Case, scheduler: Scheduler, group: type) -> None:
        self.records: list[TraceRecord] = []
        super().__init__(case, scheduler, group, invariants=False)
        self.history = _Unchecked()
        self.records += [
            Started("journal", "mirror", 4096, 0),
            Divided(clock.monotonic_ns(), "equal", case.groups, case.tasks, "op", "buffered"),
        ]

    def trace(self, run: UnitRun) -> None:
        self.records.append(run)

    def receive(self) -> None:
        """As the harness does it, with the drains and the end in the trace; `with` of a group closes it."""
        with suppress(BoomError):
            for group in self.groups:
                group.start()
            try:
                self._submit_all()
                if self.case.drains_last:
                    self._drain(len(self.units))
            finally:
                for group in self.groups:
                    group.close()
                self.records.append(Ended(len(self.units), clock.monotonic_ns()))

    def _submit_all(self) -> None:
        start = 0
        for end in range(1, len(self.units) + 1):
            if end == len(self.units) or end - start == self.case.batch or end in self.case.drains:
                self._submit(self.units[start:end])
                start = end
            if end in self.case.drains:
                self._drain(end)

    def _drain(self, end: int) -> None:
        self.in_flight.wait_drained()
        self.records.append(Drained(end, clock.monotonic_ns()))


def trace_of(case: Case, chooser: object, group: type, scheduler: type[Scheduler] = Scheduler) -> list[TraceRecord]:
    """The trace of a run, up to where it ended or was stuck."""
    ticks = itertools.count(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "monotonic_ns", lambda: next(ticks))
        scheduled = scheduler(chooser)
        bench = TracedBench(case, scheduled, group)
        with suppress(Exception):  # a deadlock, or an assertion of the group itself: the trace ends there
            scheduled.run(bench.receive)
    return bench.records


def violations_of(records: Iterable[TraceRecord]) -> list[Violation]:
    """What is wrong with them, once they were lines of a file."""
    found: list[Violation] = []
    checker = Checker(found.append)
    for record in through_lines(records):
        checker.add(record)
    checker.finish()
    return found


def through_lines(records: Iterable[TraceRecord]) -> Iterator[TraceRecord]:
    """The records, written and read again."""
    for record in records:
        again = decode(encode(record), "a test")
        assert again == record
        yield again
