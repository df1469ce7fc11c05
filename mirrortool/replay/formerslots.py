"""Slots that name the place of a mirror, but belong to another mirror than the one in this place now.

This is how it looks when the file system of the mirror is not mounted: a replay would fill the mount point with a
second mirror. It looks the same when the mirror is made anew; the user must say so, and then these slots go.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from mirrortool import files
from mirrortool.errors import HostError, LockedError, NotAMirrorError, UsageError
from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import Slot


def former_slots(journal: Journal, path: str, owner: str | None) -> list[Slot]:
    """The slots in this journal of other mirrors than `owner` that are, or were, at a path of this host."""
    here = files.absolute(path), files.real(path)
    return [
        slot
        for slot in slots.slots(journal)
        if slot.kind == "mirror"
        and not slot.via
        and slot.owner != owner
        and (slot.where == here[0] or files.real(slot.where) == here[1])
    ]


def slots_to_go(journal: Journal, former: Sequence[Slot], name: str | None) -> list[Slot]:
    """Those that go with --replace-slot: the one that the user named, or the only one.

    Raises:
        UsageError: several are, as of disks that are mounted in turn.
    """
    if name:
        return [slot for slot in former if slot.name == name]
    if len(former) > 1:
        raise UsageError(
            f"slots {' and '.join(slot.name for slot in former)} are all of mirrors at this path",
            where=journal.path,
            remedy="name the one that is gone for good with --slot",
        )
    return list(former)


def check_place(journal: Journal, path: str, former: Sequence[Slot], name: str | None, *, is_new: bool) -> None:
    """A mirror may be made at a path, or have its first slot there, beside the slots of earlier ones in this place.

    Args:
        name: of the slot that the user gave. One that the journal does not have is another mirror's, as of disks that
            are mounted in turn.
    Raises:
        NotAMirrorError: it may not.
        UsageError: the slot is another mirror's.
    """
    named = slots.find_slot(journal, name) if name else None
    if is_new and named and named not in former:
        raise slots.belongs_to_another(journal, named, files.absolute(path))
    if not former or (name and named is None):
        return
    slot = former[0]
    anew = "to make it anew, or if it is gone for good, give --replace-slot"
    if is_new:
        raise NotAMirrorError(
            f"no mirror here, but slot {slot.name} of the journal is of one, at LSN {slot.position.lsn}",
            where=path,
            remedy=f"mount the file system that it is on; {anew}",
        )
    raise NotAMirrorError(
        f"is another mirror than the one that slot {slot.name} of the journal is of",
        where=path,
        remedy="mount the right file system; if the other one is gone for good, give --replace-slot, else --slot NAME",
    )


def drop_former(journal: Journal, former: Sequence[Slot]) -> None:
    """Forget the slots of mirrors that were made anew; a name that another mirror uses by now stays."""
    for slot in former:
        with suppress(LockedError, HostError, UsageError):
            found = slots.find_slot(journal, slot.name)
            if found and found.owner == slot.owner:
                slots.drop(journal, slot.name)
