"""The registry of volumes that cannot carry a label themselves: devices, and files without extended attributes.

/var/lib/mirrortool                     of root
$XDG_STATE_HOME/mirrortool              of any other user; by default ~/.local/state/mirrortool
$MIRRORTOOL_STATE_DIRECTORY             in place of both

`volumes/UUID-NAME.json`, one for each volume NAME of the mirror UUID, replaced atomically. A device is known by what
the kernel says identifies it, and a loop device by its file; where nothing does, by its number until the next boot.

Rule: nothing depends on an entry: what cannot be read or written is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from mirrortool import accounts, files, hostinfo, jsonfile
from mirrortool.errors import HostError, NotAMirrorError
from mirrortool.files import Identity
from mirrortool.hostinfo import DiskIds
from mirrortool.jsonfile import Fields

PLACE = "MIRRORTOOL_STATE_DIRECTORY"
_OF_ROOT = "/var/lib/mirrortool"
_PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """A volume in the registry: of which mirror it is, and what identifies it."""

    mirror: str
    path: str
    volume: str
    known: Known


@dataclass(frozen=True, slots=True)
class Known:
    """What identifies a file or device.

    Attributes:
        boot_id: of the kernel that gave the numbers.
        disk: of a device, what the kernel says of it.
        backing: of a loop device, the device and inode of its file, and the offset in it, in bytes; else empty.
        born_ns: when the file, or that of a loop device, was made: a later one may get its inode; 0 if unknown.
    """

    identity: Identity
    boot_id: str
    disk: DiskIds
    backing: tuple[int, ...]
    born_ns: int

    @classmethod
    def of(cls, identity: Identity, path: str) -> Known:
        born_ns = hostinfo.loop_birth_ns(identity) if identity.is_device else files.birth_ns(path)
        return cls(identity, hostinfo.boot_id(), hostinfo.disk_ids(identity), hostinfo.loop_place(identity), born_ns)

    def is_same(self, now: Known) -> bool:
        """Whether `now` is the file or device that this was noted of, as far as can be told."""
        if self.identity.is_device != now.identity.is_device:
            return False
        if self.born_ns and now.born_ns and self.born_ns != now.born_ns:
            return False
        in_this_boot = bool(now.boot_id) and self.boot_id == now.boot_id
        if not self.identity.is_device:
            return self.identity == now.identity or (not in_this_boot and self.identity.inode == now.identity.inode)
        if self.backing or now.backing:
            return self.backing == now.backing or (not in_this_boot and self.backing[1:] == now.backing[1:] != ())
        is_same_disk = self.disk.is_same_disk(now.disk)
        if is_same_disk is not None:
            return is_same_disk
        is_attached = self.disk.is_same_attachment(now.disk) is not False
        return in_this_boot and self.identity == now.identity and is_attached

    def to_json(self) -> dict[str, object]:
        return {
            "device": self.identity.device,
            "inode": self.identity.inode,
            "is_device": self.identity.is_device,
            "boot_id": self.boot_id,
            "wwid": self.disk.wwid,
            "partuuid": self.disk.partuuid,
            "diskseq": self.disk.diskseq,
            "backing": list(self.backing),
            "born_ns": self.born_ns,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Known:
        return cls(
            Identity(fields.integer("device"), fields.integer("inode"), fields.flag("is_device")),
            fields.text("boot_id"),
            DiskIds(fields.text("wwid"), fields.text("partuuid"), fields.integer("diskseq")),
            tuple(fields.integers("backing")),
            fields.integer("born_ns"),
        )


def place() -> str:
    """The directory of this user's registry."""
    if given := os.environ.get(PLACE):
        return given
    home = accounts.home()
    if home is None:
        return _OF_ROOT
    state = os.environ.get("XDG_STATE_HOME", "")
    below = state if state.startswith("/") else files.join(home, ".local", "state")
    return files.join(below, "mirrortool")


def note(mirror: str, path: str, volume: str, where: str, identity: Identity) -> None:
    """A volume of a mirror is the file or device `where`; best effort."""
    known = Known.of(identity, where)
    with suppress(HostError):
        if any(each == RegistryEntry(mirror, path, volume, known) for each in _entries()):
            return
        for each in list(_entries()):
            if each.mirror != mirror and each.known.is_same(known):
                _remove(each)
        values = {"mirror": mirror, "path": path, "volume": volume, "where": where, **known.to_json()}
        _make_directories(_volumes())
        jsonfile.save(_file_of(mirror, volume), values)


def find(path: str, identity: Identity) -> list[RegistryEntry]:
    """What is noted of the file or device at a path."""
    entries = list(_entries())
    if not entries or files.find_facts(path) is None:
        return []
    known = Known.of(identity, path)
    return [each for each in entries if each.known.is_same(known)]


def forget(mirror: str) -> None:
    """A mirror has no volumes any more; best effort."""
    for each in list(_entries()):
        if each.mirror == mirror:
            _remove(each)


def forget_volume(path: str, identity: Identity) -> None:
    """The file or device at a path is not a mirror's any more; best effort."""
    for each in find(path, identity):
        _remove(each)


def _entries() -> Iterator[RegistryEntry]:
    directory = _volumes()
    names: list[str] = []
    with suppress(HostError):
        names = files.list_directory(directory)
    for name in names:
        if name.endswith(".json"):
            with suppress(HostError, NotAMirrorError):
                if fields := jsonfile.load(files.join(directory, name), NotAMirrorError):
                    mirror = fields.hexadecimal("mirror", 16).hex()
                    yield RegistryEntry(mirror, fields.text("path"), fields.text("volume"), Known.from_json(fields))


def _remove(entry: RegistryEntry) -> None:
    with suppress(HostError):
        files.remove(_file_of(entry.mirror, entry.volume))


def _volumes() -> str:
    return files.join(place(), "volumes")


def _file_of(mirror: str, volume: str) -> str:
    return files.join(_volumes(), f"{mirror}-{volume}.json")


def _make_directories(path: str) -> None:
    if not files.is_directory(path):
        _make_directories(files.parent(path))
        files.make_directory(path, exist_ok=True, mode=_PRIVATE)
