"""The figure of `mirrortool bench`: measures four ways to replay one workload, and the engine against its peers.

Rule: rounds of all ways in turn, so that a load on the machine slows each of them; medians are reported.
Rule: the ideal scheduler's step is the median time of a write in a bare loop, where no other thread delayed it.
`run` is for a thread of its own, `cancel` for any other.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mirrortool.bench import ways
from mirrortool.bench.schedule import dependencies, makespan
from mirrortool.bench.store import SleepingStore
from mirrortool.bench.ways import Timing
from mirrortool.bench.workload import CONFLICTS, INDEPENDENT, RANGE_PAGES, RANGES, WRITES_MAX, Workload, make_workload
from mirrortool.errors import UsageError
from mirrortool.replay.engine import Plan
from mirrortool.replay.tracing import TraceRecord

LATENCY_SECONDS_MAX = 1.0
RUNS_MAX = 100
TRACED_WRITES_MAX = 20_000
"""Of more writes than this, the first are traced; their records are kept in memory."""

Way = Callable[[Workload, SleepingStore], Timing]


class BenchCancelled(Exception):
    """`cancel` was called."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure.

    Attributes:
        latency_seconds: how long the store sleeps for each write.
        writes: operations of the workload.
        groups, tasks: of the engine at its best.
        runs: how many; medians of them are reported.
        peers: whether bare threads and the ideal scheduler are measured too.
        traced: whether the engine at its best runs once more, not timed, to see what its tasks do.
    """

    latency_seconds: float = 0.001
    writes: int = 2000
    groups: int = 4
    tasks: int = 8
    runs: int = 3
    peers: bool = False
    traced: bool = False

    def check(self) -> None:
        """Raise UsageError if a value is out of range."""
        Plan(groups=self.groups, tasks=self.tasks).check()
        if not 0 <= self.latency_seconds <= LATENCY_SECONDS_MAX:
            raise UsageError(f"the latency is at most {LATENCY_SECONDS_MAX:.0f} s")
        if not (1 <= self.writes <= WRITES_MAX and 1 <= self.runs <= RUNS_MAX):
            raise UsageError(f"writes are 1 to {WRITES_MAX}, runs 1 to {RUNS_MAX}")

    def seconds_expected(self) -> float:
        """About how long the measurement lasts, if scheduling costs nothing."""
        threads = self.groups * self.tasks
        writes = 2 + 1 / self.groups + 1 / threads + (4 / threads if self.peers else 0)
        traced = min(self.writes, TRACED_WRITES_MAX) / threads if self.traced else 0
        return (self.runs * self.writes * writes + traced) * self.latency_seconds


@dataclass(frozen=True, slots=True)
class Bar:
    """A way to replay, measured.

    Attributes:
        name: "order", "task", "groups" or "groups-tasks".
        title: for people.
        groups, tasks: of the engine; 0 where there is none.
        timing: the run with the median time.
        writes_per_second: in that run.
        speedup: against the primary's order.
    """

    name: str
    title: str
    groups: int
    tasks: int
    timing: Timing
    writes_per_second: float
    speedup: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The engine against a peer that does the same writes with as many threads.

    Attributes:
        workload: for people.
        peer: "bare threads" or "ideal scheduler".
        seconds, peer_seconds: medians.
        ratio: median of the runs' ratios; above 1 means faster than the peer.
    """

    workload: str
    peer: str
    seconds: float
    peer_seconds: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Figure:
    """All that was measured.

    Attributes:
        write_seconds: the median time of a write in the primary's order; a little more than the latency.
        bars: the primary's order, one task, groups of one task, groups of several.
        comparisons: none unless asked for.
        trace: of the engine at its best; nothing unless asked for.
    """

    settings: Settings
    write_seconds: float
    bars: tuple[Bar, ...]
    comparisons: tuple[Comparison, ...]
    trace: tuple[TraceRecord, ...] = ()


class Bench:
    """One measurement."""

    def __init__(self, settings: Settings) -> None:
        """Check the settings.

        Raises:
            UsageError: a value is out of range.
        """
        settings.check()
        self._settings = settings
        self._is_cancelled = False
        self._timed = 0
        self._store: SleepingStore | None = None  # the one in use, for `cancel`

    def run(self) -> Figure:
        """Measure everything.

        Raises:
            BenchCancelled: `cancel` was called.
            WrongResultError: a way left another content than the primary's order.
        """
        bars = self._measure_bars()
        write_seconds = bars[0].timing.write_seconds
        comparisons = self._compare(write_seconds) if self._settings.peers else []
        trace = self._trace() if self._settings.traced else []
        return Figure(self._settings, write_seconds, tuple(bars), tuple(comparisons), tuple(trace))

    def progress(self) -> tuple[int, int]:
        """How many runs are done, of all ways, and how many there will be; from any thread."""
        return self._timed, self._settings.runs * (4 + (4 if self._settings.peers else 0))

    def cancel(self) -> None:
        """End soon; from any thread."""
        self._is_cancelled = True
        store = self._store
        if store:
            store.stop_sleeping()

    def _measure_bars(self) -> list[Bar]:
        workload = make_workload(RANGES, self._settings.writes, self._settings.groups)
        groups, tasks = self._settings.groups, self._settings.tasks
        engines = [(1, 1), (groups, 1), (groups, tasks)]
        measured = self._rounds(workload, [ways.replay_in_order, *(_engine(*each) for each in engines)])
        medians = [sorted(timings, key=lambda timing: timing.seconds)[len(timings) // 2] for timings in measured]
        names = ("order", "task", "groups", "groups-tasks")
        titles = ("the primary's order (FIG. 2)", "one task (FIG. 4)", _title(groups, 1), _title(groups, tasks))
        return [
            Bar(
                name=name,
                title=title,
                groups=shape[0],
                tasks=shape[1],
                timing=timing,
                writes_per_second=self._settings.writes / timing.seconds,
                speedup=medians[0].seconds / timing.seconds,
            )
            for name, title, shape, timing in zip(names, titles, [(0, 0), *engines], medians, strict=True)
        ]

    def _compare(self, write_seconds: float) -> list[Comparison]:
        """The engine at its best against bare threads, and against the ideal scheduler."""
        groups, tasks = self._settings.groups, self._settings.tasks
        engine, threads = _engine(groups, tasks), groups * tasks
        ranges = max(groups, -(-self._settings.writes // RANGE_PAGES))  # enough that no page comes twice
        independent = make_workload(INDEPENDENT, self._settings.writes, ranges)
        ours, bare = self._rounds(independent, [engine, partial(ways.replay_by_bare_threads, threads=threads)])
        found = [_comparison(INDEPENDENT.name, "bare threads", ours, [timing.seconds for timing in bare])]
        for mix in (CONFLICTS, RANGES):
            workload = make_workload(mix, self._settings.writes, groups)
            ideal_seconds = makespan(dependencies(workload), threads) * write_seconds
            (ours,) = self._rounds(workload, [engine])
            found.append(_comparison(mix.name, "ideal scheduler", ours, [ideal_seconds] * len(ours)))
        return found

    def _trace(self) -> list[TraceRecord]:
        """What the engine at its best tells of itself."""
        settings = self._settings
        records: list[TraceRecord] = []  # tasks append to it, which needs no lock
        workload = make_workload(RANGES, min(settings.writes, TRACED_WRITES_MAX), settings.groups)
        groups, tasks = settings.groups, settings.tasks
        self._time(partial(ways.replay_by_engine, groups=groups, tasks=tasks, tracer=records.append), workload)
        return records

    def _rounds(self, workload: Workload, each_way: Sequence[Way]) -> list[list[Timing]]:
        """The timings of each way, all ways in turn."""
        rounds = [[self._time(way, workload) for way in each_way] for _ in range(self._settings.runs)]
        return [list(timings) for timings in zip(*rounds, strict=True)]

    def _time(self, way: Way, workload: Workload) -> Timing:
        self._store = store = SleepingStore(workload.volumes, self._settings.latency_seconds)
        timing = Timing(0) if self._is_cancelled else way(workload, store)
        if self._is_cancelled:
            raise BenchCancelled
        ways.check(workload, store)
        self._timed += 1
        return timing


def _engine(groups: int, tasks: int) -> Way:
    return partial(ways.replay_by_engine, groups=groups, tasks=tasks)


def _title(groups: int, tasks: int) -> str:
    return f"{groups} group{'s' * (groups > 1)} of {tasks} task{'s' * (tasks > 1)}"


def _comparison(workload: str, peer: str, ours: Sequence[Timing], peer_seconds: Sequence[float]) -> Comparison:
    seconds = [timing.seconds for timing in ours]
    ratios = [theirs / mine for theirs, mine in zip(peer_seconds, seconds, strict=True)]
    median = statistics.median
    return Comparison(workload, peer, median(seconds), median(peer_seconds), median(ratios))
