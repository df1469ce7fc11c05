"""Which processes use a journal or mirror: its recorder or receiver, what replays into it, what serves a slot.

Known by locks alone (lockholder.py). Of another host, or of what this user may not ask for, it is not known.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import HostError, MirrortoolError
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import Slot, slots_path
from mirrortool.lockholder import Worker, beside, find_worker
from mirrortool.mirror.directory import Mirror


@dataclass(frozen=True, slots=True)
class Work:
    """Whether a process is running, and which.

    Attributes:
        is_on: None if that is not known.
        worker: None if none is running; with empty fields if it is not known which.
    """

    is_on: bool | None = None
    worker: Worker | None = None


UNKNOWN = Work()


def work_on_journal(journal: Journal) -> Work:
    """What appends to it, or will do so again and again."""
    return _held(files.join(journal.path, "lock"), beside(journal.path, "recorder"))


def work_on_mirror(path: str) -> Work:
    """What replays into it, or promotes it."""
    return _held(files.join(path, "lock"), beside(path, "follower"))


def work_of_slot(journal: Journal, slot: Slot) -> Work:
    """What uses the slot: a process that ships through it, or replays into the mirror, if that is on this host."""
    if slot.via:
        return UNKNOWN
    if slot.kind == "ship":
        return _held(beside(slots_path(journal), slot.name))
    with suppress(MirrortoolError):
        if Mirror(slot.where).uuid.hex() == slot.owner:
            return work_on_mirror(slot.where)
    return UNKNOWN


def _held(*paths: str) -> Work:
    """What holds the first of these lock files that is held."""
    try:
        worker = next((found for path in paths if (found := find_worker(path))), None)
    except HostError:
        return UNKNOWN
    return Work(worker is not None, worker)
