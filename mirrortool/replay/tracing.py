"""What a replay tells of itself as it runs, for a trace: which task applied which unit when, and how it came there.

Rule: the records of the units between two drains come in any order; those of all else come in the receiver's.
Rule: a unit's record comes when it was applied, and before it counts as finished. So the record of a drain follows
those of all units before it, and precedes those of all units after it.
Cost: none without a tracer. With one, a unit costs two looks at the clock, and what the tracer does.

Not here: the lines of a trace file, and what can be proved and drawn from them (trace/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mirrortool.lsn import Lsn
from mirrortool.operation import Kind
from mirrortool.replay.writeunit import How


@dataclass(frozen=True, slots=True)
class Started:
    """A replay begins; units are numbered from 0 again.

    Attributes:
        journal, mirror: paths.
        page_size: bytes.
        started_ns: when, by the host's clock; nanoseconds since 1970 UTC.
    """

    journal: str
    mirror: str
    page_size: int
    started_ns: int


@dataclass(frozen=True, slots=True)
class Divided:
    """How the work is divided from here on; nothing is in flight now.

    Attributes:
        at_ns: of the monotonic clock, as all times of a trace but `started_ns`.
        ranges, groups, tasks, unit, io: those of engine.Plan.
    """

    at_ns: int
    ranges: str
    groups: int
    tasks: int
    unit: str
    io: str


@dataclass(frozen=True, slots=True)
class Post:
    """A task that was waited for had nothing left to do, and posted to the counter (1128)."""

    task: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class UnitRun:
    """A unit was applied.

    Attributes:
        sequence: its number in arrival order, over all groups.
        lsn: of the operation, where each is a unit; else the last LSN whose pages the unit may carry.
        group, task: that applied it.
        footprint: its pages as runs (first page, count), ascending and disjoint; at least one.
        payload_bytes: written.
        start_ns, end_ns: when its application began and ended.
        how: by which way it came to the task, at last.
        given_back: how often it had been put back on the main queue before.
        sent_by, sent_ns: of a unit from a mini queue, the task that sent it there (1150), and when.
        handed_out: that task was waited for, had the unit in its own mini queue, and this one was idle.
        wait_ns: of a unit that waited for a counter, when the wait began (1168).
        posts: the posts that ended the wait, in their order.
        failed: the store raised an error. No unit that overlaps this one may be applied after it.
    """

    sequence: int
    lsn: Lsn
    group: int
    task: int
    footprint: tuple[tuple[int, int], ...]
    payload_bytes: int
    start_ns: int
    end_ns: int
    how: How
    given_back: int = 0
    sent_by: int | None = None
    sent_ns: int | None = None
    handed_out: bool = False
    wait_ns: int | None = None
    posts: tuple[Post, ...] = ()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class InlineRun:
    """An operation was done by the receiver's thread, with nothing beside it.

    Attributes:
        sequence: its number among the units.
        lsn: of the operation.
        kind: RESIZE or ZERO.
        page, count: those of coalesce.Inline.
        start_ns, end_ns: when it began and ended.
    """

    sequence: int
    lsn: Lsn
    kind: Kind
    page: int
    count: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Drained:
    """Everything with a number below `sequence` was applied, and nothing else has begun."""

    sequence: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The replay's tasks have ended; `sequence` units and inline operations were handed out."""

    sequence: int
    at_ns: int


TraceRecord = Started | Divided | UnitRun | InlineRun | Drained | Ended

# Called with each record by the thread that it is about. What it raises ends the replay, like an error of the store.
Tracer = Callable[[TraceRecord], None]
