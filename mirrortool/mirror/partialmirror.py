"""Mirrors that hold some of their journal's volumes: which of them hold all together, and why none is promoted."""

from __future__ import annotations

from contextlib import suppress

from mirrortool.errors import HostError, MirrortoolError, NotAMirrorError, UnusableVolumeError
from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.wording import quoted_word


def not_whole(mirror: Mirror, journal: Journal) -> UnusableVolumeError:
    """The error for a mirror that is to become a primary and does not hold all: what it lacks, and what helps."""
    lacking = [kept.name for kept in mirror.kept if not kept.is_held]
    held, them = ", ".join(mirror.held), "it" if len(lacking) == 1 else "them"
    others = {path: names for path, names in _others(mirror, journal).items() if names & set(lacking)}
    where = "; ".join(f"{', '.join(sorted(names))} in {path}" for path, names in others.items())
    elsewhere = f" ({where})" if where else ""
    return UnusableVolumeError(
        f"the mirror holds only {held}, and a primary has {', '.join(lacking)}{elsewhere}, too",
        where=mirror.path,
        remedy=f"mirrortool replay {quoted_word(journal.path)} NEW makes a mirror with {them}, too; promote that",
    )


def _others(mirror: Mirror, journal: Journal) -> dict[str, set[str]]:
    """The volumes that each other mirror of the journal holds, by its path, as far as it can be opened here."""
    found: dict[str, set[str]] = {}
    with suppress(MirrortoolError):
        for slot in slots.slots(journal):
            with suppress(NotAMirrorError, HostError):
                other = Mirror(slot.where) if slot.kind == "mirror" else mirror
                if other.uuid != mirror.uuid and other.journal_uuid == mirror.journal_uuid:
                    found[other.path] = set(other.held)
    return found
