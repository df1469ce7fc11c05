"""Opens what a mirror's volume is to be kept in, and refuses what must not be overwritten.

A target must read as zeros before its first use, because that is what the sums of a new mirror say.
"""

from __future__ import annotations

from collections.abc import Iterable

from mirrortool import files, hostinfo, imageformats
from mirrortool.errors import UnusableVolumeError
from mirrortool.files import Facts, File, Identity
from mirrortool.volume import Volume
from mirrortool.wording import exact_bytes

_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)


class Primaries:
    """The volumes that a journal records on this host.

    Attributes:
        identities: their own.
        below: theirs, and those of what they are stored on: devices, and the files behind loop devices.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        """Look at what is there of these paths."""
        self.identities: set[Identity] = set()
        self.below: set[Identity] = set()
        for path in paths:
            if facts := files.find_facts(path):
                self.identities.add(facts.identity)
                self.below |= {facts.identity, *hostinfo.devices_below(path)}


def check_target(path: str, volume: Volume, *, primaries: Primaries, overwrite: bool | None, raw: bool = False) -> None:
    """Whether `path` may be a volume's target; nothing is changed.

    Args:
        primaries: none of them may be a target, hold one, or be stored on one.
        overwrite: whether data that is not ours may be lost; None for an image of our own, where nothing may be.
        raw: whether it may be lost also where it is an image in a container format.
    Raises:
        UnusableVolumeError: it may not, and why.
        LockedError: another process uses it.
    """
    if not files.exists(path):
        check_not_primary(path, None, primaries)
        return
    with open_target(path) as file:
        facts = file.facts()
        check_not_primary(path, facts, primaries)
        if facts.identity.is_device and facts.size < volume.size:
            raise too_small(path, facts.size, volume)
        check_content(file, path, overwrite=overwrite, raw=raw)


def check_not_primary(path: str, facts: Facts | None, primaries: Primaries) -> None:
    """Whether what is at a path, or may be made there, is apart from the primary.

    Args:
        facts: of the opened file or device; None where nothing is.
    Raises:
        UnusableVolumeError: it is not, or there can be nothing.
    """
    if not hostinfo.devices_below(path if facts else files.parent(path)).isdisjoint(primaries.identities):
        raise UnusableVolumeError("lies on the primary's own volume", where=path, remedy="choose another target")
    if facts is None and hostinfo.is_among_devices(path):
        raise UnusableVolumeError("there is no such device", where=path, remedy="check the path")
    if facts and facts.identity in primaries.below:
        its = "this is" if facts.identity in primaries.identities else "this holds"
        raise UnusableVolumeError(f"{its} the primary's own volume", where=path, remedy="choose another target")


def check_content(file: File, path: str, *, overwrite: bool | None, raw: bool) -> None:
    """Whether nothing is lost that is not to be, as check_target has it.

    Raises:
        UnusableVolumeError: it holds data.
    """
    size = file.size()
    if overwrite is not None and not raw and (found := imageformats.container_format(file, size)):
        raise UnusableVolumeError(
            f"holds an image in the format {found}, and a mirror's volume is raw",
            where=path,
            remedy="choose another target, or give --raw with --overwrite if that image may be lost",
        )
    if not overwrite and not reads_as_zeros(file, 0, size):
        named, own = "give --overwrite if that data may be lost", "choose another directory for the mirror"
        raise UnusableVolumeError("the target holds data", where=path, remedy=own if overwrite is None else named)


def prepare_target(path: str, volume: Volume, *, overwrite: bool, group: int | None = None) -> None:
    """Make a target that was checked a sparse file of the volume's size that reads as zeros, or a device that does.

    Args:
        group: the number of one whose members may read a file that is made; by default only the owner may.
    """
    is_new = not files.exists(path)
    with open_target(path, create=True) as file:
        if is_new:
            file.give_access(0o600 if group is None else 0o640, group)
        if overwrite:
            make_zero(file, volume.size)
        if not file.facts().identity.is_device:
            file.truncate(volume.size)
        file.fdatasync()
    files.sync_name(path)


def open_target(path: str, *, create: bool = False, write: bool = True) -> File:
    """Open a target and lock it, a file as QEMU would (OFD lock), a device against mounts (O_EXCL).

    Raises:
        LockedError: a file that another process has locked, or a device that is mounted or held; to write, also one
            with bytes that are used through a loop device.
        UnusableVolumeError: neither a file nor a block device.
    """
    facts = files.find_facts(path)
    if facts is None and not create:
        raise UnusableVolumeError("the volume's file or device is missing", where=path, remedy="put it back")
    is_device = facts is not None and facts.kind == "block device"
    if facts is not None and facts.kind not in ("file", "block device"):
        raise UnusableVolumeError(f"is a {facts.kind}", where=path, remedy="name a file or a block device")
    is_new = create and facts is None
    file = files.open_file(path, write=write, create=is_new, exclusive=is_device and write, mode=0o600)
    try:
        if not is_device:
            file.lock(exclusive=write, what="the volume")
        if write:
            hostinfo.refuse_used(path)
    except BaseException:
        file.close()
        raise
    return file


def too_small(path: str, size: int, volume: Volume) -> UnusableVolumeError:
    """The error for a device that is shorter than its volume."""
    return UnusableVolumeError(
        f"the device has {exact_bytes(size)}, volume {volume.name} needs {exact_bytes(volume.size)}",
        where=path,
        remedy="use a larger one",
    )


def make_zero(file: File, size: int) -> None:
    """Let the first bytes of a device read as zeros, or a file be empty."""
    if file.facts().identity.is_device:
        file.punch(0, size)
    else:
        file.truncate(0)


def reads_as_zeros(file: File, begin: int, size: int) -> bool:
    """Whether there are only zeros from `begin` to before `size`."""
    for start, end in file.data_extents(begin, size):
        for offset in range(start, end, _PIECE):
            data = file.pread(min(_PIECE, end - offset), offset)
            if data != _ZEROS[: len(data)]:
                return False
    return True
