"""One task of a group (960): its mini queue, its row, its counter, and what it has done until now."""

from __future__ import annotations

from collections import deque
from enum import Enum

from mirrortool.replay.counter import Counter
from mirrortool.replay.tasktable import Row
from mirrortool.replay.threads import Gate
from mirrortool.replay.writeunit import WriteUnit


class Verdict(Enum):
    """What a task does next, as decided under the lock of its group."""

    RUN = "apply its work"
    WAIT = "wait for its counter to reach zero, then apply its work"
    PARK = "wait until the main queue has something"
    EXIT = "end"


class Task:
    """A thread of a group (960). All of it belongs to the lock of the group, with three exceptions.

    The task itself reads `work`, `wait_ns` and the posts of its counter without the lock: nobody writes them while it
    has work that it may apply. It waits at `gate`, which another task opens; it is either parked or waiting for its
    counter, so one gate serves both.

    Attributes:
        mini: the mini queue (970): units that overlap what the task already has, in arrival order. No thread waits for
            room in it: a leader that blocked here would hold the lock that the task needs to empty it. A leader that
            finds MINI_UNITS_MAX in it stops leading instead (taskgroup.py). Empty when the task ends.
        work: what the task is to apply now, in order.
        wait_ns: when it began to wait for its counter, for traces.
        units, payload_bytes, direct, delegated, waited, given_back: statistics; see GroupStatistics.
    """

    __slots__ = (
        "counter",
        "delegated",
        "direct",
        "gate",
        "given_back",
        "mini",
        "number",
        "payload_bytes",
        "row",
        "units",
        "wait_ns",
        "waited",
        "work",
    )

    def __init__(self, number: int, gate: Gate) -> None:
        self.number = number
        self.gate = gate
        self.row = Row(number)
        self.counter = Counter(number, gate)
        self.mini: deque[WriteUnit] = deque()
        self.work: list[WriteUnit] = []
        self.wait_ns = 0
        self.units = 0
        self.payload_bytes = 0
        self.direct = 0
        self.delegated = 0
        self.waited = 0
        self.given_back = 0
