"""An operating system whose disk fails, lies, gets stuck or loses power when a test says so.

Takes the place of the module `os` in files.py and openfile.py, below every method of `File`, so that every change comes
through here, whatever way it goes. The files are real ones. Each call that changes something is numbered and handed to
a `fault` before it is done. The fault may raise OSError or PowerCut, or return what becomes of the call:

    None         it is done
    a function   a write has the buffers that this makes of its own: a device that corrupts
    DROPPED      it says that it was done, and nothing was: of a write the cache has nothing either; a sync that lies
    UNWRITTEN    the cache has what was written, and says at the next sync that the medium had it, too, which is not so
    Short(n)     n bytes of a write are written
    Stuck        it waits until the test releases it
and raise LosingSync(code) in a sync: what did not get to the device is dropped, and the next sync succeeds.

Calls that change nothing (open, read) are handed to `reads`, if there is one, and not numbered. What is durable, and
what a power cut may leave, is in diskstate.py. A read past the cache (O_DIRECT), or after drop_cache, is of the medium.

What lies below `elsewhere` is another machine's: there no call is numbered or fails, and the power stays on. Each of
`hosts` is a directory that is a host's with a disk of its own (`disk_of`), which loses its power alone.
`devices` are paths of files that are block devices to the program: they have a size that stays, and no holes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import stat
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from mirrortool import files, openfile
from tests.fakes.diskfaults import BLOCK as BLOCK
from tests.fakes.diskfaults import CHANGING as CHANGING
from tests.fakes.diskfaults import DROPPED as DROPPED
from tests.fakes.diskfaults import UNWRITTEN as UNWRITTEN
from tests.fakes.diskfaults import Call as Call
from tests.fakes.diskfaults import Fault as Fault
from tests.fakes.diskfaults import FullDisk as FullDisk
from tests.fakes.diskfaults import LosingSync as LosingSync
from tests.fakes.diskfaults import PowerCut as PowerCut
from tests.fakes.diskfaults import Short as Short
from tests.fakes.diskfaults import Stuck as Stuck
from tests.fakes.diskfaults import cut_at as cut_at
from tests.fakes.diskfaults import fail_at as fail_at
from tests.fakes.diskfaults import is_checkpoint as is_checkpoint
from tests.fakes.diskfaults import is_journal as is_journal
from tests.fakes.diskfaults import is_sums as is_sums
from tests.fakes.diskfaults import is_volume as is_volume
from tests.fakes.diskfaults import lose_at as lose_at
from tests.fakes.diskfaults import no_fault as no_fault
from tests.fakes.diskfaults import nth as nth
from tests.fakes.disknodes import ANY_ORDER, Node, Reality, Survivors
from tests.fakes.diskstate import DiskState


class Disk:
    """What of the files of one host is durable. Its lock is DiskOs's: one call at a time.

    Attributes:
        is_off: the host has no power: no call changes anything any more.
    """

    def __init__(self, lock: AbstractContextManager[object], reality: Reality, seed: int) -> None:
        self._lock = lock
        self.state = DiskState(reality, seed)
        self.is_off = False

    def dirty(self) -> dict[str, bytes]:
        """By the path of each file that is not durable, what the medium has of it."""
        with self._lock:
            return self.state.dirty()

    def medium(self, path: object) -> bytes:
        """The bytes of a file that no power cut can lose."""
        with self._lock:
            return self.state.medium(str(path))

    @contextmanager
    def written_by_others(self, path: object) -> Iterator[None]:
        """What changes a file meanwhile did not come through here, and nobody makes it durable."""
        with self._lock, open(str(path), "rb") as file:
            node = self.state.write_before(file.fileno())
            yield
            if node:
                node.written(0, node.cached())

    def forget_cache(self) -> None:
        """From now on every file reads as the medium has it, but for what is still to be written."""
        with self._lock:
            self.state.evict_all()

    def keep(self, path: str) -> None:
        """What is below this path is on another machine, which does not lose its power."""
        with self._lock:
            self.state.keep(lambda each: each == path or each.startswith(f"{path}/"))

    def cut_power(self, chance: random.Random) -> Survivors:
        """Leave one of the states that may survive, as chance says, in the real files."""
        with self._lock:
            survivors = self.state.survivors(chance)
            self.state.cut(survivors)
        return survivors

    def lose_all_but_newest(self) -> None:
        """Cut the power when of what was not synced only the newest change had got to the medium."""
        with self._lock:
            self.state.cut(self.state.newest_alone())

    def lose_all(self) -> None:
        """Cut the power when nothing that was not synced had got to the medium."""
        with self._lock:
            self.state.cut(self.state.oldest())


class DiskOs:
    """`os` in files.py and openfile.py."""

    def __init__(
        self,
        fault: Fault,
        elsewhere: str | None = None,
        *,
        reads: Fault | None = None,
        reality: Reality = ANY_ORDER,
        seed: int = 0,
        devices: Collection[str] = (),
        hosts: Collection[str] = (),
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        """Nothing is dirty.

        Args:
            lock: in place of one of its own, for a test that lets only one thread run, and lets a fault wait.
        """
        self._fault, self._reads = fault, reads
        # Owned here, and lent to the disks: one changing call at a time, with its fault, so that the model has the
        # order that the files have. A fault may make calls of its own, in its thread. No call waits for another under
        # it.
        self._lock = threading.RLock() if lock is None else lock
        self._count = 0
        self._devices = {_identity(os.stat(path)): path for path in devices}
        self.calls: list[Call] = []
        self.disk = Disk(self._lock, reality, seed)
        self._places = [(f"{host}/", Disk(self._lock, reality, seed)) for host in hosts]
        self._elsewhere = elsewhere

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def disk_of(self, path: str) -> Disk | None:
        """The disk that has a path from the root; None if it is another machine's."""
        if self._elsewhere is not None and path.startswith(self._elsewhere):
            return None
        return next((disk for place, disk in self._places if f"{path}/".startswith(place)), self.disk)

    # Data.

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        return self.pwritev(descriptor, [data], offset, name="pwrite")

    def pwritev(self, descriptor: int, buffers: Sequence[Any], offset: int, name: str = "pwritev") -> int:
        with self._changing(name, descriptor) as outcome:
            if outcome is DROPPED:
                return sum(map(len, buffers))
            if callable(outcome):
                buffers = outcome(buffers)
            if isinstance(outcome, Short):
                buffers = [b"".join(buffers)[: max(1, outcome.count)]]
            return self._write(descriptor, buffers, offset, outcome is UNWRITTEN)

    def _write(self, descriptor: int, buffers: Sequence[Any], offset: int, is_lost: bool) -> int:
        size = self._device_size(descriptor)
        if size is not None:
            buffers = [b"".join(buffers)[: max(0, size - offset)]]
            if not buffers[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        node = self._before(descriptor)
        count = os.pwritev(descriptor, buffers, offset)
        if node and is_lost:
            node.drop(offset, count)
        elif node:
            node.written(offset, b"".join(buffers)[:count], is_direct=_is_direct(descriptor))
        return count

    def write(self, descriptor: int, data: bytes) -> int:
        """What a lock file says; not numbered, as nobody relies on it."""
        disk = self._disk_at(descriptor)
        if disk and disk.is_off:
            return len(data)
        with self._lock:
            return os.write(descriptor, data)

    def ftruncate(self, descriptor: int, size: int) -> None:
        with self._changing("ftruncate", descriptor) as outcome:
            if self._device_size(descriptor) is not None:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            if outcome is not DROPPED:
                node = self._before(descriptor)
                os.ftruncate(descriptor, size)
                if node:
                    node.resized(size)

    def fallocate(self, descriptor: int, mode: int, offset: int, length: int) -> int:
        """In place of openfile._libc_fallocate: 0 or an errno."""
        try:
            with self._changing("punch" if mode & 2 else "reserve", descriptor) as outcome:
                if outcome is DROPPED:
                    return 0
                node = self._before(descriptor) if mode & 2 else None
                code = _fallocate(descriptor, mode, offset, length)
                if node and not code and (end := min(offset + length, os.fstat(descriptor).st_size)) > offset:
                    node.written(offset, bytes(end - offset))
                return code
        except OSError as error:
            return error.errno or errno.EIO

    def fdatasync(self, descriptor: int) -> None:
        self._sync("fdatasync", descriptor)

    def fsync(self, descriptor: int) -> None:
        self._sync("fsync", descriptor)

    def _sync(self, name: str, descriptor: int) -> None:
        disk = self._disk_at(descriptor)
        try:
            with self._changing(name, descriptor) as outcome:
                if disk and outcome is not DROPPED:
                    disk.state.sync(descriptor)
        except LosingSync as lost:
            with self._lock:
                if disk:
                    disk.state.fail_sync(descriptor, lost.share)
            raise

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        self._reading("pread", descriptor, offset, length)
        return os.pread(descriptor, length, offset)

    def preadv(self, descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        self._reading("preadv", descriptor, offset, sum(map(len, buffers)))
        return os.preadv(descriptor, buffers, offset)

    def _reading(self, name: str, descriptor: int, offset: int, length: int) -> None:
        self._ask_reads(name, descriptor)
        if self._has_dropped() and _is_direct(descriptor):
            self._evict(descriptor, offset, length)

    def posix_fadvise(self, descriptor: int, offset: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED and self._has_dropped():
            self._evict(descriptor, offset, length)
        os.posix_fadvise(descriptor, offset, length, advice)

    def _has_dropped(self) -> bool:
        return any(disk.state.has_dropped for disk in (self.disk, *(disk for _, disk in self._places)))

    def _evict(self, descriptor: int, offset: int, length: int) -> None:
        with self._lock:
            if disk := self._disk_at(descriptor):
                disk.state.evict(descriptor, offset, length)

    # Names.

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        assert not flags & (os.O_TRUNC | os.O_DSYNC), "the model does not know that"
        self._ask_reads("open", path=path)
        if not flags & os.O_CREAT or os.path.lexists(path):
            return os.open(path, flags, mode)
        with self._changing("create", path=path):
            descriptor = os.open(path, flags, mode)
            self._named(path, None)
            return descriptor

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        if os.path.lexists(path):
            os.mkdir(path, mode)
            return
        with self._changing("mkdir", path=path):
            os.mkdir(path, mode)
            self._named(path, None)

    def symlink(self, target: str, path: str) -> None:
        if os.path.lexists(path):
            os.symlink(target, path)
            return
        with self._changing("symlink", path=path):
            os.symlink(target, path)
            self._named(path, None)

    def unlink(self, path: str) -> None:
        self._remove("unlink", os.unlink, path)

    def rmdir(self, path: str) -> None:
        self._remove("rmdir", os.rmdir, path)

    def _remove(self, name: str, function: Callable[[str], None], path: str) -> None:
        if not os.path.lexists(path):
            function(path)
            return
        with self._changing(name, path=path):
            disk = self.disk_of(os.path.abspath(path))
            node = disk.state.name_before(path) if disk else None
            try:
                function(path)
            finally:
                if disk and not os.path.lexists(path):
                    disk.state.named(path, node, None)

    def rename(self, source: str, target: str) -> None:
        with self._changing("rename", path=target):
            disk = self.disk_of(os.path.abspath(target)) if os.path.lexists(source) else None
            moved = disk.state.name_before(source) if disk else None
            replaced = disk.state.name_before(target) if disk else None
            os.rename(source, target)
            if disk and moved:
                disk.state.renamed(source, target, moved, replaced)

    def _named(self, path: str, before: Node | None) -> None:
        if disk := self.disk_of(os.path.abspath(path)):
            disk.state.named(path, before, disk.state.name_before(path))

    # Files that are block devices to the program.

    def fstat(self, descriptor: int) -> os.stat_result:
        return self._seen(os.fstat(descriptor))

    def stat(self, path: Any) -> os.stat_result:
        return self._seen(os.stat(path))

    def _seen(self, found: os.stat_result) -> os.stat_result:
        if _identity(found) not in self._devices:
            return found
        names = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        mode = stat.S_IFBLK | stat.S_IMODE(found.st_mode)
        changed = {"st_mode": mode, "st_rdev": os.makedev(259, found.st_ino & 0xFFFFF), "st_size": 0}
        return SimpleNamespace(**{**names, **changed})  # type: ignore[return-value]

    def lseek(self, descriptor: int, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE) and self._device_size(descriptor) is not None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.lseek(descriptor, offset, whence)

    def ioctl(self, descriptor: int, request: int, argument: bytes = b"") -> Any:
        """In place of fcntl.ioctl, which asks a device for its size, or for zeros."""
        size = self._device_size(descriptor)
        if size is None:
            return fcntl.ioctl(descriptor, request, argument)
        if request == openfile._BLKGETSIZE64:
            return struct.pack("Q", size)
        if request != openfile._BLKZEROOUT:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        offset, length = struct.unpack("QQ", argument)
        with self._changing("zero", descriptor) as outcome:
            if outcome is not DROPPED:
                self._write(descriptor, [bytes(length)], offset, outcome is UNWRITTEN)
        return argument

    def _device_size(self, descriptor: int) -> int | None:
        if not self._devices:
            return None
        found = os.fstat(descriptor)
        return found.st_size if _identity(found) in self._devices else None

    # Faults.

    def _before(self, descriptor: int) -> Node | None:
        disk = self._disk_at(descriptor)
        return disk.state.write_before(descriptor) if disk else None

    def _disk_at(self, descriptor: int) -> Disk | None:
        return self.disk_of(path_of(descriptor))

    @contextmanager
    def _changing(self, name: str, descriptor: int = -1, path: str | None = None) -> Iterator[object]:
        """What the fault says of a call, which is then done before another begins."""
        path = os.path.abspath(path or path_of(descriptor))
        disk = self.disk_of(path)
        if disk is None:
            yield None
            return
        outcome = self._ask(disk, name, path)
        if isinstance(outcome, Stuck):
            outcome = outcome.wait()  # others continue meanwhile
        with self._lock:
            if disk.is_off:
                raise PowerCut
            yield outcome

    def _ask(self, disk: Disk, name: str, path: str) -> object:
        with self._lock:
            if disk.is_off:
                raise PowerCut
            self._count += 1
            call = Call(self._count, name, path)
            self.calls.append(call)
            try:
                return self._fault(call)
            except PowerCut:
                disk.is_off = True
                raise

    def _ask_reads(self, name: str, descriptor: int = -1, path: str | None = None) -> None:
        if self._reads is None:
            return
        path = os.path.abspath(path or path_of(descriptor))
        if self.disk_of(path):
            outcome = self._reads(Call(self._count, name, path))
            if isinstance(outcome, Stuck):
                outcome.wait()


def path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


class _Fcntl:
    """`fcntl` in openfile.py."""

    def __init__(self, system: DiskOs) -> None:
        self.ioctl = system.ioctl

    def __getattr__(self, name: str) -> Any:
        return getattr(fcntl, name)


@contextmanager
def faulty(fault: Fault, elsewhere: str | None = None, **options: Any) -> Iterator[DiskOs]:
    """Let the whole tool run on an operating system with this fault, which what is below `elsewhere` does not have."""
    system = DiskOs(fault, elsewhere, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", system)
        patch.setattr(openfile, "os", system)
        patch.setattr(openfile, "fcntl", _Fcntl(system))
        patch.setattr(openfile, "_libc_fallocate", system.fallocate)
        yield system


_fallocate = openfile._libc_fallocate
