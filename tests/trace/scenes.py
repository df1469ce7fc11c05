"""Records of replays that never were, for pictures of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from mirrortool.lsn import Lsn
from mirrortool.replay.tracing import Divided, Drained, Ended, Post, Started, TraceRecord, UnitRun
from mirrortool.replay.writeunit import How

MS = 10**6
ORIGIN_NS = 5 * 10**15
"""Of the monotonic clock of a host that runs for two months: larger than a float counts nanoseconds."""


def opening(groups: int = 1, tasks: int = 3, unit: str = "op", ranges: str = "equal") -> list[TraceRecord]:
    """What every trace begins with."""
    return [Started("journal", "mirror", 4096, 0), Divided(ORIGIN_NS, ranges, groups, tasks, unit, "buffered")]


def direct(sequence: int, start_ms: float, end_ms: float, task: int = 0, **fields: object) -> UnitRun:
    """A unit of one page that its task claimed; times since the trace began."""
    values: dict[str, object] = {
        "sequence": sequence,
        "lsn": Lsn(1000 + sequence),
        "group": 0,
        "task": task,
        "footprint": ((sequence, 1),),
        "payload_bytes": 4096,
        "start_ns": at(start_ms),
        "end_ns": at(end_ms),
        "how": How.DIRECT,
    }
    # The fields are of many types, which a dict of them cannot say.
    return UnitRun(**{**values, **fields})  # type: ignore[arg-type]


def sent(
    sequence: int, sent_ms: float, start_ms: float, end_ms: float, sender: int, task: int, **fields: object
) -> UnitRun:
    """A unit from a mini queue."""
    values = {"how": How.MINI_QUEUE, "sent_by": sender, "sent_ns": at(sent_ms), **fields}
    return direct(sequence, start_ms, end_ms, task, **values)


def waited(
    sequence: int, wait_ms: float, end_ms: float, task: int, posts: dict[int, float], **fields: object
) -> UnitRun:
    """A unit that began with the last of the posts: task and time."""
    made = tuple(Post(each, at(at_ms)) for each, at_ms in posts.items())
    values = {"how": How.COUNTER_WAIT, "wait_ns": at(wait_ms), "posts": made, **fields}
    return direct(sequence, max(posts.values()), end_ms, task, **values)


def at(milliseconds: float) -> int:
    """A time on the clock of the trace."""
    return ORIGIN_NS + round(milliseconds * MS)


def example() -> list[TraceRecord]:
    """Every way once: two tasks claim, one sends to the other, the third waits for both."""
    return [
        *opening(),
        direct(0, 1, 3, 0),
        direct(1, 1.1, 4, 1),
        sent(2, 1.3, 3.2, 5, sender=2, task=0),
        waited(3, 1.4, 8, 2, {1: 4.1, 0: 5.1}, footprint=((0, 256), (300, 4))),
        Drained(4, at(8.1)),
        direct(4, 8.2, 9, 0, given_back=2),
        Ended(5, at(9.2)),
    ]


def long_trace(units: int, seed: int = 1, tasks: int = 4, groups: int = 2) -> list[TraceRecord]:
    """Many units, of which a fortieth is sent to a mini queue, and a hundredth waits."""
    made = sorted(_units(units, random.Random(seed), tasks, groups), key=lambda unit: unit.end_ns)
    return [*opening(groups, tasks), *made, Ended(units, made[-1].end_ns)]


def _units(units: int, source: random.Random, tasks: int, groups: int) -> Iterator[UnitRun]:
    free = dict.fromkeys(itertools.product(range(groups), range(tasks)), 0.0)
    for sequence in range(units):
        group, task = lane = min(free, key=free.__getitem__)
        start = free[lane] + 0.02
        free[lane] = end = start + source.uniform(0.1, 2)
        other = (task + 1) % tasks
        if source.random() < 1 / 40:
            yield sent(sequence, start - 0.01, start, end, other, task, group=group)
        elif source.random() < 1 / 100:
            start, free[lane] = start + 1, end + 1
            yield waited(sequence, start - 1, end + 1, task, {other: start}, group=group)
        else:
            yield direct(sequence, start, end, task, group=group)


def quick_trace(units: int, seed: int = 1, tasks: int = 8) -> list[TraceRecord]:
    """Units of 5 to 90 µs with pauses of a millisecond and more between them, while two long ones and waits last."""
    source, made, now = random.Random(seed), list[UnitRun](), 1.0
    for sequence in range(units):
        task, last = sequence % tasks, now
        now += source.choice([0.02, 0.05, 1, 5])
        end = now + source.choice([0.005, 0.03, 0.09])
        pages = ((10 * sequence + 100_000, source.choice([1, 64])),)
        if sequence % 50 == 49:
            posts = {(task + 1) % tasks: last, (task + 2) % tasks: now}
            made.append(waited(sequence, last - 1, end, task, posts, footprint=pages))
        elif sequence % 9 == 8:
            made.append(sent(sequence, last, now, end, (task + 1) % tasks, task, footprint=pages))
        else:
            made.append(direct(sequence, now, end, task, footprint=pages))
        now = end
    return [*opening(2, tasks), *made, Ended(units, made[-1].end_ns)]
