"""An open file or block device, and what the operating system does with its descriptor.

With files.py, which opens it, the one place that calls the operating system's file functions: every error leaves as
HostError with the path in it (errors.host_error). A fault test replaces a method of `File`.
Not here: what any byte means.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mirrortool.errors import LockedError, host_error

Buffer = bytes | bytearray | memoryview
IOV_MAX = 1024
ALIGNMENT = mmap.PAGESIZE
"""What is written with O_DIRECT begins and ends at multiples of this, in memory and in the file."""
NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY)
"""What a file system says that does not know a call."""
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_BLKGETSIZE64 = 0x80081272
_BLKZEROOUT = 0x127F
_ZERO_CHUNK = bytes(1 << 20)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a volume from every other: a file by device and inode, a block device by its number."""

    device: int
    inode: int
    is_device: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What stat says of a file or block device. Times in nanoseconds; sizes in bytes."""

    identity: Identity
    size: int
    allocated: int
    modified_ns: int
    changed_ns: int
    kind: str


class File:
    """An open file or block device. Safe to use from several threads, as its calls carry their offsets."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._fd = descriptor
        self._scribbled = 0

    def __enter__(self) -> File:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor, and with it every lock, back."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            if self._scribbled:
                _scribble(descriptor, bytes(self._scribbled))
            os.close(descriptor)

    def fileno(self) -> int:
        return self._fd

    def scribble(self, data: bytes) -> None:
        """Put a few bytes at the start until the file is closed, if that can be done: nobody relies on them."""
        self._scribbled = len(data)
        _scribble(self._fd, data)

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""
        data = self._call("read", os.pread, length, offset)
        while len(data) < length:
            more = self._call("read", os.pread, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def pread_into(self, buffers: Sequence[memoryview], offset: int) -> int:
        """Fill the buffers in order; returns the bytes read, fewer only at the end of the file."""
        wanted = sum(len(buffer) for buffer in buffers)
        got = self._call("read", os.preadv, buffers, offset)
        while 0 < got < wanted:
            more = self._call("read", os.preadv, remainder_of(buffers, got), offset + got)
            if not more:
                break
            got += more
        return got

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of it."""
        written = self._call("write", os.pwrite, data, offset)
        while written < len(data):
            written += self._call("write", os.pwrite, memoryview(data)[written:], offset + written)

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all buffers, one after another; any number of them."""
        if len(buffers) > IOV_MAX:
            for start in range(0, len(buffers), IOV_MAX):
                part = buffers[start : start + IOV_MAX]
                self.pwritev(part, offset)
                offset += sum(len(buffer) for buffer in part)
            return
        wanted = sum(map(len, buffers))
        written = self._call("write", os.pwritev, buffers, offset)
        while written < wanted:
            remainder = remainder_of([memoryview(buffer) for buffer in buffers], written)
            written += self._call("write", os.pwritev, remainder, offset + written)

    def pwrite_runs(self, runs: Iterable[tuple[int, Sequence[Buffer], int]], page_size: int, origin: int) -> None:
        """Write runs, each (page, buffers, bytes in all), to `origin` + page × page_size: the store's hot path."""
        descriptor, pwritev = self._fd, os.pwritev
        try:
            for page, buffers, length in runs:
                offset = origin + page * page_size
                if len(buffers) > IOV_MAX:
                    self.pwritev(buffers, offset)
                    continue
                written = pwritev(descriptor, buffers, offset)
                if written < length:
                    remainder = remainder_of([memoryview(buffer) for buffer in buffers], written)
                    self.pwritev(remainder, offset + written)
        except OSError as error:
            raise host_error(error, self.path, "write") from error

    def pwrite_pages(
        self, runs: Iterable[tuple[int, Sequence[Buffer], int]], page_size: int, origin: int, room: memoryview
    ) -> None:
        """Like `pwrite_runs` for runs of one page, each copied to `room` first: the hot path of direct writes."""
        descriptor, pwrite = self._fd, os.pwrite
        try:
            for page, (room[:],), _ in runs:
                offset = origin + page * page_size
                written = pwrite(descriptor, room, offset)
                if written < page_size:
                    self.pwrite(room[written:], offset + written)
        except OSError as error:
            raise host_error(error, self.path, "write") from error

    def truncate(self, size: int) -> None:
        """Give it that size; nothing is asked of the file system where it has it, as not every one can do this."""
        if self.facts().size != size:
            self._call("resize", os.ftruncate, size)

    def fdatasync(self) -> None:
        """Make everything written to this file durable, whoever wrote it."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            # A pipe, /dev/null or squashfs has nothing to keep. EROFS is different: a file system that an error made
            # read-only says so, and what waits there is lost.
            if error.errno != errno.EINVAL:
                raise host_error(error, self.path, "make durable") from error

    def facts(self) -> Facts:
        return self._call("look at", _facts_of_descriptor)

    def size(self) -> int:
        """Bytes; also of a block device."""
        return self.facts().size

    def length(self) -> int:
        """Bytes of a file; cheaper than `size`, which also knows devices."""
        return self._call("look at", os.fstat).st_size

    def is_in_place(self) -> bool:
        """Whether the path still leads to this very file or directory: it was neither deleted nor replaced.

        Both are asked at this moment, as some file systems number a file anew each time that it is looked up.
        """
        own = self._call("look at", os.fstat)
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise host_error(error, self.path, "look at") from error
        return own.st_nlink > 0 and (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)

    def data_extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Offsets (first, one past the last) of what is not a hole between `start` and `end`.

        Where holes cannot be asked for, as on a block device, everything is data.
        """
        while start < end:
            try:
                first = os.lseek(self._fd, start, os.SEEK_DATA)
                last = os.lseek(self._fd, first, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if error.errno not in NOT_SUPPORTED:
                    raise host_error(error, self.path, "find the holes") from error
                first, last = start, end
            if first >= end:
                return
            if last <= first:  # such as /dev/zero, which says 0 to every question
                first, last = start, end
            yield first, min(last, end)
            start = last

    def punch(self, offset: int, length: int) -> None:
        """Make a run of bytes read as zeros and give its space back where that can be done.

        A hole in a file (fallocate(2)), BLKZEROOUT on a device; BLKDISCARD does not promise zeros. Zeros are written
        where neither is supported.
        """
        if length <= 0:
            return
        if self.facts().identity.is_device:
            done = self._ioctl_zero(offset, length)
        else:
            done = self._fallocate(_FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length)
        if not done:
            for start in range(offset, offset + length, len(_ZERO_CHUNK)):
                self.pwrite(_ZERO_CHUNK[: min(len(_ZERO_CHUNK), offset + length - start)], start)

    def reserve(self, offset: int, length: int) -> None:
        """Allocate the blocks of a run inside the file, content unchanged, so that a write to it finds space."""
        self._fallocate(_FALLOC_FL_KEEP_SIZE, offset, length)

    def drop_cache(self, offset: int = 0, length: int = 0) -> None:
        """Forget what the page cache holds of it and the device has already, so that the next read asks the device."""
        if hasattr(os, "posix_fadvise"):
            self._call("drop the cache of", os.posix_fadvise, offset, length, os.POSIX_FADV_DONTNEED)

    def expect_sequential(self) -> None:
        """Let the kernel read ahead further."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def reopen_direct(self) -> File | None:
        """The same file or device, opened once more for reads and writes past the page cache (O_DIRECT).

        None where the file system or the device does not do that, or not for whole pages of memory. The locks of this
        descriptor stay with it.
        """
        if not hasattr(os, "O_DIRECT"):
            return None
        try:
            direct = File(self.path, os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT))
        except OSError as error:
            if error.errno in (*NOT_SUPPORTED, errno.ENOENT):  # the last: no /proc
                return None
            raise host_error(error, self.path, "open") from error
        try:
            os.preadv(direct._fd, [aligned_buffer(ALIGNMENT)], 0)  # blocks larger than that are refused here
        except OSError as error:
            direct.close()
            if error.errno in NOT_SUPPORTED:
                return None
            raise host_error(error, self.path, "read") from error
        return direct

    def lock(self, *, exclusive: bool, what: str) -> None:
        """Lock the whole file against other open file descriptions, QEMU's among them (F_OFD_SETLK, fcntl(2)).

        Raises:
            LockedError: somebody holds it, exclusively or while `exclusive` is asked for.
        """
        kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
        try:
            if hasattr(fcntl, "F_OFD_SETLK"):
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, request)
            else:
                fcntl.flock(self._fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise LockedError(
                    f"{what} is in use by another process", where=self.path, remedy="wait for it or stop it"
                ) from error
            raise host_error(error, self.path, "lock") from error

    def is_locked(self) -> bool:
        """Whether somebody else has locked the file exclusively; nothing is locked by asking."""
        if not hasattr(fcntl, "F_OFD_GETLK"):
            return False
        request = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        found: bytes = self._call("ask for the lock of", _fcntl, fcntl.F_OFD_GETLK, request)
        return bool(struct.unpack_from("h", found)[0] != fcntl.F_UNLCK)

    def give_access(self, mode: int, group: int | None = None) -> None:
        """Set the group, by number, and then the permission bits, whatever the umask."""
        if group is not None:
            self._call("change the group of", os.fchown, -1, group)
        self._set_mode(mode, self._call("look at", os.fstat))

    def _set_mode(self, mode: int, found: os.stat_result) -> None:
        """Set the permission bits, if the file system keeps any: vfat and its like let nobody change them.

        What else was `found`, such as a set-group-ID that was inherited, stays where that may be.
        """
        for wanted in (found.st_mode & 0o7000 | mode, mode):
            if stat.S_IMODE(found.st_mode) == wanted:
                return
            try:
                os.fchmod(self._fd, wanted)
                return
            except OSError as error:
                is_own = os.geteuid() in (0, found.st_uid)
                if error.errno not in NOT_SUPPORTED and not (error.errno == errno.EPERM and is_own):
                    raise host_error(error, self.path, "change the permissions of") from error

    def _ioctl_zero(self, offset: int, length: int) -> bool:
        if offset % 512 or length % 512:
            return False
        try:
            fcntl.ioctl(self._fd, _BLKZEROOUT, struct.pack("QQ", offset, length))
        except OSError as error:
            if error.errno in NOT_SUPPORTED:
                return False
            raise host_error(error, self.path, "zero") from error
        return True

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        code = _libc_fallocate(self._fd, mode, offset, length)
        if code in NOT_SUPPORTED:
            return False
        if code:
            doing = "give space back in" if mode & _FALLOC_FL_PUNCH_HOLE else "reserve space in"
            raise host_error(OSError(code, os.strerror(code)), self.path, doing)
        return True

    def _call(self, doing: str, function: Callable[..., Result], *args: Any) -> Result:
        try:
            return function(self._fd, *args)
        except OSError as error:
            raise host_error(error, self.path, doing) from error


def _scribble(descriptor: int, data: bytes) -> None:
    """Bytes of a lock file are not content: it is not a fault that they cannot be written, such as on a full disk."""
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, data)


def aligned_buffer(length: int) -> memoryview:
    """Zeros in anonymous memory that begins at a page of memory, as O_DIRECT wants it; unused pages of it cost none."""
    return memoryview(mmap.mmap(-1, length))


def _fcntl(descriptor: int, command: int, request: bytes) -> bytes:
    return fcntl.fcntl(descriptor, command, request)


def _facts_of_descriptor(descriptor: int) -> Facts:
    return facts_of_stat(os.fstat(descriptor), descriptor)


def facts_of_stat(found: os.stat_result, descriptor: int | None) -> Facts:
    mode = found.st_mode
    is_device = stat.S_ISBLK(mode)
    size = found.st_size
    if is_device and descriptor is not None:
        size = struct.unpack("Q", fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8)))[0]
    # A device is what its number says, whichever node in /dev names it.
    identity = Identity(0, found.st_rdev, True) if is_device else Identity(found.st_dev, found.st_ino, False)
    return Facts(identity, size, found.st_blocks * 512, found.st_mtime_ns, found.st_ctime_ns, _kind_of(mode))


def _kind_of(mode: int) -> str:
    tests = {
        "file": stat.S_ISREG, "directory": stat.S_ISDIR, "block device": stat.S_ISBLK, "FIFO": stat.S_ISFIFO,
        "socket": stat.S_ISSOCK, "character device": stat.S_ISCHR,
    }  # fmt: skip
    return next((name for name, test in tests.items() if test(mode)), "special file")


def remainder_of(buffers: Sequence[memoryview], done: int) -> list[memoryview]:
    """What is left of buffers after `done` bytes of them."""
    remainder = []
    for buffer in buffers:
        if done < len(buffer):
            remainder.append(buffer[done:])
        done = max(0, done - len(buffer))
    return remainder


def _libc_fallocate(descriptor: int, mode: int, offset: int, length: int) -> int:
    """fallocate(2), which Python does not offer with a mode. Returns 0 or an errno."""
    import ctypes  # loaded late: only stores need it, and it costs 10 ms

    library: Any = ctypes.CDLL(None, use_errno=True)
    try:
        function = library.fallocate
    except AttributeError:
        return errno.ENOSYS
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]
    while function(descriptor, mode, offset, length):
        if (code := ctypes.get_errno()) != errno.EINTR:  # a signal; the interpreter would call again, too
            return code
    return 0
