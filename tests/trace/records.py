"""Records of a trace, written by hand."""

from __future__ import annotations

from typing import Any

from mirrortool.lsn import Lsn
from mirrortool.replay.tracing import Divided, Started, TraceRecord, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace.check import Checker
from mirrortool.trace.violation import Violation

STARTED = Started("journal", "mirror", 4096, 0)
TASKS = 64


def plan(at_ns: int = 0, groups: int = 2, tasks: int = TASKS) -> Divided:
    return Divided(at_ns, "equal", groups, tasks, "op", "buffered")


def unit(sequence: int, start_ns: int, end_ns: int, *runs: tuple[int, int], **others: Any) -> UnitRun:
    """A unit, by default of a task of its own and of page 0."""
    values: dict[str, Any] = {"group": 0, "task": sequence % TASKS, "payload_bytes": 0, "how": How.DIRECT, **others}
    return UnitRun(
        sequence, Lsn(sequence + 100), footprint=runs or ((0, 1),), start_ns=start_ns, end_ns=end_ns, **values
    )


def violations(*records: TraceRecord) -> list[Violation]:
    """What is wrong with a replay's records after the first two."""
    found: list[Violation] = []
    checker = Checker(found.append)
    for record in (STARTED, plan(), *records):
        checker.add(record)
    checker.finish()
    return found


def rules(*records: TraceRecord) -> list[str]:
    """The rules that they break."""
    return [violation.rule.value for violation in violations(*records)]
