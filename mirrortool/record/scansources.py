"""The sources of a scan: opens volumes and snapshots, refuses others, and tells whether one changed meanwhile."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from mirrortool import clock, files, hostinfo, pathowner
from mirrortool.errors import ChangedOutsideError, LockedError, UnusableVolumeError
from mirrortool.files import Facts, File
from mirrortool.journal.directory import Journal
from mirrortool.journal.recordercheckpoint import VolumeRecord
from mirrortool.mirror import volumelabels
from mirrortool.mirror.directory import is_promoted
from mirrortool.record.volumeidentity import find_other
from mirrortool.store.flat import FlatStore
from mirrortool.store.interface import Store
from mirrortool.volume import VolumeSet
from mirrortool.wording import exact_bytes, quoted_word

_IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
_TIMESTAMP_NS = 20_000_000
"""File systems stamp times in steps of a kernel tick, at most 10 ms: a change within one leaves the same time."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open volume, or the snapshot that stands for it.

    Attributes:
        facts: as they were when it was opened.
        sectors: written to the device by then; None for a file.
        is_snapshot: whether it stands for the volume.
        is_held: whether another process has the device mounted or open exclusively, so that changes may pass unseen.
        must_reread: whether stores through a mapping (mmap) leave no trace in the file's times, as in memory nothing is
            ever written back; only its bytes tell then.
    """

    name: str
    file: File
    facts: Facts
    sectors: int | None
    is_snapshot: bool
    is_held: bool
    must_reread: bool = False

    def store(self, volumes: VolumeSet) -> Store:
        """A store of this volume alone among all of a journal; closing the file closes it."""
        return FlatStore(volumes, {self.name: self.file})

    def changed(self) -> str | None:
        """What shows that it may have changed since it was opened; None if nothing does."""
        self.file.fdatasync()
        now = self.file.facts()
        if self.is_held:
            return "the device is mounted or held by another process"
        if now.size != self.facts.size:
            return f"its size changed from {exact_bytes(self.facts.size)} to {exact_bytes(now.size)}"
        if self.facts.identity.is_device:
            return self._device_changed()
        is_same = (now.modified_ns, now.changed_ns) == (self.facts.modified_ns, self.facts.changed_ns)
        return None if is_same else "the file was written"

    def _device_changed(self) -> str | None:
        if self.sectors is None:
            return "the system does not tell whether the device was written"
        return "the device was written" if hostinfo.sectors_written(self.facts.identity) != self.sectors else None


def inspect_volume(path: str, *, remedy: str = "check the path; init makes a file of a given size") -> Facts:
    """What is at a volume's path: a file or a block device, with its size.

    Args:
        remedy: of the error where nothing exists.
    Raises:
        UnusableVolumeError: anything else, or nothing.
    """
    found = files.find_facts(path)
    if found is None:
        raise UnusableVolumeError("does not exist", where=path, remedy=remedy)
    if found.kind not in ("file", "block device"):
        raise UnusableVolumeError(f"is a {found.kind}", where=path, remedy="name a file or a block device")
    with files.open_file(path) as file:
        return file.facts()


def open_source(name: str, path: str, *, is_snapshot: bool = False) -> Source:
    """Open a volume or snapshot for reading. It is not locked: a scan must not stand in a virtual machine's way."""
    inspect_volume(path)
    file = files.open_file(path)
    try:
        facts = file.facts()
        if not facts.identity.is_device and clock.now_ns() - facts.modified_ns < _TIMESTAMP_NS:
            clock.sleep(_TIMESTAMP_NS / 1e9)
            facts = file.facts()
        # What waits to be written goes now: then a store through a mapping (mmap) changes the file's times again, and
        # what is buffered of a device counts as sectors. Facts first, sectors after, so that nothing falls between.
        file.fdatasync()
        file.expect_sequential()
        sectors = hostinfo.sectors_written(facts.identity) if facts.identity.is_device else None
        is_device = facts.identity.is_device
        must_reread = not is_device and hostinfo.file_system_of(facts.identity) in _IN_MEMORY
        return Source(name, file, facts, sectors, is_snapshot, is_device and _is_held(path), must_reread)
    except BaseException:
        file.close()
        raise


def check_identity(source: Source, record: VolumeRecord | None) -> None:
    """Check that the volume is the file or device that was recorded before.

    Raises:
        ChangedOutsideError: it was replaced. That may be an atomic update, or a disk that is not mounted.
    """
    if record is None:
        return
    if problem := find_other(record, VolumeRecord.of(source.facts)):
        raise ChangedOutsideError(
            f"volume {source.name}: {problem}",
            where=source.file.path,
            remedy="if it is the right one, record --scan accepts it as it is",
        )


def refuse_others(path: str) -> None:
    """Check that a volume lies in no journal, copy or mirror, and belongs to none, unless a mirror that was promoted.

    Raises:
        UnusableVolumeError: it does.
    """
    owner = pathowner.find_owner_of_bytes(path)
    if owner and not (owner.kind == "mirror" and is_promoted(owner.path)):
        raise UnusableVolumeError(
            f"lies inside the {owner.kind} {owner.path}", where=path, remedy="choose another volume"
        )
    found = volumelabels.belonging(path)
    if found and found.is_there:
        raise UnusableVolumeError(
            f"belongs to the mirror {found.path}",
            where=path,
            remedy=f"mirrortool promote {quoted_word(found.path)} makes it a primary's",
        )


def paths_of(journal: Journal) -> dict[str, str]:
    """Where the volumes of a journal are, by their names.

    Raises:
        UnusableVolumeError: the path of one is not known.
    """
    paths = journal.volume_paths()
    for volume in journal.volumes:
        if volume.name not in paths:
            raise UnusableVolumeError(
                f"no path is known for volume {volume.name}",
                where=journal.path,
                remedy=_moved(journal.path, volume.name),
            )
    return paths


def _moved(journal_path: str, name: str) -> str:
    return f"mirrortool volume set {quoted_word(journal_path)} {name}=PATH says where it is now"


def check_apart(journal_path: str, paths: Mapping[str, str], *, recorded: Container[str] = ()) -> None:
    """Check that no two volumes are the same, and that the journal is not kept on any of them.

    Args:
        recorded: names of those that the journal has at these paths.
    Raises:
        UnusableVolumeError: recording would feed on itself.
    """
    below = hostinfo.devices_below(journal_path)
    seen: dict[object, str] = {}
    for name, path in paths.items():
        remedy = _moved(journal_path, name) if name in recorded else "check the path"
        identity = inspect_volume(path, remedy=remedy).identity
        if identity in seen:
            raise UnusableVolumeError(
                f"volumes {seen[identity]} and {name} are one and the same", where=path, remedy="name it once"
            )
        seen[identity] = name
        if identity in below:
            raise UnusableVolumeError(
                f"the journal {journal_path} lies on this volume", where=path, remedy="keep it somewhere else"
            )


def _is_held(path: str) -> bool:
    try:
        files.open_file(path, exclusive=True).close()
    except LockedError:
        return True
    return False
