"""Sums of a trace: how units came to their tasks, how busy these were, and what stood in the way of more.

Bound: the tasks and the plans that a trace names; both are limited (jsonlines.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mirrortool.replay.tracing import Divided, Ended, InlineRun, Started, TraceRecord, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace.section import AppliedUnit, SectionFigures


@dataclass(slots=True)
class TaskFigures:
    """What one task did.

    Attributes:
        units, payload_bytes: applied.
        busy_ns: applying.
        waiting_ns: at its counter.
        planned_ns: while plans had this task.
    """

    units: int = 0
    payload_bytes: int = 0
    busy_ns: int = 0
    waiting_ns: int = 0
    planned_ns: int = 0

    @property
    def busy_share(self) -> float:
        """Of the time in which plans had it."""
        return self.busy_ns / self.planned_ns if self.planned_ns else 0.0


def count_tasks(sizes: Iterable[tuple[int, int]]) -> int:
    """The tasks of plans together, of which each has a number of groups, and of tasks in each.

    Those that have the same group and number in two plans are one.
    """
    count = tasks_counted = 0
    for groups, tasks in sorted(set(sizes), reverse=True):
        if tasks > tasks_counted:
            count += groups * (tasks - tasks_counted)
            tasks_counted = tasks
    return count


@dataclass(frozen=True, slots=True)
class PlanKey:
    """A plan, whenever it was carried out."""

    ranges: str
    groups: int
    tasks: int
    unit: str
    io: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The longest chain of units of which each overlaps the one before, between two drains.

    Attributes:
        replay: in which it is, from 1.
        section: where it is.
    """

    replay: int
    section: SectionFigures

    @property
    def first(self) -> AppliedUnit:
        """Its first unit."""
        return self.section.longest.chain_first

    @property
    def last(self) -> AppliedUnit:
        """Its last unit."""
        return self.section.longest


@dataclass(slots=True)
class Summary:
    """Sums of all records, in nanoseconds where not said otherwise.

    Attributes:
        sections: with units; a section is what lies between two drains.
        units, inline: applied by tasks, and operations that were done by themselves.
        by_how: units by the way that they came.
        given_back: how often units were given back.
        handed_out: units that a task which was waited for sent on to an idle one.
        failed: units.
        elapsed_ns: from the first plan of each replay to its end.
        working_ns: of these, from the first beginning in a section to the last end, and what was done inline.
        ideal_ns: the least that `working_ns` could be, with the same tasks and the same drains.
        plans: units by plan.
        tasks: by group and task.
    """

    sections: int = 0
    units: int = 0
    inline: int = 0
    payload_bytes: int = 0
    by_how: Counter[How] = field(default_factory=Counter)
    given_back: int = 0
    handed_out: int = 0
    failed: int = 0
    elapsed_ns: int = 0
    working_ns: int = 0
    ideal_ns: int = 0
    plans: dict[PlanKey, int] = field(default_factory=dict)
    tasks: dict[tuple[int, int], TaskFigures] = field(default_factory=dict)
    chain: Chain | None = None
    _plan: PlanKey | None = None
    _planned_ns: Counter[PlanKey] = field(default_factory=Counter)
    _since_ns: int = 0  # from where on time is not counted yet

    @property
    def busy_ns(self) -> int:
        """Of all tasks together."""
        return sum(task.busy_ns for task in self.tasks.values())

    @property
    def waiting_ns(self) -> int:
        """Of all tasks together."""
        return sum(task.waiting_ns for task in self.tasks.values())

    @property
    def busy_tasks(self) -> float:
        """How many tasks applied a unit at once, on average, while there was work."""
        return self.busy_ns / self.working_ns if self.working_ns else 0.0

    @property
    def planned_tasks(self) -> int:
        """How many tasks the plans have."""
        return count_tasks((plan.groups, plan.tasks) for plan in self.plans)

    @property
    def idle_tasks(self) -> int:
        """How many of these applied no unit."""
        used = (any(group < plan.groups and task < plan.tasks for plan in self.plans) for group, task in self.tasks)
        return self.planned_tasks - sum(used)

    def add(self, record: TraceRecord) -> None:
        """Count a record."""
        match record:
            case UnitRun():
                self._add_unit(record)
            case InlineRun(start_ns=start_ns, end_ns=end_ns):
                self.inline += 1
                took_ns = max(0, end_ns - start_ns)
                self.working_ns += took_ns
                self.ideal_ns += took_ns
            case Divided():
                self._divide(record)
            case Started():
                self._plan = None  # the replay before was cut off
            case Ended(at_ns=at_ns):
                self._pass_time(at_ns)
                self._plan = None

    def add_section(self, replay: int, section: SectionFigures) -> None:
        """Count a section of the replay with this number."""
        self.sections += 1
        self.working_ns += section.end_ns - section.start_ns
        self.ideal_ns += section.ideal_ns
        self._pass_time(section.end_ns)
        if not self.chain or section.longest.chain > self.chain.last.chain:
            self.chain = Chain(replay, section)

    def finish(self) -> None:
        """There are no more records: tell the tasks how long plans had them."""
        sums = self._sums_of_plans()
        for (group, task), figures in self.tasks.items():
            is_planned = group < len(sums) and task < len(sums[group])
            figures.planned_ns = sums[group][task] if is_planned else 0

    def _sums_of_plans(self) -> list[list[int]]:
        """By group and task, how long plans had it: each plan has those below its numbers.

        In one pass from the highest numbers down, as a file can name each plan that there can be.
        """
        groups = max((plan.groups for plan in self._planned_ns), default=0)
        tasks = max((plan.tasks for plan in self._planned_ns), default=0)
        sums = [[0] * (tasks + 1) for _ in range(groups + 1)]
        for plan, took_ns in self._planned_ns.items():
            sums[plan.groups - 1][plan.tasks - 1] += took_ns
        for group in reversed(range(groups)):
            row, above = sums[group], sums[group + 1]
            for task in reversed(range(tasks)):
                row[task] += row[task + 1] + above[task] - above[task + 1]
        return sums

    def _divide(self, plan: Divided) -> None:
        if self._plan:
            self._pass_time(plan.at_ns)
        self._since_ns = plan.at_ns
        self._plan = PlanKey(plan.ranges, plan.groups, plan.tasks, plan.unit, plan.io)
        self.plans.setdefault(self._plan, 0)

    def _add_unit(self, unit: UnitRun) -> None:
        if self._plan:
            self.plans[self._plan] += 1
        self.units += 1
        self.payload_bytes += unit.payload_bytes
        self.by_how[unit.how] += 1
        self.given_back += unit.given_back
        self.handed_out += unit.handed_out
        self.failed += unit.failed
        task = self.tasks.get((unit.group, unit.task))
        if task is None:
            task = self.tasks[unit.group, unit.task] = TaskFigures()
        task.units += 1
        task.payload_bytes += unit.payload_bytes
        task.busy_ns += max(0, unit.end_ns - unit.start_ns)
        if unit.wait_ns is not None:
            task.waiting_ns += max(0, unit.start_ns - unit.wait_ns)

    def _pass_time(self, until_ns: int) -> None:
        took_ns = max(0, until_ns - self._since_ns)
        self._since_ns = max(self._since_ns, until_ns)
        if self._plan:
            self.elapsed_ns += took_ns
            self._planned_ns[self._plan] += took_ns
