"""What the kernel says of this host and its devices, in /proc, /sys and /dev.

What it does not say, as on another system than Linux, is not known, and no error.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from mirrortool.files import File, Identity, exists, find_facts, list_directory, real

_BLKFLSBUF = 0x1261


def boot_id() -> str:
    """A random id that the kernel makes at each boot; empty where there is none to ask."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read(64).decode("ascii", "replace").strip()
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
        base = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
        numbers = [f"{base}/slaves/{name}/dev" for name in list_directory(f"{base}/slaves")]
        numbers += [f"{real(base)}/../dev"] if exists(f"{base}/partition") else []
        for place in numbers:
            with contextlib.suppress(OSError, ValueError), open(place, encoding="ascii") as file:
                major, minor = file.read().strip().split(":")
                waiting.append(os.makedev(int(major), int(minor)))
        with contextlib.suppress(OSError), open(f"{base}/loop/backing_file", "rb") as file:
            behind = os.fsdecode(file.read().rstrip(b"\n"))
            facts = find_facts(behind)
            found |= {facts.identity} if facts else set()
            waiting += _numbers_of(behind)
    return found


def _numbers_of(path: str) -> list[int]:
    """The number of a block device, or of the device that a file is stored on; none of what is not there."""
    facts = find_facts(path)
    if facts is None:
        return []
    return [facts.identity.inode if facts.identity.is_device else facts.identity.device]


def sectors_written(identity: Identity) -> int | None:
    """Sectors of 512 bytes ever written to a block device (sysfs `stat`, seventh field); None where not known."""
    path = f"/sys/dev/block/{os.major(identity.inode)}:{os.minor(identity.inode)}/stat"
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
