"""Whether every local user can read what is in a journal or mirror, and take its locks.

Not here: the volumes of a primary, a promoted mirror's included. Their owners decide who may read them.
"""

from __future__ import annotations

from mirrortool.exposure import first_open
from mirrortool.status.snapshot import Found, JournalStatus, MirrorStatus


def world_readable_file(found: Found) -> str | None:
    """A file that everybody on this host may read; None if none was found."""
    if isinstance(found, JournalStatus):
        journal = found.journal
        return first_open([journal.lock_path, *map(journal.file_path, journal.file_starts()[-1:])])
    if isinstance(found, MirrorStatus):
        mirror = found.mirror
        holders = [] if mirror.promoted else mirror.holders()
        return first_open([mirror.lock_path, *(holder.path for holder in holders)])
    return None
