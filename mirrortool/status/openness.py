"""Whether every local user can read what is in a journal or mirror, and take its locks."""

from __future__ import annotations

from mirrortool.access import first_open
from mirrortool.status.found import Found, JournalStatus, MirrorStatus


def open_file(found: Found) -> str | None:
    """A file that everybody on this host may read; None if none was found."""
    if isinstance(found, JournalStatus):
        journal = found.journal
        return first_open([journal.lock_path, *map(journal.file_path, journal.file_starts()[-1:])])
    if isinstance(found, MirrorStatus):
        mirror = found.mirror
        return first_open([mirror.lock_path, *map(mirror.volume_path, mirror.kept)])
    return None
