"""What the kernel says of this host and its devices, in /proc, /sys and /dev.

What it does not say, as on a system other than Linux, is not known; that is not an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from dataclasses import dataclass

from mirrortool.errors import HostError, LockedError
from mirrortool.files import Facts, File, Identity, birth_ns, exists, find_facts, list_directory, open_file, real

_BLKFLSBUF = 0x1261
_SWAPS = "/proc/swaps"
_SWAP = "the system swaps to it"
_WWIDS = (
    ("wwid", "wwid"),  # NVMe
    ("wwid", "device/wwid"),  # SCSI and SATA
    ("dm", "dm/uuid"),
    ("md", "md/uuid"),
    ("serial", "serial"),  # virtio
    ("serial", "device/serial"),  # MMC, among others
)
"""Kinds of names that a disk has for itself, and the files with them, below the disk's directory in sysfs."""
_NOT_UNIQUE = ("serial:", "wwid:t10.")
"""Two disks may have the same name of these kinds: different names tell disks apart, equal names prove nothing."""
_PARTUUIDS = "/dev/disk/by-partuuid"


def boot_id() -> str:
    """A random id that the kernel makes at each boot; empty where the kernel has none."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read(64).decode("ascii", "replace").strip()
    return ""


def process_id() -> int:
    """The id of this process."""
    return os.getpid()


def start_of_process(pid: int) -> int | None:
    """When a process was started, in clock ticks since the boot: tells it from an earlier process with the same id.

    None if there is no such process, or this user may not see it.
    """
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        after_name = file.read(4096).rpartition(b")")[2].split()  # the name may hold spaces and parentheses
        return int(after_name[19])
    return None


def pid_namespace() -> str:
    """The namespace of the process ids that this process sees, as a container has its own; empty if not known."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def devices_below(path: str) -> set[Identity]:
    """The block devices, and the files behind loop devices, that a path is stored on, at any depth (sysfs).

    Of a block device: itself, and what it is made of.
    """
    found: set[Identity] = set()
    waiting = _numbers_of(path)
    while waiting:
        number = waiting.pop()
        device = Identity(0, number, True)
        if device in found:
            continue
        found.add(device)
        waiting += _made_of(number)
        if facts := _backing_facts(number):
            found.add(facts.identity)
            waiting.append(facts.identity.inode if facts.identity.is_device else facts.identity.device)
    return found


def loop_place(identity: Identity) -> tuple[int, ...]:
    """What a loop device is over: the device and inode of its file, and the offset in that, in bytes.

    Empty for any other device, and for a partition.
    """
    facts = _backing_facts(identity.inode) if identity.is_device else None
    with contextlib.suppress(OSError, ValueError), open(f"{_sysfs(identity.inode)}/loop/offset", "rb") as file:
        return (facts.identity.device, facts.identity.inode, int(file.read())) if facts else ()
    return ()


def loop_birth_ns(identity: Identity) -> int:
    """When the file behind a loop device was made, in nanoseconds; 0 for any other device, and where not known."""
    path = _backing_file(identity.inode) if identity.is_device else None
    return birth_ns(path) if path else 0


def _made_of(number: int) -> list[int]:
    """The devices that a device is made of, or is a partition of."""
    device = _sysfs(number)
    places = [f"{device}/slaves/{name}/dev" for name in list_directory(f"{device}/slaves")]
    places += [f"{real(device)}/../dev"] if exists(f"{device}/partition") else []
    return [found for place in places if (found := _read_number(place)) is not None]


def _backing_file(number: int) -> str | None:
    """The file behind a loop device; None for any other device."""
    with contextlib.suppress(OSError), open(f"{_sysfs(number)}/loop/backing_file", "rb") as file:
        return os.fsdecode(file.read().rstrip(b"\n")) or None
    return None


def _backing_facts(number: int) -> Facts | None:
    """The file behind a loop device; None for any other device, and where this user may not look at it."""
    path = _backing_file(number)
    return _look_at(path) if path else None


def _look_at(path: str) -> Facts | None:
    """What is at a path that the kernel names, which this user may not be allowed to look at: then None."""
    with contextlib.suppress(HostError):
        return find_facts(path)
    return None


def _read_number(path: str) -> int | None:
    """A device's number in a file of sysfs, such as `8:1`."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        major, minor = file.read().strip().split(":")
        return os.makedev(int(major), int(minor))
    return None


def _sysfs(number: int) -> str:
    return f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"


def _numbers_of(path: str) -> list[int]:
    """The number of a block device, or of the device that a file is stored on; none if the path does not exist."""
    facts = find_facts(path)
    if facts is None:
        return []
    return [facts.identity.inode if facts.identity.is_device else facts.identity.device]


def refuse_used(path: str) -> None:
    """Refuse a file or device if its bytes are in use by another way than through it.

    Raises:
        LockedError: they are.
    """
    if user := user_of(path):
        remedy = "swapoff it first" if user == _SWAP else "unmount it first"
        raise LockedError(f"is in use: {user}", where=path, remedy=remedy)


def user_of(path: str) -> str | None:
    """What uses the bytes of a file or device, but not through it: a mounted or held loop device, or swap; None if
    nothing does.

    A holder of the device itself is found by opening it exclusively.
    """
    bytes_of = _bytes_of(path)
    for area in _swap_areas():
        if area in bytes_of and not area.is_device:
            return _SWAP
    for number in _loops_over(bytes_of):
        name = real(_sysfs(number)).rpartition("/")[2]
        if Identity(0, number, True) not in bytes_of and _is_used(number):
            return f"it is mounted or held through /dev/{name}"
    return None


def backing_files(path: str) -> list[str]:
    """The files behind loop devices that hold the bytes of a device, where they can be examined; for a file, none."""
    numbers = [identity.inode for identity in _bytes_of(path) if identity.is_device]
    return [file for number in numbers if (file := _backing_file(number)) and _look_at(file)]


def _bytes_of(path: str) -> set[Identity]:
    """A file or device, and the devices and files behind loop devices that have its bytes, down to the first file."""
    found: set[Identity] = set()
    facts = find_facts(path)
    waiting = [facts.identity] if facts else []
    while waiting:
        identity = waiting.pop()
        if identity in found:
            continue
        found.add(identity)
        if identity.is_device:
            waiting += [Identity(0, number, True) for number in _made_of(identity.inode)]
            backing = _backing_facts(identity.inode)
            waiting += [backing.identity] if backing else []
    return found


def _loops_over(bytes_of: set[Identity]) -> list[int]:
    """The numbers of loop devices over any of these, and of loop devices over those in turn."""
    over: dict[int, Identity] = {}
    for name in list_directory("/sys/block"):
        if name.startswith("loop") and (number := _read_number(f"/sys/block/{name}/dev")) is not None:
            facts = _backing_facts(number)
            over |= {number: facts.identity} if facts else {}
    reached, found = set(bytes_of), list[int]()
    while new := [number for number, backing in over.items() if backing in reached and number not in found]:
        found += new
        reached |= {Identity(0, number, True) for number in new}
    return found


def _is_used(number: int) -> bool:
    """Whether a device, or a partition of it, is mounted, swapped to, or held by another device or process."""
    device = real(_sysfs(number))
    name = device.rpartition("/")[2]
    parts = [each for each in list_directory(device) if each.startswith(name)]
    numbers = {number} | {found for each in parts if (found := _read_number(f"{device}/{each}/dev")) is not None}
    if any(list_directory(f"{device}/{each}/holders") for each in ("", *parts)):
        return True
    if any(area.is_device and area.inode in numbers for area in _swap_areas()) or numbers & _mounted():
        return True
    try:  # this also finds mounts in other namespaces, but needs the right to open the device
        open_file(f"/dev/{name}", exclusive=True).close()
    except LockedError:
        return True
    except HostError:
        return False
    return False


def _mounted() -> set[int]:
    """The numbers of the devices that are mounted, as this process sees it."""
    found: set[int] = set()
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            major, _, minor = line.split()[2].partition(b":")
            found.add(os.makedev(int(major), int(minor)))
    return found


def _swap_areas() -> set[Identity]:
    """The files and devices that the system swaps to."""
    found: set[Identity] = set()
    with contextlib.suppress(OSError), open(_SWAPS, "rb") as file:
        for line in file.readlines()[1:]:
            path = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split()[0])
            facts = _look_at(os.fsdecode(path))
            found |= {facts.identity} if facts else set()
    return found


@dataclass(frozen=True, slots=True)
class DiskIds:
    """What identifies a disk or partition, whatever its name and number; empty where the kernel does not tell.

    Attributes:
        wwid: of the whole disk; it begins with the kind of name, `wwid`, `dm`, `md` or `serial`, and a colon.
        partuuid: of a partition; `number:N` where its table has none.
        diskseq: a new number each time that a disk is attached, until the next boot; 0 where not known.
    """

    wwid: str = ""
    partuuid: str = ""
    diskseq: int = 0

    def is_same_disk(self, other: DiskIds) -> bool | None:
        """Whether both are the same disk; None where that is not known."""
        wwid, partuuid = _compare(self.wwid, other.wwid), _compare(self.partuuid, other.partuuid)
        if wwid is False or partuuid is False:
            return False
        is_whole = not self.partuuid and not other.partuuid
        is_unique = not self.wwid.startswith(_NOT_UNIQUE)
        return True if wwid and is_unique and (partuuid or is_whole) else None

    def is_same_attachment(self, other: DiskIds) -> bool | None:
        """Of two in one boot: whether the disk stayed attached in between; None where that is not known."""
        return self.diskseq == other.diskseq if self.diskseq and other.diskseq else None

    def __str__(self) -> str:
        return ", ".join(mark for mark in (self.wwid, self.partuuid and f"partition {self.partuuid}") if mark)


NO_IDS = DiskIds()
"""For what is not a disk, and for a disk of which nothing is known."""


def disk_ids(identity: Identity) -> DiskIds:
    """What identifies a block device (sysfs, and the links of udev)."""
    if not identity.is_device:
        return NO_IDS
    device = real(_sysfs(identity.inode))
    number = _read(f"{device}/partition")
    disk = os.path.dirname(device) if number else device
    found = ((kind, _read(f"{disk}/{name}")) for kind, name in _WWIDS)
    wwid = next((f"{kind}:{name}" for kind, name in found if name), "")
    diskseq = _read(f"{disk}/diskseq")
    return DiskIds(wwid, _partuuid(device, identity, number), int(diskseq) if diskseq.isdecimal() else 0)


def _partuuid(device: str, identity: Identity, number: str) -> str:
    """The PARTUUID of a partition, from the kernel if it is new enough, else from udev."""
    if not number:
        return ""
    for line in _read(f"{device}/uevent").splitlines():
        if line.startswith("PARTUUID="):
            return line.removeprefix("PARTUUID=")
    for name in list_directory(_PARTUUIDS):
        facts = find_facts(f"{_PARTUUIDS}/{name}")
        if facts and facts.identity == identity:
            return name
    return f"number:{number}"


def _compare(one: str, other: str) -> bool | None:
    """Whether two ids are equal; None where one is not known, or they are of different kinds."""
    return one == other if one and other and _kind(one) == _kind(other) else None


def _kind(mark: str) -> str:
    return mark.partition(":")[0] if ":" in mark else ""


def _read(path: str) -> str:
    """A small text of the kernel's, in one piece of printable characters; empty where there is none."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(4096).decode("utf-8", "replace").strip().strip("\0").strip()
    return ""


def file_system_of(identity: Identity) -> str:
    """The kind of the file system that a file is in, such as ext4; empty where not known."""
    number = f"{os.major(identity.device)}:{os.minor(identity.device)}".encode()
    with contextlib.suppress(OSError, IndexError), open("/proc/self/mountinfo", "rb") as file:
        for fields in map(bytes.split, file):
            if fields[2] == number:
                return fields[fields.index(b"-") + 1].decode("ascii", "replace")
    return ""


def sectors_written(identity: Identity) -> int | None:
    """Sectors of 512 bytes ever written to a block device (sysfs `stat`, seventh field); None where not known."""
    path = f"{_sysfs(identity.inode)}/stat"
    with contextlib.suppress(OSError, ValueError, IndexError), open(path, "rb") as file:
        return int(file.read(4096).split()[6])
    return None


def flush_device_cache(file: File) -> None:
    """Forget what the kernel caches of a block device (BLKFLSBUF), so that the next read asks the device."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(file.fileno(), _BLKFLSBUF, 0)


def is_among_devices(path: str) -> bool:
    """Whether a name belongs to a device: a file of that name would be in memory, and made by mistake."""
    directory = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    return f"{directory}/".startswith("/dev/") and not f"{directory}/".startswith("/dev/shm/")
