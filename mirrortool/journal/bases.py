"""The bases of a journal: which there are, and the lock of who makes one.

bases/LSN.base  a base, see basefile.py
bases/work/     where one is being made; nobody else reads it
bases/lock      held by who makes one, and by who removes journal files

Rule: a base that has its name is whole and durable. What a crash leaves has another name, and goes when the next base
is made, or the journal is pruned.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import HostError
from mirrortool.files import File
from mirrortool.journal import basefile
from mirrortool.journal.basefile import BaseFile, BaseHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position


@dataclass(frozen=True, slots=True)
class Base:
    """A base by its header, and the bytes of its file."""

    header: BaseHeader
    size: int

    @property
    def position(self) -> Position:
        return self.header.position

    @property
    def lsn(self) -> int:
        return self.header.position.lsn


def bases_path(journal: Journal) -> str:
    return files.join(journal.path, "bases")


def work_path(journal: Journal) -> str:
    """Where one is being made."""
    return files.join(bases_path(journal), "work")


def remove_unfinished(journal: Journal) -> None:
    """Remove what a crash left of a base in the making, which may be as large as the volumes; under `lock_bases`."""
    files.remove_tree(work_path(journal))
    for name in files.list_directory(bases_path(journal)):
        if name.endswith(".base.new"):
            files.remove(files.join(bases_path(journal), name))


def base_path(journal: Journal, lsn: int) -> str:
    """Where the base of this LSN is."""
    return files.join(bases_path(journal), basefile.file_name(lsn))


def base_lsns(journal: Journal) -> list[int]:
    """LSNs of the bases that are there, ascending."""
    parsed = map(basefile.parse_file_name, files.list_directory(bases_path(journal)))
    return sorted(lsn for lsn in parsed if lsn is not None)


def open_base(journal: Journal, lsn: int) -> BaseFile:
    """Open the base of this LSN.

    Raises:
        JournalError: it is damaged, or another journal's.
        AccessError: it is not there any more.
    """
    return BaseFile(journal, base_path(journal, lsn), lsn)


def bases(journal: Journal) -> list[Base]:
    """All bases, by their headers, ascending.

    Raises:
        JournalError: the header of one is damaged.
    """
    found = []
    for lsn in base_lsns(journal):
        try:
            with open_base(journal, lsn) as base:
                found.append(Base(base.header, base.size))
        except HostError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # removed since
                raise
    return found


def lock_bases(journal: Journal) -> File:
    """Nobody else makes a base or removes journal files until the returned file is closed.

    Raises:
        LockedError: somebody does.
        AccessError: the journal cannot be written.
    """
    files.make_directory(bases_path(journal), exist_ok=True)
    return files.open_locked(files.join(bases_path(journal), "lock"), "the set of the journal's bases")
