"""Makes a journal for volumes, and the volumes themselves where a size is given."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mirrortool import files, host
from mirrortool.address import is_page_size
from mirrortool.errors import UnusableVolumeError, UsageError
from mirrortool.journal import directory
from mirrortool.journal.directory import Journal, VolumeRecord
from mirrortool.record.sources import check_apart, inspect_volume
from mirrortool.volume import place


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A volume as the user names it; a size in bytes makes a missing file, and must match an existing one."""

    name: str
    path: str
    size: int | None = None


def init(journal_path: str, volumes: Sequence[NewVolume], page_size: int) -> Journal:
    """Make a journal; nothing of the volumes is recorded yet. On an error, nothing is left behind.

    Raises:
        UsageError: page size or names make no sense.
        UnusableVolumeError: a path cannot be a volume.
        AccessError: something else is at `journal_path`.
    """
    if not is_page_size(page_size):
        raise UsageError(f"{page_size} is no page size: a power of two from 512 to 65536")
    # Placed once with the sizes asked for, so that wrong names are found before any file is made.
    place([(volume.name, volume.size or 0) for volume in volumes], page_size)
    with ExitStack() as undo:
        for volume in volumes:
            _make_file(volume, undo)
        facts = {volume.name: inspect_volume(volume.path) for volume in volumes}
        for volume in volumes:
            _check_size(volume, facts[volume.name].size)
        paths = {volume.name: files.absolute(volume.path) for volume in volumes}
        check_apart(journal_path if files.exists(journal_path) else files.parent(files.absolute(journal_path)), paths)
        placed = place([(volume.name, facts[volume.name].size) for volume in volumes], page_size)
        records = {name: VolumeRecord.of(each) for name, each in facts.items()}
        journal = directory.create(journal_path, placed, paths, records)
        undo.pop_all()
        return journal


def _make_file(volume: NewVolume, undo: ExitStack) -> None:
    """Make a sparse file of the size asked for, unless something is there."""
    if volume.size is None or files.exists(volume.path):
        return
    if host.is_among_devices(volume.path):
        raise UnusableVolumeError("there is no such device", where=volume.path, remedy="check the path")
    with files.open_file(volume.path, write=True, create=True, exclusive=True) as file:
        undo.callback(files.remove, volume.path)
        file.truncate(volume.size)
        file.fdatasync()
    files.sync_name(volume.path)


def _check_size(volume: NewVolume, size: int) -> None:
    if volume.size is not None and volume.size != size:
        raise UnusableVolumeError(
            f"has {size} bytes, not {volume.size}",
            where=volume.path,
            remedy="leave the size away to record it as it is",
        )
