"""What a trace can show to be wrong with a replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mirrortool.lsn import Lsn


class Rule(Enum):
    """What was broken; the values are those of --json. mirrortool-trace(1), What is proved, has them in this order."""

    ORDER = "order"
    TOGETHER = "together"
    GROUPS = "groups"
    MISSING = "missing"
    TWICE = "twice"
    DRAIN = "drain"
    FAILED = "failed"
    TASK = "task"
    SENT = "sent"
    WAIT = "wait"
    PLAN = "plan"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a unit broke.

    Attributes:
        what: in words, with times as seconds since the file's first plan.
        replay: which one in the file, from 1.
        sequence, lsn: of the unit; without an LSN where no line tells it.
        other_sequence, other_lsn: of the unit that it is compared with.
        page: one that both have.
    """

    rule: Rule
    what: str
    replay: int
    sequence: int
    lsn: Lsn | None = None
    other_sequence: int | None = None
    other_lsn: Lsn | None = None
    page: int | None = None


class UnitTimes(Protocol):
    """A unit, as far as a violation shows it."""

    @property
    def sequence(self) -> int: ...
    @property
    def lsn(self) -> Lsn: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...


class Reporter:
    """Makes violations of one replay, and hands them on."""

    def __init__(self, replay: int, note: Callable[[Violation], None], zero_ns: int) -> None:
        """Times are told since `zero_ns`."""
        self._replay = replay
        self._note = note
        self._zero_ns = zero_ns

    def compare(self, rule: Rule, what: str, unit: UnitTimes, other: UnitTimes, page: int | None = None) -> None:
        """Report what is wrong between two units; `what` follows the name of the first."""
        where = "" if page is None else f", both on page {page:#x}"
        text = f"{name(unit)} {what} {name(other)}{where}: {self._times(unit)} and {self._times(other)}"
        self._note(Violation(rule, text, self._replay, unit.sequence, unit.lsn, other.sequence, other.lsn, page))

    def report(self, rule: Rule, what: str, unit: UnitTimes) -> None:
        """Report what is wrong with a unit."""
        text = f"{name(unit)} {what}: {self._times(unit)}"
        self._note(Violation(rule, text, self._replay, unit.sequence, unit.lsn))

    def report_number(self, rule: Rule, what: str, sequence: int) -> None:
        """Report what is wrong with a number of which there is no unit."""
        self._note(Violation(rule, what, self._replay, sequence))

    def at(self, time_ns: int) -> str:
        """A time, with all its digits."""
        since = time_ns - self._zero_ns
        seconds, rest = divmod(abs(since), 10**9)
        return f"{'-' * (since < 0)}{seconds}.{rest:09d} s"

    def _times(self, unit: UnitTimes) -> str:
        return f"{self.at(unit.start_ns)} to {self.at(unit.end_ns)}"


def name(unit: UnitTimes) -> str:
    """A unit in a text."""
    return f"unit {unit.sequence} (LSN {unit.lsn})"
