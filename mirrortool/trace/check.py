"""Checks the records of a trace, one by one: that units which overlap ran in order and one at a time.

Source: mirrortool-trace(1), What is proved.
Rule: a trace is a list of sections, each closed by what waits for everything before it: a drain, an operation that is
done by itself, a new plan, the end.
Rule: what no replay writes, such as a unit before any plan, is an error of the file; what a wrong replay could have
done is a violation.
Bound: one section (section.py).

Not here: reading lines (proof.py), and sums (summary.py).
"""

from __future__ import annotations

from collections.abc import Callable

from mirrortool.errors import BadLogError
from mirrortool.replay.tracing import Divided, Drained, Ended, InlineRun, Started, TraceRecord, UnitRun
from mirrortool.trace.section import Section, SectionFigures
from mirrortool.trace.violation import Reporter, Rule, Violation

NAME_A_TRACE = "name a file that replay --trace wrote"


class Checker:
    """Takes the records of a file in their order. For one thread."""

    def __init__(self, note: Callable[[Violation], None]) -> None:
        """Call `note` with each violation."""
        self._note = note
        self._replays = 0
        self._cut_off = 0  # replays whose end is not in the trace
        self._zero_ns: int | None = None  # when the first plan of the file was made
        self._reporter = Reporter(0, note, 0)
        self._plan: Divided | None = None
        self._section: Section | None = None  # none before the first plan of a replay, and after its end
        self._is_over = True
        self._failed: UnitRun | None = None

    @property
    def replays(self) -> int:
        """How many have begun."""
        return self._replays

    @property
    def cut_off(self) -> int:
        """Of how many the end is missing: they were killed, or still run. Certain after `finish`."""
        return self._cut_off

    def add(self, record: TraceRecord) -> SectionFigures | None:
        """Check a record. Figures of the section that it closes, if that has units.

        Raises:
            BadLogError: no replay writes this record here.
        """
        match record:
            case UnitRun():
                self._add_unit(record)
                return None
            case Drained(sequence, at_ns):
                return self._close_and_open(sequence, at_ns, sequence, at_ns)
            case InlineRun(sequence, _, _, _, _, start_ns, end_ns):
                self._check_clock(sequence, start_ns, end_ns)
                return self._close_and_open(sequence, start_ns, sequence + 1, end_ns)
            case Divided():
                return self._divide(record)
            case Started():
                return self._start()
            case Ended(sequence, at_ns):
                return self._end(sequence, at_ns)

    def finish(self) -> SectionFigures | None:
        """The file has no more records.

        Raises:
            BadLogError: it had none.
        """
        if not self._replays:
            raise BadLogError("is not a trace", remedy=NAME_A_TRACE)
        return self._cut()

    def _start(self) -> SectionFigures | None:
        figures = self._cut()
        self._replays += 1
        self._reporter = Reporter(self._replays, self._note, self._zero_ns or 0)
        self._plan, self._failed, self._is_over = None, None, False
        return figures

    def _cut(self) -> SectionFigures | None:
        """The trace of a replay ends; that is well only after its end."""
        if self._is_over:
            return None
        self._cut_off += 1
        self._is_over = True
        section, self._section = self._section, None
        return section.close(None, None, may_miss=True) if section else None

    def _divide(self, plan: Divided) -> SectionFigures | None:
        if self._is_over:
            raise BadLogError("has a plan outside of a replay")
        section, before = self._section, self._plan
        self._plan = plan
        if before is None or section is None:
            if self._zero_ns is None:
                self._zero_ns = plan.at_ns
                self._reporter = Reporter(self._replays, self._note, plan.at_ns)
            self._section = Section(0, plan.at_ns, plan, self._reporter)
            return None
        if not section.is_empty:
            raise BadLogError("has a plan with no drain before it")
        return self._close_and_open(section.first, plan.at_ns, section.first, plan.at_ns)

    def _add_unit(self, unit: UnitRun) -> None:
        if self._plan is None:
            raise BadLogError("has a unit with no plan before it")
        if self._section is None:
            self._reporter.report(Rule.DRAIN, "was applied after the end", unit)
            return
        self._section.add(unit)
        if unit.failed and not self._failed:
            self._failed = unit

    def _close_and_open(self, end: int, at_ns: int, first: int, since_ns: int) -> SectionFigures | None:
        """Close the section before the number `end`, and open one from `first` on."""
        section = self._current(end)
        self._check_clock(end, section.since_ns, at_ns)
        if self._failed:
            self._reporter.report(Rule.FAILED, "failed, and the replay continued", self._failed)
        figures = section.close(end, at_ns, may_miss=self._failed is not None)
        self._failed = None
        assert self._plan is not None
        self._section = Section(first, since_ns, self._plan, self._reporter)
        return figures

    def _end(self, sequence: int, at_ns: int) -> SectionFigures | None:
        section = self._current(sequence)
        self._check_clock(sequence, section.since_ns, at_ns)
        self._section, self._is_over = None, True
        return section.close(sequence, at_ns, may_miss=self._failed is not None)

    def _current(self, end: int) -> Section:
        if self._section is None or end < self._section.first:
            raise BadLogError(f"has a drain at {end}, where none can be")
        return self._section

    def _check_clock(self, sequence: int, earlier_ns: int, later_ns: int) -> None:
        if later_ns < earlier_ns:
            what = f"at {sequence}: {self._reporter.at(later_ns)} is told after {self._reporter.at(earlier_ns)}"
            self._reporter.report_number(Rule.CLOCK, what, sequence)
