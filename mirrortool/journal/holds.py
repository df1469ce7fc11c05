"""Holds: what processes read of a journal at this moment, so that none of it is removed meanwhile.

slots/LSN-RANDOM.hold  LSN, in 16 hexadecimal digits, is that of the base which is read, or 0: that base, and all
                       journal files with later LSNs, stay. Its holder has it locked, and says in it what it does
                       (lockholder.py).

Rule: a hold counts while it is locked. One that is not was left by a process that is gone: it counts for nothing, and
goes when the slots are locked the next time for one of these.
Rule: a hold is made, and what holds keep is removed, under `slots.locked`; so none is made for what is just going.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from mirrortool import files, lockholder
from mirrortool.errors import AccessError, HostError, LockedError
from mirrortool.files import File
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import slots_path
from mirrortool.lockholder import Worker
from mirrortool.lsn import Lsn

_NAME = re.compile(r"([0-9a-f]{16})-[0-9a-f]{8}\.hold")


@dataclass(frozen=True, slots=True)
class JournalHold:
    """What a running process keeps.

    Attributes:
        lsn: of the base that it reads, or 0; that base stays, and everything after this LSN.
        worker: the process, as far as it is known.
    """

    lsn: Lsn
    worker: Worker

    @property
    def holds_back(self) -> bool:
        """As a slot that holds back."""
        return True

    @property
    def needs_lsn(self) -> Lsn:
        """The first LSN of the journal files that stay."""
        return Lsn(self.lsn + 1)

    @property
    def why(self) -> str:
        """What keeps it, for people."""
        process = f"process {self.worker.pid}" if self.worker.pid else "a process"
        return f"{process} reads it ({self.worker.doing})" if self.worker.doing else f"{process} reads it"


class Holding:
    """A hold of this process; `close` gives it up."""

    def __init__(self, file: File) -> None:
        self._file = file

    def close(self) -> None:
        with suppress(HostError):
            files.remove(self._file.path)
        self._file.close()


def hold(journal: Journal, lsn: Lsn, doing: str) -> Holding:
    """Keep the base of an LSN, and all that follows that LSN; under `slots.locked`.

    Args:
        lsn: 0 to keep the whole journal.
        doing: what this process says that it does.
    Raises:
        AccessError, NoSpaceError: the journal cannot be written.
    """
    path = files.join(slots_path(journal), f"{lsn:016x}-{secrets.token_hex(4)}.hold")
    return Holding(lockholder.hold(path, "what is read", doing))


def holds(journal: Journal) -> list[JournalHold]:
    """What running processes keep, the oldest LSN first."""
    found = []
    for path, lsn in _paths(journal):
        with suppress(_GoneError):
            if worker := _worker(path):
                found.append(JournalHold(lsn, worker))
    return sorted(found, key=lambda hold: hold.lsn)


def remove_dead(journal: Journal) -> None:
    """Remove what processes left that are gone; under `slots.locked`."""
    for path, _ in _paths(journal):
        with suppress(_GoneError):
            if _worker(path) is None:
                files.remove(path)


def check_not_held(journal: Journal, first_lsn: Lsn, doing: str) -> None:
    """Raise LockedError if a running process reads what lies before an LSN; under `slots.locked`."""
    for hold in holds(journal):
        if hold.needs_lsn < first_lsn:
            raise LockedError(
                f"cannot {doing}, because {hold.why}", where=journal.path, remedy="wait for it, or stop it"
            )


class _GoneError(Exception):
    pass


def _paths(journal: Journal) -> Iterator[tuple[str, Lsn]]:
    for name in files.list_directory(slots_path(journal)):
        if match := _NAME.fullmatch(name):
            yield files.join(slots_path(journal), name), Lsn(int(match[1], 16))


def _worker(path: str) -> Worker | None:
    """The process that has a hold locked; one of which nothing is known, if this user may not ask."""
    try:
        return lockholder.find_worker(path)
    except AccessError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _GoneError from None
        return Worker()
