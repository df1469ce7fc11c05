"""How many groups and tasks, which unit, and which way to the disk: chosen from what the first writes took.

A pure function: tuner.py times the windows, and changes the engine's plan between them. What was given is never
chosen; the remainder is chosen around it.

Rule: two presets. Where writes end in the page cache, few tasks, because threads that wait for each other at the
interpreter and at the cache gain nothing; where they wait for something, as many as its latency can hide.
Rule: only a write's own time counts, and the median of many: another program that took the processor from one of them
decides nothing. A write waits if it spends most of its time off the processor, and not for a moment only.
Rule: the page cache against O_DIRECT is decided by a window each way, made durable. Where making durable costs next to
nothing, as on tmpfs, O_DIRECT is not tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mirrortool.replay.engine import IN_FLIGHT_BYTES, Plan, UnitTime

UNITS_TIMED = 8
"""This number of units must have been timed before they count."""

TRIALS_MAX = 16
"""Windows that may pass without that; a journal that gives a unit a window is best served by few tasks."""

WAIT_SECONDS = 100e-6
"""A write that is off the processor for less is not worth a thread."""

WAIT_SHARE = 4.0
"""A write waits if it is off the processor for this many times as long as it is on it."""

SYNC_SHARE = 0.25
"""With a smaller part of a window's time spent on making it durable, O_DIRECT is not tried."""

DIRECT_GAIN = 1.1
"""O_DIRECT must be faster by this factor; a single window tells nothing finer."""

THREADS_MIN, THREADS_MAX = 8, 64
"""Tasks of all groups together where the store waits."""

GROUPS_MANY = 4
THREADS_FEW, TASKS_FEW = 2, 2
"""With a single task in a group nothing could be delegated, and two groups of two tasks cost up to 8 % more than two of
one; a group of two costs nothing that can be measured (tests/bench/test_preset.py).
"""
THREADS_DIRECT = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was given; None is for what is to be chosen. The fields are those of Plan."""

    ranges: str = "auto"
    groups: int | None = None
    tasks: int | None = None
    unit: str | None = None
    io: str | None = None
    in_flight_bytes: int = IN_FLIGHT_BYTES

    @classmethod
    def exactly(cls, plan: Plan) -> Wanted:
        """All of a plan, so that nothing is chosen."""
        return cls(plan.ranges, plan.groups, plan.tasks, plan.unit, plan.io, plan.in_flight_bytes)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is to be chosen."""
        return None not in (self.groups, self.tasks, self.unit, self.io)

    def check(self) -> None:
        """Raise UsageError if it cannot be carried out, whatever is chosen around it."""
        self.plan(1, 1, "buffered").check()

    def plan(self, groups: int, tasks: int, io: str) -> Plan:
        """What was given, completed by what is chosen."""
        return Plan(
            self.ranges,
            groups if self.groups is None else self.groups,
            tasks if self.tasks is None else self.tasks,
            self.unit or "batch",
            self.in_flight_bytes,
            self.io or io,
        )

    def few(self, io: str) -> Plan:
        """The preset for a page cache; of two groups, where it is given how groups share the addresses."""
        least = 1 if self.ranges == "auto" else 2
        return self.plan(max(least, THREADS_FEW // (self.tasks or TASKS_FEW)), TASKS_FEW, io)

    def many(self, threads: int, io: str) -> Plan:
        """About this number of tasks in all."""
        groups = self.groups or max(1, min(GROUPS_MANY, threads // self.tasks if self.tasks else GROUPS_MANY))
        return self.plan(groups, max(1, threads // groups), io)


@dataclass(frozen=True, slots=True)
class Trial:
    """A window that was timed.

    Attributes:
        plan: what it was written with.
        is_short: whether it was one of the first, to see whether writes wait; others compare two ways to the disk.
        payload_bytes: of the pages written.
        write_seconds: from the first unit handed out until all were written.
        sync_seconds: to make it durable; 0 where that was not measured.
        units: each unit's time.
    """

    plan: Plan
    is_short: bool
    payload_bytes: int
    write_seconds: float
    sync_seconds: float
    units: tuple[UnitTime, ...]

    @property
    def bytes_per_second(self) -> float:
        return self.payload_bytes / max(self.write_seconds + self.sync_seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan and why.

    Attributes:
        is_final: whether it is not to be timed any further.
        is_short: whether the next window is to be a short one.
    """

    plan: Plan
    reason: str
    is_final: bool
    is_short: bool = False

    def __str__(self) -> str:
        plan = self.plan
        groups = f"{plan.groups} group{'s' * (plan.groups > 1)}"
        tasks = f"{plan.tasks} task{'s' * (plan.tasks > 1)}"
        unit = "batches" if plan.unit == "batch" else "single operations"
        return f"{groups} x {tasks}, {unit}, {plan.io}: {self.reason}"


def choose(wanted: Wanted, trials: Sequence[Trial], *, can_be_direct: bool) -> Choice:
    """The plan for the next window.

    Args:
        trials: all windows timed until now, each written with what was chosen before it.
        can_be_direct: whether the store takes O_DIRECT; what was given is assumed to be possible.
    """
    if wanted.is_complete:
        return Choice(wanted.few("buffered"), "as given", is_final=True)
    preset = wanted.many(THREADS_DIRECT, "direct") if wanted.io == "direct" else wanted.few("buffered")
    short = [trial for trial in trials if trial.is_short]
    units = [unit for trial in short for unit in trial.units if unit.calls]
    if len(units) < UNITS_TIMED:
        if len(short) < TRIALS_MAX:
            return Choice(preset, "the preset; too little was written to time it", is_final=False, is_short=True)
        return Choice(preset, "the preset; units come one at a time", is_final=True)
    wall, processor, page = _typical(units)
    if wall - processor >= WAIT_SECONDS and wall - processor >= WAIT_SHARE * processor:
        return Choice(
            wanted.many(_threads_for(wall, processor), wanted.io or "buffered"),
            f"a write takes {_in_words(wall)}, mostly waiting",
            is_final=True,
        )
    took = f"the store takes {_in_words(page)} a page"
    if wanted.io or not can_be_direct or not _is_sync_dear(short):
        return Choice(
            preset, f"{took} ({'bypassing' if preset.io == 'direct' else 'in'} the page cache)", is_final=True
        )
    return _choose_io(wanted, trials, took)


def _choose_io(wanted: Wanted, trials: Sequence[Trial], took: str) -> Choice:
    """A window each way, made durable; then the faster."""
    ways = {"buffered": wanted.few("buffered"), "direct": wanted.many(THREADS_DIRECT, "direct")}
    found = {trial.plan.io: trial.bytes_per_second for trial in trials if not trial.is_short}
    for io, plan in ways.items():
        if io not in found:
            return Choice(plan, f"{took}; timing writes with --io {io}", is_final=False)
    best = "direct" if found["direct"] > DIRECT_GAIN * found["buffered"] else "buffered"
    rates = " and ".join(f"{rate / (1 << 20):.0f} MiB/s {io}" for io, rate in found.items())
    return Choice(ways[best], f"{took}; made durable, {rates}", is_final=True)


def _typical(units: Sequence[UnitTime]) -> tuple[float, float, float]:
    """Of a write call: seconds, and seconds on the processor; of a page: seconds. Medians over the units."""
    import statistics  # loaded late: it costs 3 ms, and a plan that is given needs none

    return (
        statistics.median(unit.seconds / unit.calls for unit in units),
        statistics.median(unit.processor_seconds / unit.calls for unit in units),
        statistics.median(unit.seconds / unit.pages for unit in units),
    )


def _threads_for(wall: float, processor: float) -> int:
    """Enough that neither of two processors is idle for want of threads, as a power of two."""
    threads = THREADS_MIN
    while threads < THREADS_MAX and threads * processor < 2 * wall:
        threads *= 2
    return threads


def _is_sync_dear(trials: Sequence[Trial]) -> bool:
    sync = sum(trial.sync_seconds for trial in trials)
    return sync > SYNC_SHARE * sum(trial.write_seconds + trial.sync_seconds for trial in trials)


def _in_words(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 100e-6 else f"{seconds * 1e3:.1f} ms"
