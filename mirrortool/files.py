"""The one place that calls the operating system's file functions.

Every fault test goes through here: replace a method of `File` or a function of this module, and the whole tool sees
the fault. All errors leave as HostError with the path in them (errors.host_error). Paths are str, decoded with
surrogateescape, so that a path that is not UTF-8 survives the way through JSON and back (portable_path).

Rule: a small file is replaced atomically: write beside it, fdatasync, rename, fsync the directory.
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
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mirrortool.errors import AccessError, HostError, LockedError, host_error

Buffer = bytes | bytearray | memoryview
SMALL_FILE_BYTES_MAX = 16 << 20
IOV_MAX = 1024
ALIGNMENT = mmap.PAGESIZE
"""What is written with O_DIRECT begins and ends at multiples of this, in memory and in the file."""
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_BLKGETSIZE64 = 0x80081272
_BLKZEROOUT = 0x127F
_AT_FDCWD = -100
_STATX_BTIME = 0x800
_ZERO_CHUNK = bytes(1 << 20)
_COPY_BYTES = 1 << 20
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY)
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


@dataclass(frozen=True, slots=True)
class Permissions:
    """Which users may do what with a name's file or directory; of a link, its own. Owner and group by their numbers."""

    owner: int
    group: int
    mode: int
    is_directory: bool
    is_sticky: bool


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
                if error.errno not in _NOT_SUPPORTED:
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
        """Forget cached pages that are on the device already, so that the next read asks the device."""
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
            if error.errno in (*_NOT_SUPPORTED, errno.ENOENT):  # the last: no /proc
                return None
            raise host_error(error, self.path, "open") from error
        try:
            os.preadv(direct._fd, [aligned_buffer(ALIGNMENT)], 0)  # blocks larger than that are refused here
        except OSError as error:
            direct.close()
            if error.errno in _NOT_SUPPORTED:
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
                if error.errno not in _NOT_SUPPORTED and not (error.errno == errno.EPERM and is_own):
                    raise host_error(error, self.path, "change the permissions of") from error

    def _ioctl_zero(self, offset: int, length: int) -> bool:
        if offset % 512 or length % 512:
            return False
        try:
            fcntl.ioctl(self._fd, _BLKZEROOUT, struct.pack("QQ", offset, length))
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                return False
            raise host_error(error, self.path, "zero") from error
        return True

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        code = _libc_fallocate(self._fd, mode, offset, length)
        if code in _NOT_SUPPORTED:
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


def path_bytes(path: str) -> bytes:
    """What the system calls it.

    Raises:
        UnicodeEncodeError: it can be no path here.
    """
    return os.fsencode(path)


def portable_path(path: str) -> str:
    """A path as it is the same under every locale: its bytes as UTF-8, with surrogates for those that are none."""
    try:
        return os.fsencode(path).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no path, but other text
        return path


def local_path(text: str) -> str:
    """What `portable_path` made this of, under this locale."""
    try:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # a surrogate that stands for no byte; the reader of the field refuses it
        return text


def aligned_buffer(length: int) -> memoryview:
    """Zeros in anonymous memory that begins at a page of memory, as O_DIRECT wants it; unused pages of it cost none."""
    return memoryview(mmap.mmap(-1, length))


def open_file(
    path: str,
    *,
    write: bool = False,
    create: bool = False,
    exclusive: bool = False,
    follow: bool = True,
    mode: int | None = None,
) -> File:
    """Open a file or block device.

    Args:
        create: make it, empty, if it does not exist. No symbolic link is followed then: whoever may write in the
            directory could lead us to a file of ours, or make us make one.
        exclusive: with `create`, it must not exist; on a block device, nobody may have it mounted or held.
        follow: a symbolic link in the last place; not for files of our own that are written, or locked.
        mode: of a file that is made, less the umask; by default group and mode are as its directory's, so that all
            that may use that may use it. Others never write.
    """
    flags = os.O_RDWR if write else os.O_RDONLY
    if exclusive and not create:
        return _open(path, flags | os.O_EXCL | (0 if follow else os.O_NOFOLLOW))
    while create:
        if not exclusive and (found := _open_existing(path, flags)):
            return found
        try:
            made = _open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600 if mode is None else mode)
        except HostError as error:
            if exclusive or not isinstance(error.__cause__, FileExistsError):
                raise
            continue  # somebody made it since
        if mode is None:
            _adopt(made, os.path.dirname(path) or ".", 0o664)
        return made
    return _open(path, flags | (0 if follow else os.O_NOFOLLOW))


def make_file(path: str) -> File:
    """Make an empty file of our own and open it; what has its name goes first, such as what a killed process left.

    A link there goes itself: nothing is written through it.
    """
    remove(path)
    return open_file(path, write=True, create=True, exclusive=True)


def _open_existing(path: str, flags: int) -> File | None:
    try:
        return _open(path, flags | os.O_NOFOLLOW)
    except HostError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _open(path: str, flags: int, mode: int = 0) -> File:
    # A FIFO must not make us wait for a peer.
    try:
        return File(path, os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, mode))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EBUSY:
            raise LockedError(
                "the device is mounted or held by another process", where=path, remedy="unmount it first"
            ) from error
        if isinstance(error, OSError) and error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise AccessError(
                "is a symbolic link, and mirrortool follows none here", where=path, remedy="put the file itself there"
            ) from error
        raise _as_host_error(error, path, "open") from error


def _adopt(made: File, directory: str, bits: int, mode: int | None = None) -> None:
    """Give what was made in a directory of ours its group, as far as we may, and of its permissions these bits."""
    above = _on_path(directory, "look at", os.stat)
    found: os.stat_result = made._call("look at", os.fstat)
    if above.st_gid != found.st_gid and above.st_mode & 0o070:
        with contextlib.suppress(OSError):
            os.fchown(made.fileno(), -1, above.st_gid)
    made._set_mode(above.st_mode & bits | bits & 0o700 if mode is None else mode, found)


def open_locked(path: str, what: str) -> File:
    """Open a lock file, made if it is not there, and hold its lock until the file is closed.

    Raises:
        LockedError: somebody else holds it; the message says that `what` is in use.
    """
    file = open_file(path, write=True, create=True)
    try:
        file.lock(exclusive=True, what=what)
    except BaseException:
        file.close()
        raise
    return file


def find_facts(path: str) -> Facts | None:
    """What stat says of the path, its symbolic links followed; None where nothing is."""
    try:
        return _facts_of_stat(os.stat(path), None)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _as_host_error(error, path, "look at") from error


def birth_ns(path: str) -> int:
    """When the file at a path was made, in nanoseconds since 1970; 0 where the file system does not keep it (statx(2)).

    With it, a file is told from a later one that was given the same inode.
    """
    import ctypes  # loaded late: it costs 10 ms

    buffer = ctypes.create_string_buffer(256)  # struct statx
    try:
        code = ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer)
    except (AttributeError, ValueError):  # a C library without it; a null byte
        return 0
    mask, seconds, nanoseconds = struct.unpack_from("=I76xqI", buffer)
    return seconds * 10**9 + nanoseconds if code == 0 and mask & _STATX_BTIME else 0


def permissions(path: str) -> Permissions | None:
    """The permissions of a path, symbolic links not followed; None where nothing is, or it cannot be looked at."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    mode = found.st_mode
    return Permissions(found.st_uid, found.st_gid, mode & 0o777, stat.S_ISDIR(mode), bool(mode & stat.S_ISVTX))


def exists(path: str) -> bool:
    """Whether something is there."""
    return find_facts(path) is not None


def is_directory(path: str) -> bool:
    """Whether a directory is there."""
    facts = find_facts(path)
    return facts is not None and facts.kind == "directory"


def read_small(path: str) -> bytes | None:
    """A small file whole; None if it does not exist. A larger one is cut at 16 MiB, and so will not parse."""
    try:
        with open_file(path) as file:
            return file.pread(SMALL_FILE_BYTES_MAX, 0)
    except HostError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def replace_small(path: str, data: bytes) -> None:
    """Replace a small file atomically and durably."""
    temporary = f"{path}.new"
    try:
        with make_file(temporary) as file:
            file.pwrite(data, 0)
            file.fdatasync()
    except HostError:
        with contextlib.suppress(HostError):  # what is begun must not take what room there is
            remove(temporary)
        raise
    rename(temporary, path)


def replace_unsynced(path: str, data: bytes, mode: int) -> None:
    """Replace a small file atomically for its readers; after a power cut it may be gone, or empty.

    The directory may belong to somebody else: what is put where the new file is made is not written through.
    """
    temporary = f"{path}.new"
    remove(temporary)
    with open_file(temporary, write=True, create=True, exclusive=True, mode=0o600) as file:
        file.pwrite(data, 0)
        file.give_access(mode)
    _on_path(temporary, "rename", os.rename, path)


def copy_range(source: File, target: File, start: int, end: int) -> None:
    """Copy bytes to the same place in another file; what is a hole stays one."""
    for first, last in source.data_extents(start, end):
        for offset in range(first, last, _COPY_BYTES):
            target.pwrite(source.pread(min(_COPY_BYTES, last - offset), offset), offset)


def rename(source: str, target: str) -> None:
    """Rename durably, within one file system; out of a directory, too: no crash brings the old name back."""
    _on_path(source, "rename", os.rename, target)
    sync_name(target)
    if os.path.dirname(source) != os.path.dirname(target):
        sync_name(source)


def make_link(target: str, path: str) -> None:
    """Make a symbolic link, durably; nothing may be there. On a full disk there is room for a short target only."""
    _on_path(path, "make a link", lambda where: os.symlink(target, where))
    sync_name(path)


def link_target(path: str) -> str | None:
    """What a symbolic link says; None if there is none, but a file or nothing."""
    try:
        return os.readlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise host_error(error, path, "read the link") from error


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    with open_file(path) as directory:
        directory._call("make durable", os.fsync)


def sync_name(path: str) -> None:
    """Make the name of a file that was made durable."""
    sync_directory(os.path.dirname(path) or ".")


def get_attribute(path: str, name: str) -> bytes | None:
    """The value of an extended attribute; None if there is none, and where there are none."""
    try:
        return os.getxattr(path, name)
    except (OSError, AttributeError):
        return None


def set_attribute(path: str, name: str, value: bytes) -> None:
    """Set an extended attribute.

    Raises:
        HostError: the file system has none, or no room, or not for this user.
    """
    if not hasattr(os, "setxattr"):
        raise host_error(OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)), path, "mark")
    _on_path(path, "mark", os.setxattr, name, value)


def remove_attribute(path: str, name: str) -> None:
    """Remove an extended attribute, if it is there."""
    if get_attribute(path, name) is not None:
        _on_path(path, "remove the mark from", os.removexattr, name)


def make_directory(path: str, *, exist_ok: bool = False, mode: int | None = None) -> None:
    """Make a directory, durably, within one of ours.

    Args:
        mode: its permission bits; by default those of the directory that it is made in, but that others never write.
    """
    above = os.path.dirname(absolute(path))
    try:
        _on_path(path, "make the directory", os.mkdir, 0o700)
    except HostError as error:
        if not (exist_ok and isinstance(error.__cause__, FileExistsError) and is_directory(path)):
            raise
    else:
        with _open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as made:
            _adopt(made, above, 0o775, mode)
    sync_directory(above)


def claim_directory(path: str, group: int | None = None) -> None:
    """Make a directory for what holds the contents of disks, durably, or use an empty one: nobody else may read it.

    Args:
        group: the number of one whose members may read it.
    Raises:
        AccessError: one that is there is open to others, and belongs to somebody else.
    """
    if not exists(path):
        _on_path(path, "make the directory", os.mkdir, 0o700)
        sync_directory(os.path.dirname(absolute(path)))
    with _open(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
        try:
            directory.give_access(0o700 if group is None else 0o750, group)
        except AccessError:
            if group is not None or directory._call("look at", os.fstat).st_mode & 0o007:
                raise


def list_directory(path: str) -> list[str]:
    """Names in a directory, sorted; none if there is no such directory."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise host_error(error, path, "list") from error


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise host_error(error, path, "remove") from error


@contextlib.contextmanager
def temporary_directory() -> Iterator[str]:
    """A directory for what is needed only meanwhile; gone afterwards."""
    try:
        directory = tempfile.TemporaryDirectory(prefix="mirrortool-", ignore_cleanup_errors=True)
    except OSError as error:
        raise host_error(error, tempfile.gettempdir(), "make a temporary directory") from error
    with directory as path:
        yield path


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it, if it is there; links are removed, not followed, in its place too."""
    if os.path.islink(path):
        remove(path)
        return
    try:
        for directory, below, names in os.walk(path, topdown=False):
            for name in (*names, *below):
                inside = os.path.join(directory, name)
                (os.rmdir if os.path.isdir(inside) and not os.path.islink(inside) else os.unlink)(inside)
        if os.path.lexists(path):
            os.rmdir(path)
    except OSError as error:
        raise host_error(error, path, "remove") from error


def free_bytes(path: str) -> int:
    """Bytes that this process may still allocate in the file system that holds `path`."""
    usage = _on_path(path, "look at", os.statvfs)
    return usage.f_bavail * usage.f_frsize


def absolute(path: str) -> str:
    """The path from the root, symbolic links kept.

    Raises:
        AccessError: the working directory, which it begins in, was removed.
    """
    return _from_root(os.path.abspath, path)


def real(path: str) -> str:
    """The path from the root, symbolic links followed; errors as `absolute`."""
    return _from_root(os.path.realpath, path)


def _from_root(function: Callable[[str], str], path: str) -> str:
    try:
        return function(path)
    except FileNotFoundError as error:
        remedy = "change to a directory that is there"
        raise AccessError("the working directory was removed", where=path, remedy=remedy) from error


def join(*parts: str) -> str:
    """Parts of a path as one."""
    return os.path.join(*parts)


def parent(path: str) -> str:
    """The directory that a path lies in."""
    return os.path.dirname(path)


def base_name(path: str) -> str:
    """The last part of a path."""
    return os.path.basename(path)


def keep_private(descriptor: int) -> None:
    """Make the name that a socket is about to be bound to its owner's alone from the first moment.

    Linux takes the permissions of the name from the socket (unix(7)), so no umask, which belongs to every thread, is
    changed.
    """
    try:
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise host_error(error, "a new socket", "set the permissions of") from error


def give_access(path: str, mode: int, group: int | None = None) -> None:
    """Set the group, by number, and then the permission bits; of what is there, and not of what a link leads to."""
    with _open(path, os.O_PATH | os.O_NOFOLLOW) as found:
        there = f"/proc/self/fd/{found.fileno()}" if os.path.isdir("/proc/self/fd") else path
        if stat.S_ISLNK(found._call("look at", os.fstat).st_mode):
            raise AccessError("is a symbolic link by now", where=path, remedy="look who else writes there")
        if group is not None:
            _on_path(there, "change the group of", os.chown, -1, group)
        _on_path(there, "change the permissions of", os.chmod, mode)


def _fcntl(descriptor: int, command: int, request: bytes) -> bytes:
    return fcntl.fcntl(descriptor, command, request)


def _facts_of_descriptor(descriptor: int) -> Facts:
    return _facts_of_stat(os.fstat(descriptor), descriptor)


def _facts_of_stat(found: os.stat_result, descriptor: int | None) -> Facts:
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


def _on_path(path: str, doing: str, function: Callable[..., Result], *args: Any) -> Result:
    try:
        return function(path, *args)
    except (OSError, ValueError) as error:
        raise _as_host_error(error, path, doing) from error


def _as_host_error(error: OSError | ValueError, path: str, doing: str) -> HostError:
    if isinstance(error, OSError):
        known = host_error(error, path, doing)
        if error.errno == errno.ENOSPC and _lacks_inodes(path):
            known.remedy = "remove some files: the file system has no inodes left, though it may have space"
        return known
    return host_error(OSError(errno.EINVAL, "not a path"), path, doing)  # such as an embedded null byte


def _lacks_inodes(path: str) -> bool:
    """Whether the file system of a path counts its inodes, and has none left for this user."""
    with contextlib.suppress(OSError):
        found = os.statvfs(os.path.dirname(path) or ".")
        return found.f_files > 0 and found.f_favail == 0
    return False


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
