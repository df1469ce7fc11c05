"""Calls that run in parallel, but one after another, in the order of submission, where they touch the same data.

The method of replay for any work: "not limited to address ranges and physical I/O", it extends "to any data that can be
partitioned into non-interfering groups" (the patent's last paragraph). A call has a footprint: keys of any hashable
type, or ranges of addresses. Calls whose footprints meet are ordered; nothing else is.

Rule: a key has a number while a call that has it is pending, and only then; no two such keys have the same. To a task
group (FIG. 11) it is a page.
Rule: a call whose footprint lies in several groups runs alone, after all before it and before all after it.
Bound: `pending_max` calls that have not ended, with their keys.
Fail-stop: after the first call that raises, none begins any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from mirrortool import clock
from mirrortool.errors import UsageError
from mirrortool.replay.engine import Plan
from mirrortool.replay.inflight import InFlight
from mirrortool.replay.taskgroup import GroupStatistics, TaskGroup
from mirrortool.replay.threads import THREADS, ThreadSeam
from mirrortool.replay.tracing import Divided, Drained, Ended, Started, Tracer
from mirrortool.replay.writeunit import UNIT_COST_BYTES, Footprint, WriteUnit

ADDRESS_END = 1 << 52
"""Addresses are below it; keys are numbered from here on."""
SCATTERED_MAX = 1 << 16
STRIPE = 1 << 16


@dataclass(frozen=True, slots=True)
class Keys:
    """A footprint: calls that have one of these in common are ordered."""

    keys: frozenset[Hashable]

    @classmethod
    def of(cls, *keys: Hashable) -> Keys:
        """Of these keys; at least one."""
        return cls(frozenset(keys))


@dataclass(frozen=True, slots=True)
class Addresses:
    """A footprint: calls whose ranges overlap are ordered. Each range is (first address, one above the last)."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, *ranges: tuple[int, int]) -> Addresses:
        """Of these ranges; at least one. Several that do not touch have SCATTERED_MAX addresses at most."""
        return cls(ranges)


@dataclass(slots=True, eq=False)
class _Call(WriteUnit):
    """A unit whose application is a call."""

    run: Callable[[], object] = field(kw_only=True)
    keys: Sequence[Hashable] = field(kw_only=True, default=())


class OrderedCalls:
    """Task groups that make calls. `with` starts their threads, and drains and joins them.

    One thread submits and drains. A call may submit nothing itself, and must not wait for a later one.
    """

    def __init__(
        self,
        *,
        tasks: int = 4,
        groups: int = 1,
        pending_max: int = 1024,
        tracer: Tracer | None = None,
        seam: ThreadSeam = THREADS,
    ) -> None:
        """Nothing runs yet.

        Args:
            tasks: threads in each group.
            groups: each has its own keys, and stripes of STRIPE addresses in turn.
            pending_max: calls that may wait or run; `submit` waits for room.
            tracer: called with each record of tracing.py, by the thread that it is about.
            seam: what threads are made by; for tests.
        Raises:
            UsageError: there cannot be this many groups, tasks or calls.
        """
        plan = Plan(groups=groups, tasks=tasks)
        plan.check()
        if pending_max < 1:
            raise UsageError("at least one call must be pending")
        self._in_flight = InFlight(pending_max * UNIT_COST_BYTES, seam)
        self._groups = [
            TaskGroup(number, self._make, self._in_flight, tasks=tasks, seam=seam, tracer=tracer)
            for number in range(groups)
        ]
        self._tracer = tracer
        self._sequence = self._traced_drain = 0
        # Owned here; protects what follows, and is held for a few statements. Tasks acquire it with no other lock held.
        self._keys_lock = threading.Lock()
        self._pages: dict[Hashable, int] = {}  # the number of each key that a pending call has
        self._users: dict[Hashable, int] = {}  # and how many calls have it
        self._free: list[int] = []
        if tracer:
            tracer(Started("", "", 1, clock.now_ns()))
            tracer(Divided(clock.monotonic_ns(), plan.ranges, groups, tasks, "op", plan.io))

    def __enter__(self) -> Self:
        try:
            for group in self._groups:
                group.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.drain()
        finally:
            self._close()

    def submit(self, footprint: Keys | Addresses, call: Callable[[], object]) -> None:
        """Have a call made, after all before it whose footprints meet this one. Waits while there is no room.

        Raises:
            UsageError: the footprint is empty, or not valid; nothing was submitted.
            BaseException: what an earlier call raised first; no further one is made.
        """
        keys = tuple(footprint.keys) if isinstance(footprint, Keys) else ()
        pages = self._number(keys) if isinstance(footprint, Keys) else _pages_of(footprint.ranges)
        unit = _Call(self._sequence, pages, run=call, keys=keys)
        group = self._group_of(pages)
        if group is None:
            self.drain()
        self._sequence += 1
        self._groups[group or 0].submit([unit])
        if group is None:
            self.drain()

    def drain(self) -> None:
        """Wait until every call that was submitted has ended.

        Raises:
            BaseException: what a call raised first.
        """
        self._in_flight.wait_drained()
        if self._tracer and self._traced_drain < self._sequence:
            self._traced_drain = self._sequence
            self._tracer(Drained(self._sequence, clock.monotonic_ns()))

    def statistics(self) -> tuple[GroupStatistics, ...]:
        """How the groups do now; from any thread."""
        return tuple(group.statistics() for group in self._groups)

    def _close(self) -> None:
        for group in self._groups:
            group.close()
        if self._tracer:
            self._tracer(Ended(self._sequence, clock.monotonic_ns()))

    def _make(self, unit: WriteUnit) -> None:
        assert isinstance(unit, _Call)
        try:
            unit.run()
        finally:
            self._release(unit.keys)

    def _number(self, keys: Sequence[Hashable]) -> Footprint:
        if not keys:
            raise UsageError("a footprint has at least one key")
        with self._keys_lock:
            for key in keys:
                if key not in self._pages:
                    self._pages[key] = self._free.pop() if self._free else ADDRESS_END + len(self._pages)
                self._users[key] = self._users.get(key, 0) + 1
            pages = sorted(self._pages[key] for key in keys)
        return Footprint.of_runs([(page, 1) for page in pages])

    def _release(self, keys: Sequence[Hashable]) -> None:
        with self._keys_lock:
            for key in keys:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key]
                    self._free.append(self._pages.pop(key))

    def _group_of(self, pages: Footprint) -> int | None:
        """The group that a footprint lies in; None if it lies in several."""
        count = len(self._groups)
        if count == 1:
            return 0
        groups = {stripe % count for stripe in _stripes(pages)}
        return groups.pop() if len(groups) == 1 else None


def _stripes(pages: Footprint) -> set[int]:
    """What belongs to one group: each key by itself, and addresses that lie together."""
    if pages.first >= ADDRESS_END:
        return {page - ADDRESS_END for page in pages.each_page()}
    if pages.pages is None:
        return set(range(pages.first // STRIPE, (pages.end - 1) // STRIPE + 1))
    return {page // STRIPE for page in pages.pages}


def _pages_of(ranges: Sequence[tuple[int, int]]) -> Footprint:
    if not ranges or not all(0 <= first < end <= ADDRESS_END for first, end in ranges):
        raise UsageError(f"a range is (first, end) with 0 <= first < end <= {ADDRESS_END}, and there is at least one")
    merged: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((first, end))
    if len(merged) > 1 and sum(end - first for first, end in merged) > SCATTERED_MAX:
        raise UsageError(
            f"ranges apart have at most {SCATTERED_MAX} addresses", remedy="let an address stand for a larger block"
        )
    return Footprint.of_runs([(first, end - first) for first, end in merged])
