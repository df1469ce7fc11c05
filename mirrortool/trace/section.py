"""The units between two drains: checks what they promise each other.

Rule: of units whose footprints share a page, each has ended before the next one in the order of sequence began. Only
the last writer of each page must be known for that: what it followed was checked when it came.
Rule: units are compared in the order of sequence, so one that comes early waits for those before it.
Bound: SECTION_ENTRIES_MAX runs, posts and units, at about 250 bytes each.

Not here: the drains themselves, and what makes sense between them (check.py).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from mirrortool.errors import BadLogError
from mirrortool.lsn import Lsn
from mirrortool.replay.tracing import Divided, UnitRun
from mirrortool.trace.lastwriters import LastWriters
from mirrortool.trace.violation import Reporter, Rule

SECTION_ENTRIES_MAX = 1 << 20
"""A replay drains every second or so; a trace without drains must not fill the memory."""


class AppliedUnit:
    """A unit that was applied, with the longest chain that ends with it: units of which each overlaps the one before.

    Attributes:
        sequence, lsn, group, task, start_ns, end_ns, failed: of UnitRun.
        chain_units, chain_busy_ns: the chain with the most units: how many, and the time that they took together.
        chain_first: the first unit of that chain.
        critical_ns: the time of the chain that took longest, which is another one perhaps.
    """

    __slots__ = (
        "chain_busy_ns", "chain_first", "chain_units", "critical_ns", "end_ns", "failed", "group", "lsn", "sequence",
        "start_ns", "task",
    )  # fmt: skip

    def __init__(self, unit: UnitRun) -> None:
        self.sequence = unit.sequence
        self.lsn: Lsn = unit.lsn
        self.group = unit.group
        self.task = unit.task
        self.start_ns = unit.start_ns
        self.end_ns = unit.end_ns
        self.failed = unit.failed
        self.chain_units = 1
        self.chain_first = self
        self.chain_busy_ns = self.critical_ns = self.busy_ns

    @property
    def busy_ns(self) -> int:
        """How long it took."""
        return max(0, self.end_ns - self.start_ns)

    @property
    def chain(self) -> tuple[int, int]:
        """How long it is: units, and then time."""
        return self.chain_units, self.chain_busy_ns

    def follow(self, other: AppliedUnit) -> None:
        """Note that this unit overlaps one before it."""
        own = self.busy_ns
        self.critical_ns = max(self.critical_ns, other.critical_ns + own)
        chain = other.chain_units + 1, other.chain_busy_ns + own
        if chain > self.chain:
            self.chain_units, self.chain_busy_ns = chain
            self.chain_first = other.chain_first


@dataclass(frozen=True, slots=True)
class SectionFigures:
    """What a section took.

    Attributes:
        units: applied.
        start_ns, end_ns: when the first began, and the last ended.
        busy_ns: of all units together.
        ideal_ns: the least that this number of tasks needs: the longest chain, or all units shared equally.
        longest: the last unit of the chain with the most units.
    """

    units: int
    start_ns: int
    end_ns: int
    busy_ns: int
    ideal_ns: int
    longest: AppliedUnit


class _TaskUnits:
    """What one task did in the section, in order of time.

    Attributes:
        last: its newest unit.
        starts, ends: of its units.
        moments: when it sent a unit to another task (True) or posted, with the unit of which the trace tells that.
    """

    def __init__(self) -> None:
        self.last: AppliedUnit | None = None
        self.starts, self.ends = array("Q"), array("Q")
        self.moments: list[tuple[int, AppliedUnit, bool]] = []

    def moments_amid(self) -> Iterator[tuple[int, AppliedUnit, bool]]:
        """The moments at which the task was applying a unit."""
        for moment in self.moments:
            index = bisect_left(self.starts, moment[0]) - 1
            if index >= 0 and self.ends[index] > moment[0]:
                yield moment


class Section:
    """The units from one drain to the next. For one thread."""

    def __init__(self, first: int, since_ns: int, plan: Divided, reporter: Reporter) -> None:
        """A section whose first unit has the number `first`, and may begin at `since_ns`."""
        self.first = first
        self.since_ns = since_ns
        self._plan = plan
        self._reporter = reporter
        self._next = first  # all units before it were compared
        self._early: dict[int, tuple[AppliedUnit, UnitRun]] = {}  # by number; none is `_next`
        self._newest: AppliedUnit | None = None  # the one before `_next`, if it was applied
        self._writers: LastWriters[AppliedUnit] = LastWriters()
        self._tasks: dict[tuple[int, int], _TaskUnits] = {}
        self._entries = 0
        self._units = self._busy_ns = self._critical_ns = 0
        self._earliest_ns = 0
        self._latest: AppliedUnit | None = None
        self._longest: AppliedUnit | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has no unit."""
        return not self._units

    def add(self, unit: UnitRun) -> None:
        """Check a unit, as far as those that came before it in the file allow.

        Raises:
            BadLogError: the section has become too large.
        """
        self._entries += 1 + len(unit.footprint) + len(unit.posts)
        if self._entries > SECTION_ENTRIES_MAX:
            raise BadLogError(f"has more than {SECTION_ENTRIES_MAX} units and runs of pages between two drains")
        applied = AppliedUnit(unit)
        self._note(applied)
        self._check_alone(unit, applied)
        if unit.sequence < self.first:
            self._reporter.report(Rule.DRAIN, "was applied after the drain that waited for it", applied)
        elif unit.sequence < self._next or unit.sequence in self._early:
            self._reporter.report(Rule.TWICE, "was applied twice", applied)
        else:
            self._early[unit.sequence] = applied, unit
            self._place_early()

    def close(self, end: int | None, at_ns: int | None, *, may_miss: bool) -> SectionFigures | None:
        """Check that all units below the number `end` were applied by `at_ns`, each once.

        Args:
            end, at_ns: None where the trace ends instead.
            may_miss: whether units may be missing, because the replay failed or its trace was cut short.
        """
        if end is not None and self._newest and self._newest.sequence >= end:
            self._reporter.report(Rule.DRAIN, f"was applied before the drain at {end}", self._newest)
        for sequence in sorted(self._early):
            if not may_miss:
                self._report_gap(sequence if end is None else min(sequence, end))
            if end is not None and sequence >= end:
                self._reporter.report(Rule.DRAIN, f"was applied before the drain at {end}", self._early[sequence][0])
            self._place(*self._early.pop(sequence))
            self._next = sequence + 1
        if end is not None and not may_miss:
            self._report_gap(end)
        latest = self._latest
        if latest and at_ns is not None and latest.end_ns > at_ns:
            self._reporter.report(Rule.DRAIN, f"ended after the drain at {self._reporter.at(at_ns)}", latest)
        self._check_moments()
        return self._figures()

    def _place_early(self) -> None:
        while found := self._early.pop(self._next, None):
            self._next += 1
            self._place(*found)

    def _place(self, applied: AppliedUnit, unit: UnitRun) -> None:
        """Compare a unit with the last writers of its pages; all before it were placed."""
        self._newest = applied
        met: dict[AppliedUnit, int] = {}
        for first, count in unit.footprint:
            self._writers.replace(first, first + count, applied, met)
        for other, page in met.items():
            if other is not applied:
                self._compare(applied, other, page)
                applied.follow(other)
        self._critical_ns = max(self._critical_ns, applied.critical_ns)
        if not self._longest or applied.chain > self._longest.chain:
            self._longest = applied

    def _compare(self, unit: AppliedUnit, other: AppliedUnit, page: int) -> None:
        compare = self._reporter.compare
        if other.failed:
            compare(Rule.FAILED, "was applied, and must not be after the failure of", unit, other, page)
        if other.group != unit.group:
            compare(Rule.GROUPS, f"of group {unit.group} meets, in group {other.group},", unit, other, page)
        if other.end_ns > unit.start_ns:
            if unit.end_ns <= other.start_ns:
                compare(Rule.ORDER, "was applied before", unit, other, page)
            else:
                compare(Rule.TOGETHER, "was applied at the same time as", unit, other, page)

    def _note(self, applied: AppliedUnit) -> None:
        self._units += 1
        self._busy_ns += applied.busy_ns
        self._earliest_ns = min(self._earliest_ns, applied.start_ns) if self._units > 1 else applied.start_ns
        if not self._latest or applied.end_ns > self._latest.end_ns:
            self._latest = applied

    def _check_alone(self, unit: UnitRun, applied: AppliedUnit) -> None:
        """What needs no other unit, and what the task did before."""
        report = self._reporter.report
        if unit.group >= self._plan.groups or unit.task >= self._plan.tasks:
            report(Rule.PLAN, f"was applied by task {unit.group}.{unit.task}, which the plan does not have", applied)
        if unit.end_ns < unit.start_ns:
            report(Rule.CLOCK, "ended before it began", applied)
        if unit.start_ns < self.since_ns:
            report(Rule.DRAIN, f"began before the drain at {self._reporter.at(self.since_ns)} had ended", applied)
        own = self._task(unit.group, unit.task)
        before, own.last = own.last, applied
        own.starts.append(unit.start_ns)
        own.ends.append(unit.end_ns)
        if before and unit.start_ns < before.end_ns:
            self._reporter.compare(Rule.TASK, "has the same task, at the same time, as", applied, before)
        if unit.sent_by is not None and unit.sent_ns is not None:
            self._check_sent(unit, applied, unit.sent_by, unit.sent_ns)
        if unit.wait_ns is not None:
            self._check_wait(unit, applied, unit.wait_ns, before)

    def _task(self, group: int, task: int) -> _TaskUnits:
        found = self._tasks.get((group, task))
        if found is None:
            found = self._tasks[group, task] = _TaskUnits()
        return found

    def _check_sent(self, unit: UnitRun, applied: AppliedUnit, sender: int, sent_ns: int) -> None:
        report = self._reporter.report
        if sender >= self._plan.tasks:
            report(Rule.PLAN, f"was sent by task {sender}, which the plan does not have", applied)
        if sender == unit.task:
            report(Rule.SENT, "was sent by the task that applied it", applied)
        if not self.since_ns <= sent_ns <= unit.start_ns:
            report(Rule.SENT, f"was sent at {self._reporter.at(sent_ns)}, before the drain or after it began", applied)
        self._task(unit.group, sender).moments.append((sent_ns, applied, True))

    def _check_wait(self, unit: UnitRun, applied: AppliedUnit, wait_ns: int, before: AppliedUnit | None) -> None:
        report, at = self._reporter.report, self._reporter.at
        times = [self.since_ns, wait_ns, *(post.at_ns for post in unit.posts), unit.start_ns]
        if any(late < early for early, late in pairwise(times)):
            report(Rule.WAIT, f"waited from {at(wait_ns)} on, and not until the last post, then began", applied)
        if before and wait_ns < before.end_ns:
            self._reporter.compare(Rule.WAIT, f"waited from {at(wait_ns)} on, while its task applied", applied, before)
        if len({post.task for post in unit.posts}) < 2:
            report(Rule.WAIT, "waited for fewer than two tasks", applied)
        for post in unit.posts:
            if post.task == unit.task:
                report(Rule.WAIT, "waited for its own task", applied)
            if post.task >= self._plan.tasks:
                report(Rule.PLAN, f"waited for task {post.task}, which the plan does not have", applied)
            self._task(unit.group, post.task).moments.append((post.at_ns, applied, False))

    def _check_moments(self) -> None:
        """A task sends and posts between its units, not while it applies one."""
        for (_, task), units in self._tasks.items():
            for at_ns, applied, is_sent in units.moments_amid():
                rule, did = (Rule.SENT, "was sent") if is_sent else (Rule.WAIT, "got a post")
                what = f"{did} at {self._reporter.at(at_ns)} by task {task}, which was applying a unit then"
                self._reporter.report(rule, what, applied)

    def _report_gap(self, end: int) -> None:
        """Units from `_next` to the one before `end` are missing, if there are such."""
        first, last = self._next, end - 1
        if first <= last:
            which = f"unit {first} was" if first == last else f"units {first} to {last} were"
            self._reporter.report_number(Rule.MISSING, f"{which} never applied", first)

    def _figures(self) -> SectionFigures | None:
        if not self._latest or not self._longest:
            return None
        threads = max(1, self._plan.groups * self._plan.tasks)
        ideal_ns = max(self._critical_ns, -(-self._busy_ns // threads))
        return SectionFigures(
            self._units, self._earliest_ns, self._latest.end_ns, self._busy_ns, ideal_ns, self._longest
        )
