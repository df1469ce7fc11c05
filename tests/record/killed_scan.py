"""A scan in a process of its own that is killed at its n-th changing call, after some of it if it writes.

Arguments: the journal, and n.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from mirrortool.journal.directory import Journal
from mirrortool.journal.writer import JournalWriter
from mirrortool.record import recovery
from mirrortool.record import scan as scan_module
from mirrortool.replay import readback
from mirrortool.store import parallelread
from tests.fakes.disk import Call, Fault, Short, faulty

_WRITTEN = 300


def make_small() -> None:
    """Many small frames, files and updates of the table where ordinary sizes would make one of each."""
    parallelread.PIECE_BYTES = readback.PIECE_BYTES = 4096
    scan_module.PENDING_PAGES = 24

    def writer(journal: Journal, end: Any, **options: Any) -> JournalWriter:
        return JournalWriter(journal, end, file_bytes=6000, **options)

    recovery.JournalWriter = writer  # type: ignore[misc, assignment]  # a function in the place of the class


def die_at(number: int, die: Callable[[], object]) -> Fault:
    """Call `die` at the n-th call, from 1, after some of its data was written, and at each later one."""

    def fault(call: Call) -> object:
        if call.number == number and call.name.startswith("pwrite"):
            return Short(_WRITTEN)  # the writer continues with the remainder
        return die() if call.number >= number else None

    return fault


if __name__ == "__main__":
    make_small()
    dying = die_at(int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    with faulty(dying), scan_module.Scan(sys.argv[1]) as scan:
        scan.run()
