"""Where an exported volume goes: a new file, a block device, or a stream.

Rule: a file gets its name when it is whole and durable; until then it has another, which is removed if it does not come
to that. What a killed export left under that name, the next one begins anew.
Rule: what is exported never replaces the primary's own volume, nor what belongs to a journal, copy or mirror.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from mirrortool import files, hostinfo, pathowner, pipes
from mirrortool.errors import AccessError, HostError, LockedError, UnusableVolumeError
from mirrortool.files import Buffer, File
from mirrortool.mirror.targetvolume import Primaries, check_target, open_target, prepare_target
from mirrortool.mirror.volumelabels import check_targets
from mirrortool.volume import Volume

PART_SUFFIX = ".mirrortool-part"
_ZEROS = memoryview(bytes(1 << 20))


class ExportTarget(Protocol):
    """What takes the bytes of a volume; all of it that is not written reads as zeros in the end.

    Attributes:
        is_ordered: writes must come in the order of their offsets.
        left_behind: what is there of an export that is abandoned, as a phrase.
    """

    is_ordered: bool
    left_behind: str

    def write(self, offset: int, data: memoryview) -> None:
        """Take some bytes; from several threads, unless they must come in order."""

    def finish(self) -> None:
        """All was written: make it durable under its name."""

    def abandon(self) -> None:
        """Give up what was begun. Never raises, and does nothing after `finish`."""


def open_export_target(path: str, volume: Volume, primaries: Primaries, *, overwrite: bool) -> ExportTarget:
    """The file or device at a path, checked.

    Args:
        primaries: the volumes that are recorded.
        overwrite: whether what is there may be lost.
    Raises:
        UnusableVolumeError: something is there that may not be, or it is the primary's own volume, or a mirror's.
        AccessError: it lies inside a journal, copy or mirror, or is a symbolic link to a file.
        LockedError: another process uses it.
    """
    facts = files.find_facts(path)
    if facts and facts.kind == "block device":
        check_targets({volume.name: path})
        check_target(path, volume, primaries=primaries, overwrite=overwrite, raw=True)
        return _Device(path, volume, overwrite=overwrite)
    if facts and facts.kind != "file":
        remedy = "name a file or a block device, or - for standard output"
        raise UnusableVolumeError(f"is a {facts.kind}", where=path, remedy=remedy)
    _check_place(path, facts is not None)
    if facts:
        check_targets({volume.name: path})
        check_target(path, volume, primaries=primaries, overwrite=True, raw=True)
        if not overwrite:
            remedy = "give --overwrite if it may be lost, or choose another file"
            raise UnusableVolumeError("exists already", where=path, remedy=remedy)
    return _NewFile(path, volume.size, overwrite=overwrite)


def _check_place(path: str, is_there: bool) -> None:
    """A file may be made at a path, as far as that tells."""
    pathowner.check_free(path)
    if files.link_target(path) is not None:
        raise AccessError(
            "is a symbolic link, and an exported file would replace it", where=path, remedy="name the file itself"
        )
    if not is_there and hostinfo.is_among_devices(path):
        raise UnusableVolumeError("there is no such device", where=path, remedy="check the path")


class _NewFile:
    """A file that is not there yet, or that is replaced; sparse."""

    is_ordered = False
    left_behind = "no file was made"

    def __init__(self, path: str, size: int, *, overwrite: bool) -> None:
        self._path, self._overwrite = path, overwrite
        self._part = path + PART_SUFFIX
        self._file = self._make()
        try:
            self._file.truncate(0)
            self._file.truncate(size)
        except BaseException:
            self.abandon()
            raise

    def write(self, offset: int, data: memoryview) -> None:
        self._file.pwrite(data, offset)

    def finish(self) -> None:
        self._file.fdatasync()
        if not self._overwrite and files.exists(self._path):
            remedy = "choose another file"
            raise UnusableVolumeError("was made by somebody else meanwhile", where=self._path, remedy=remedy)
        files.rename(self._part, self._path)
        self._file.close()

    def abandon(self) -> None:
        if self._file.fileno() >= 0:
            with suppress(HostError):
                files.remove(self._part)
            self._file.close()

    def _make(self) -> File:
        """Under its first name, locked, so that no two exports write into one."""
        file = files.open_file(self._part, write=True, create=True, mode=0o600)
        try:
            file.lock(exclusive=True, what="the file")
            if not file.is_in_place():  # the export that had it has just finished
                raise LockedError("another export has just written it", where=self._path, remedy="run this once more")
            if file.facts().kind != "file":
                raise AccessError("is not a file", where=self._part, remedy="remove it")
        except BaseException:
            file.close()
            raise
        return file


class _Device:
    """A block device that is at least as large as the volume; what comes after that is not touched."""

    is_ordered = False
    left_behind = "the device holds a part of it only"

    def __init__(self, path: str, volume: Volume, *, overwrite: bool) -> None:
        prepare_target(path, volume, overwrite=overwrite)
        self._file = open_target(path, write=True)

    def write(self, offset: int, data: memoryview) -> None:
        self._file.pwrite(data, offset)

    def finish(self) -> None:
        self._file.fdatasync()
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


class ExportStream:
    """An open descriptor that takes bytes in order, zeros included; it stays open."""

    is_ordered = True
    left_behind = "a part of it was written"

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size
        self._at = 0

    def write(self, offset: int, data: memoryview) -> None:
        self._fill_up_to(offset)
        self._put(data)

    def finish(self) -> None:
        self._fill_up_to(self._size)

    def abandon(self) -> None:
        """What was written was written."""

    def _fill_up_to(self, offset: int) -> None:
        while self._at < offset:
            self._put(_ZEROS[: offset - self._at])

    def _put(self, data: Buffer) -> None:
        left = [data]
        try:
            while left:
                pipes.wait_writable(self._descriptor, _LOOK_SECONDS)
                left = list(pipes.write_pipe(self._descriptor, left))
        except HostError as error:
            if isinstance(error.__cause__, BrokenPipeError):
                raise error.__cause__ from None  # the reader has seen enough: main ends as any filter does
            error.where = "standard output"
            raise
        self._at += len(data)


_LOOK_SECONDS = 1.0
"""A descriptor that somebody made non-blocking is asked this often whether it takes more."""
