"""A scan in a process of its own that is killed at its n-th call of File, half way through it if it writes.

Arguments: the journal, and n.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from mirrortool import files
from mirrortool.files import File
from mirrortool.journal.directory import Journal
from mirrortool.journal.writer import JournalWriter
from mirrortool.record import recovery
from mirrortool.record import scan as scan_module
from mirrortool.replay import readback
from mirrortool.store import parallelread

CALLS = ("pwrite", "pwritev", "fdatasync", "truncate", "punch")


def make_small() -> None:
    """Many small frames, files and updates of the table where ordinary sizes would make one of each."""
    parallelread.PIECE_BYTES = readback.PIECE_BYTES = 4096
    scan_module.PENDING_PAGES = 24

    def writer(journal: Journal, end: Any, **options: Any) -> JournalWriter:
        return JournalWriter(journal, end, file_bytes=6000, **options)

    recovery.JournalWriter = writer  # type: ignore[misc, assignment]  # a function in the place of the class


def die_at(number: int, die: Callable[[], None]) -> None:
    """Call `die` at the n-th call, from 1, after half of its data was written."""
    left = number

    def dying(name: str) -> Callable[..., object]:
        real = getattr(File, name)

        def call(self: File, *args: Any) -> object:
            nonlocal left
            left -= 1
            if left <= 0:
                if name.startswith("pwrite") and left == 0:
                    data = args[0] if name == "pwrite" else b"".join(args[0])
                    os.pwrite(self.fileno(), bytes(data)[: len(data) // 2], args[1])
                die()
            return real(self, *args)

        return call

    for name in CALLS:
        setattr(File, name, dying(name))
    real_rename, real_open = files.rename, files.open_file

    def open_file(path: str, **how: Any) -> File:
        """Not counted; but another thread of what is dead makes no file any more."""
        if left <= 0:
            die()
        return real_open(path, **how)

    files.open_file = open_file

    def rename(source: str, target: str) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            die()
        real_rename(source, target)

    files.rename = rename


if __name__ == "__main__":
    make_small()
    die_at(int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    with scan_module.Scan(sys.argv[1]) as scan:
        scan.run()
