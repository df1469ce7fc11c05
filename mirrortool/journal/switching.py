"""JOURNAL/bases/arriving: whether a base has begun to take the place of a copy's older files, and must be finished.

Rule: from when the base has its name until the file with its commit has, nobody reads the journal, as it has neither
what was before nor what follows; see arriving.py, which does it and finishes it.
"""

from __future__ import annotations

from mirrortool import files
from mirrortool.errors import UnfinishedArrivalError
from mirrortool.journal import format as layout

PART = ".part"


def arriving_path(journal_path: str) -> str:
    """Where what arrives is meanwhile."""
    return files.join(journal_path, "bases", "arriving")


def due_file(journal_path: str) -> int | None:
    """The first LSN of the journal file that is due in files/; None if no base is taking the place of others."""
    names = files.list_directory(arriving_path(journal_path))
    first_lsns = [lsn for lsn in map(layout.parse_file_name, names) if lsn is not None]
    return first_lsns[0] if first_lsns and not any(name.endswith(PART) for name in names) else None


def check_none_due(journal_path: str) -> None:
    """No base is taking the place of older files.

    Raises:
        UnfinishedArrivalError: one is, or was when that was interrupted.
    """
    if due_file(journal_path) is not None:
        raise UnfinishedArrivalError(
            "a base is taking the place of older files, or was when its receiver ended",
            where=journal_path,
            remedy="the next mirrortool ship to this copy finishes that, and so does replay or promote",
        )
