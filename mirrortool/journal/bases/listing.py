"""The bases of a journal: which there are, and the lock of the process that makes one.

bases/LSN.base  a base, see basefile.py
bases/work/     where one is being made; nothing else reads it
bases/lock      held by a process that makes one, or that removes journal files

A base may lie elsewhere, where the journal's own file system has no room: then its name here is a link to it. What is
elsewhere is named in a link before it is made, and until it is gone, so that no crash leaves a file that nothing names.

Rule: a base that has its name is whole and durable. What a crash leaves has another name, and goes when the next base
is made, or the journal is pruned.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from dataclasses import dataclass

import xxhash

from mirrortool import files
from mirrortool.errors import HostError, JournalError, MissingFileError, NoSpaceError
from mirrortool.files import File
from mirrortool.journal.bases import basefile
from mirrortool.journal.bases.basefile import BaseFile, BaseHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.lsn import Lsn

_ELSEWHERE = re.compile(r"(work|[0-9a-f]+)-([0-9a-f]{8})-[0-9a-f]{4}(?:\.base)?")


@dataclass(frozen=True, slots=True)
class Base:
    """A base by its header, and the bytes of its file."""

    header: BaseHeader
    size: int

    @property
    def position(self) -> Position:
        return self.header.position

    @property
    def lsn(self) -> Lsn:
        return self.header.position.lsn


def bases_path(journal: Journal) -> str:
    return files.join(journal.path, "bases")


def work_path(journal: Journal) -> str:
    """Where one is being made."""
    return files.join(bases_path(journal), "work")


def remove_unfinished(journal: Journal) -> None:
    """Remove what a crash left of a base in the making, which may be as large as the volumes; under `lock_bases`."""
    if files.link_target(work_path(journal)) is None:
        files.remove_tree(work_path(journal))
    else:
        _remove_linked(journal, work_path(journal))
    for name in files.list_directory(bases_path(journal)):
        if name.endswith(".base.new"):
            _remove_linked(journal, files.join(bases_path(journal), name))


def remove_base(journal: Journal, lsn: Lsn) -> None:
    """Remove a base, wherever it lies; the caller makes the removal of its name durable. Under `lock_bases`."""
    path = base_path(journal, lsn)
    if files.link_target(path) is None:
        files.remove(path)
        return
    files.rename(path, f"{path}.new")  # no base any more, and what a crash leaves is found
    _remove_linked(journal, f"{path}.new")


def place_elsewhere(journal: Journal, directory: str, lsn: Lsn | None) -> str:
    """Where a base of this journal lies in another directory; without an LSN, the work for one.

    The name says of which journal it is: copying a journal copies its links, and must not remove what they lead to.
    It is short, because on a full disk there is room for a short link only.
    """
    number = secrets.token_hex(2)
    name = f"work-{_owner(journal)}-{number}" if lsn is None else f"{lsn:x}-{_owner(journal)}-{number}.base"
    return files.join(files.absolute(directory), name)


def link_elsewhere(place: str, path: str) -> None:
    """Make a name here, a link, for what is about to be made there.

    Raises:
        NoSpaceError: there is no room for a link of that length.
    """
    try:
        files.make_link(place, path)
    except NoSpaceError as error:
        where = files.parent(place)
        error.remedy = f"a full disk has room for short links only: make one to {where}, such as /base, and give that"
        raise


def _remove_linked(journal: Journal, path: str) -> None:
    """Remove a name here, and what it leads to, if that is this journal's own."""
    target = files.link_target(path)
    match = _ELSEWHERE.fullmatch(files.base_name(target)) if target else None
    if target and match and match[2] == _owner(journal):
        where = files.join(bases_path(journal), target)
        remove_elsewhere(where)
    files.remove(path)


def remove_elsewhere(place: str) -> None:
    """Remove what a link led to, durably: in another file system, whose order no later removal of the link keeps.

    Else a power cut could bring it back when nothing leads to it any more.
    """
    if files.exists(files.parent(place)):
        files.remove_tree(place) if files.is_directory(place) else files.remove(place)
        files.sync_name(place)


def _owner(journal: Journal) -> str:
    """Tells this directory of this journal from any other."""
    facts = files.find_facts(bases_path(journal))
    inode = facts.identity.inode if facts else 0
    return xxhash.xxh32_hexdigest(journal.uuid + inode.to_bytes(8, "big"))


def base_path(journal: Journal, lsn: Lsn) -> str:
    """Where the base of this LSN is, or the link to it."""
    return files.join(bases_path(journal), basefile.file_name(lsn))


def base_lsns(journal: Journal) -> list[Lsn]:
    """LSNs of the bases that are there, ascending."""
    parsed = map(basefile.parse_file_name, files.list_directory(bases_path(journal)))
    return sorted(lsn for lsn in parsed if lsn is not None)


def open_base(journal: Journal, lsn: Lsn) -> BaseFile:
    """Open the base of this LSN.

    Raises:
        JournalError: it is damaged, or another journal's.
        MissingFileError: it lies elsewhere, and is not there.
        AccessError: it is not there any more.
    """
    path = base_path(journal, lsn)
    try:
        return BaseFile(journal, path, lsn)
    except HostError as error:
        target = files.link_target(path) if isinstance(error.__cause__, FileNotFoundError) else None
        if target is None:
            raise
        where = files.parent(target)
        raise MissingFileError(
            f"base {lsn} is kept in {where}, and is not there",
            where=path,
            remedy=f"mount or bring back {where}; if that base is gone for good, remove this link",
        ) from None


def bases(journal: Journal, missing: list[MissingFileError] | None = None) -> list[Base]:
    """All bases, by their headers, ascending.

    Args:
        missing: takes in those that lie elsewhere, and are not there.
    Raises:
        JournalError: the header of one is damaged.
        MissingFileError: one is missing, and there is no `missing`.
    """
    found = []
    for lsn in base_lsns(journal):
        try:
            with open_base(journal, lsn) as base:
                found.append(Base(base.header, base.size))
        except MissingFileError as error:
            if missing is None:
                raise
            missing.append(error)
        except HostError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # removed since
                raise
    return found


def find_missing(journal: Journal) -> MissingFileError | None:
    """The error for the first base that lies elsewhere, and is not there; damage of others is for verify to find."""
    missing: list[MissingFileError] = []
    with suppress(JournalError, HostError):
        bases(journal, missing)
    return missing[0] if missing else None


def lock_bases(journal: Journal) -> File:
    """No other process makes a base or removes journal files until the returned file is closed.

    Raises:
        LockedError: another process does.
        AccessError: the journal cannot be written.
    """
    files.make_directory(bases_path(journal), exist_ok=True)
    return files.open_locked(files.join(bases_path(journal), "lock"), "the set of the journal's bases")
