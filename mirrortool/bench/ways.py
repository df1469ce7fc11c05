"""The ways to replay a workload, each timed from its first write to its last.

Rule: every way writes the same data to the same pages of a store of its own, and its result is checked.
In all ways, threads are started before the clock. The engine's work for a write counts: making a unit, finding its
range, delegating it.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mirrortool import clock
from mirrortool.bench.store import SleepingStore
from mirrortool.bench.workload import Workload, Write
from mirrortool.errors import MirrortoolError
from mirrortool.lsn import NO_LSN
from mirrortool.replay.engine import Plan, ReplayEngine
from mirrortool.replay.tracing import Tracer
from mirrortool.wording import counted


class WrongResultError(MirrortoolError):
    """A way to replay left another content than the writes one after another: a bug."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One replay.

    Attributes:
        seconds: from the first write to the last.
        write_seconds: the median of single writes; 0 where they were not timed.
        direct, mini_queue, counter_waits, given_back: how the units came to their tasks (GroupStatistics), all groups
            together.
    """

    seconds: float
    write_seconds: float = 0
    direct: int = 0
    mini_queue: int = 0
    counter_waits: int = 0
    given_back: int = 0


def replay_in_order(workload: Workload, store: SleepingStore) -> Timing:
    """A bare loop in the primary's order, to the same pages: FIG. 2 (200, 230)."""
    times = [clock.monotonic()]
    for write in workload.writes:
        _apply(store, write)
        times.append(clock.monotonic())
    each = (end - start for start, end in pairwise(times))
    return Timing(times[-1] - times[0], statistics.median(each))


def replay_by_engine(
    workload: Workload, store: SleepingStore, groups: int, tasks: int, tracer: Tracer | None = None
) -> Timing:
    """The engine of `mirrortool replay`, each write a unit of its own; one group of one task is FIG. 4 (400)."""
    plan = Plan(ranges="equal", groups=groups, tasks=tasks, unit="op")
    with ReplayEngine(store, plan, tracer=tracer) as engine:
        started = clock.monotonic()
        for stretch in workload.stretches():
            engine.delegate(stretch, NO_LSN)
        engine.wait_drained()
        seconds = clock.monotonic() - started
    found, _ = engine.statistics()
    return Timing(
        seconds,
        direct=sum(group.direct for group in found),
        mini_queue=sum(group.delegated for group in found),
        counter_waits=sum(group.waited for group in found),
        given_back=sum(group.given_back for group in found),
    )


def replay_by_bare_threads(workload: Workload, store: SleepingStore, threads: int) -> Timing:
    """Threads with a fixed share of the writes each, and no order between them: for independent writes only."""
    start = threading.Barrier(threads + 1)

    def work(share: Sequence[Write]) -> None:
        start.wait()
        for write in share:
            _apply(store, write)

    shares = [workload.writes[number::threads] for number in range(threads)]
    running = [threading.Thread(target=work, args=(share,), daemon=True) for share in shares]
    for thread in running:
        thread.start()
    start.wait()
    started = clock.monotonic()
    for thread in running:
        thread.join()
    return Timing(clock.monotonic() - started)


def check(workload: Workload, store: SleepingStore) -> None:
    """Raise WrongResultError unless the store has had each write once, and holds what the primary's order leaves."""
    if store.calls != len(workload.writes):
        raise WrongResultError(f"{counted(store.calls, 'write')} instead of {len(workload.writes)}")
    if store.pages != workload.result():
        raise WrongResultError("a page holds another write than the last one")


def _apply(store: SleepingStore, write: Write) -> None:
    if write.data is None:
        store.zero(write.page, write.count)
    else:
        store.write([(write.page, [write.data], len(write.data))])
