"""The directory of a copy before anything of a journal is known of it: whether it may be one, its lock, and its id."""

from __future__ import annotations

import secrets
from contextlib import suppress

from mirrortool import files, jsonfile, lockholder, pathowner
from mirrortool.errors import AccessError, NotAJournalError
from mirrortool.files import File
from mirrortool.journal.directory import share_slots
from mirrortool.journal.pathkind import in_the_way, names_where_ours_is_made

ID_BYTES = 16
_BEGUN = {"files", "slots", "lock", "copy.json", "copy.json.new", "journal.json.new"}


def is_primary(path: str) -> bool:
    """Whether a journal's directory is one that this host records, or recorded."""
    return any(files.exists(files.join(path, name)) for name in ("local.json", "recorder.json"))


def lock_copy(path: str, group: int | None = None) -> File:
    """Lock the copy until the returned file is closed; a missing directory is made.

    Args:
        group: the number of one whose members may read a new copy; by default only the owner may.
    Raises:
        AccessError: the directory is not a copy, or would lie inside a journal, copy or mirror.
        LockedError: another process appends to it.
    """
    if pathowner.kind_of(path) is None:
        pathowner.check_free(path)
    check_is_copy(path)
    if not files.exists(files.join(path, "journal.json")):
        files.claim_directory(path, group)
        if group is not None:
            share_slots(path)
    return lockholder.hold(files.join(path, "lock"), "the copy", "receive")


def makes_a_commit(path: str) -> str:
    """The remedy where a journal has no commit yet, or a copy of one."""
    return "mirrortool record makes one" if is_primary(path) else "mirrortool ship, where its journal is, sends one"


def check_is_copy(path: str) -> None:
    """Raise AccessError unless a copy is there, or was begun."""
    if is_primary(path):
        raise AccessError("a primary's journal is here, not a copy", where=path, remedy="choose another path")
    names = names_where_ours_is_made(path)
    if "journal.json" not in names and names - _BEGUN:
        raise in_the_way(path)


def check_is_there(path: str, slot: str, where: str) -> None:
    """A copy is there, as a sender's slot is of one, to which it ships, or shipped, as `where`.

    Raises:
        NotAJournalError: none is, as where a file system is not mounted.
    """
    if not any(files.exists(files.join(path, name)) for name in ("copy.json", "journal.json")):
        raise NotAJournalError(
            f"no copy here, but slot {slot} of the sender's journal is of one, {where}",
            where=path,
            remedy="mount the file system that it is on; for another copy give ship another --slot, and to make it "
            "anew, or if it is gone for good, --replace-slot",
        )


def load_id(path: str) -> bytes:
    """The copy's id; one that was copied by other means gets one now, and one with a file that is not valid another."""
    where = files.join(path, "copy.json")
    with suppress(NotAJournalError):
        fields = jsonfile.load(where, NotAJournalError)
        if fields is not None:
            return fields.hexadecimal("id", ID_BYTES)
    new = secrets.token_bytes(ID_BYTES)
    jsonfile.save(where, {"id": new.hex()})
    return new
