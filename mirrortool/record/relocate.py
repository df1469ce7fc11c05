"""Relocates volumes: notes in a journal where they are now, after they were moved.

Nothing is recorded here. Whether a path really has the volume, the next record finds out.
"""

from __future__ import annotations

from collections.abc import Mapping

from mirrortool import files
from mirrortool.errors import NotAJournalError, UsageError
from mirrortool.journal.directory import Journal
from mirrortool.record.recovery import require_checkpoint
from mirrortool.record.scansources import check_apart, inspect_volume, refuse_others


def set_volume_paths(journal_path: str, paths: Mapping[str, str]) -> Mapping[str, str]:
    """Note paths by the names of volumes; returns those of before, without volumes whose path was not known.

    Raises:
        UsageError: the journal has no such volume.
        UnusableVolumeError: a path cannot be a volume of this journal.
        NotAJournalError: no journal here, or a copy: the volumes are on another host.
        LockedError: it is being recorded.
    """
    with Journal(journal_path).lock("volume set"):
        journal = Journal(journal_path)  # as it is under the lock
        require_checkpoint(journal)
        for name, path in paths.items():
            if name not in journal.volumes:
                known = ", ".join(volume.name for volume in journal.volumes)
                raise UsageError(
                    f"the journal has no volume {name}", where=journal.path, remedy=f"its volumes: {known}"
                )
            inspect_volume(path, remedy="check the path")
            refuse_others(path)
        before = _paths_before(journal, paths)
        now = {**before, **{name: files.absolute(path) for name, path in paths.items()}}
        # Other volumes may have been moved, too, and are named later.
        check_apart(journal.path, {name: path for name, path in now.items() if files.exists(path)})
        journal.save_volume_paths(now)
    return before


def _paths_before(journal: Journal, new: Mapping[str, str]) -> Mapping[str, str]:
    """Where the volumes were; a file that cannot be parsed counts as empty, if it is written anew as a whole."""
    try:
        return journal.volume_paths()
    except NotAJournalError:
        if any(volume.name not in new for volume in journal.volumes):
            raise
        return {}
