"""Creates a journal for volumes, and the volumes themselves where a size is given."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mirrortool import files, hostinfo, imageformats, pathowner
from mirrortool.address import PAGE_SIZE_DEFAULT, is_page_size
from mirrortool.errors import UnusableVolumeError, UsageError
from mirrortool.journal import directory
from mirrortool.journal.directory import Journal
from mirrortool.journal.recordercheckpoint import VolumeRecord
from mirrortool.record.scansources import check_apart, inspect_volume, refuse_others
from mirrortool.volume import place
from mirrortool.wording import exact_bytes


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A volume as the user names it.

    Attributes:
        size: bytes; makes a missing file, and must match an existing one.
        address: where it is to start, a multiple of 2^48 below 2^62; by default the lowest that is free.
    """

    name: str
    path: str
    size: int | None = None
    address: int | None = None


def init(
    journal_path: str,
    volumes: Sequence[NewVolume],
    page_size: int = PAGE_SIZE_DEFAULT,
    *,
    raw: bool = False,
    group: int | None = None,
) -> Journal:
    """Make a journal for volumes (410, FIG. 4). On an error, nothing is left on the disk.

    Nothing of the volumes is recorded yet.

    Args:
        raw: whether an image in a container format, such as qcow2, is a volume as it is.
        group: the number of a group that may read journal and volumes that are made; by default no other user may.
    Raises:
        UsageError: page size, names or addresses are not valid, or volumes overlap.
        UnusableVolumeError: a path cannot be a volume.
        AccessError: something else is at `journal_path`, or that lies inside a journal, copy or mirror.
    """
    if not is_page_size(page_size):
        raise UsageError(f"{page_size} is not a page size: that is a power of two from 512 to 65536")
    if any(volume.size is not None and volume.size < 0 for volume in volumes):
        raise UsageError("a volume cannot have less than 0 bytes")
    addresses = {volume.name: volume.address for volume in volumes if volume.address is not None}
    # Placed once with the sizes asked for, so that wrong names and addresses are found before any file is made.
    place([(volume.name, volume.size or 0) for volume in volumes], page_size, addresses)
    pathowner.check_free(journal_path)
    with ExitStack() as undo:
        for volume in volumes:
            refuse_others(volume.path)
            _make_file(volume, group, undo)
        facts = {volume.name: inspect_volume(volume.path) for volume in volumes}
        for volume in volumes:
            _check_size(volume, facts[volume.name].size)
            if not raw:
                _refuse_container(volume)
        paths = {volume.name: files.absolute(volume.path) for volume in volumes}
        check_apart(journal_path if files.exists(journal_path) else files.parent(files.absolute(journal_path)), paths)
        placed = place([(volume.name, facts[volume.name].size) for volume in volumes], page_size, addresses)
        records = {name: VolumeRecord.of(each) for name, each in facts.items()}
        journal = directory.create(journal_path, placed, paths, records, group)
        undo.pop_all()
        return journal


def _make_file(volume: NewVolume, group: int | None, undo: ExitStack) -> None:
    """Make a sparse file of the size asked for, unless something has that path already.

    An empty file has nothing to lose, and may be what a call left that lost its power here.
    """
    facts = files.find_facts(volume.path)
    is_new = facts is None
    if volume.size is None or (facts and (facts.kind != "file" or facts.size)):
        return
    if hostinfo.is_among_devices(volume.path):
        raise UnusableVolumeError("there is no such device", where=volume.path, remedy="check the path")
    with files.open_file(volume.path, write=True, create=is_new, exclusive=is_new, mode=0o600) as file:
        undo.callback(files.remove if is_new else _empty, volume.path)
        if group is not None:
            file.give_access(0o640, group)
        file.truncate(volume.size)
        file.fdatasync()
    files.sync_name(volume.path)


def _empty(path: str) -> None:
    with files.open_file(path, write=True) as file:
        file.truncate(0)


def _refuse_container(volume: NewVolume) -> None:
    with files.open_file(volume.path) as file:
        found = imageformats.container_format(file, file.size())
    if found:
        raise UnusableVolumeError(
            f"is an image in the format {found}, and a volume is raw: the disk's own bytes, from its first to its last",
            where=volume.path,
            remedy="qemu-img convert makes a raw one, or --raw records the container itself as the volume",
        )


def _check_size(volume: NewVolume, size: int) -> None:
    if volume.size is not None and volume.size != size:
        raise UnusableVolumeError(
            f"has {exact_bytes(size)}, not {exact_bytes(volume.size)}",
            where=volume.path,
            remedy="leave the size away to record it as it is",
        )
