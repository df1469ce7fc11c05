"""The one place that calls the operating system's file functions (122, FIG. 1), with openfile.py, which has `File`.

Every fault test goes through here: replace a method of `File` or a function of this module, and the whole tool sees
the fault. All errors leave as HostError with the path in them (errors.host_error). Paths are str, decoded with
surrogateescape, so that a path that is not UTF-8 survives the way through JSON and back (portable_path).

Rule: a small file is replaced atomically: write beside it, fdatasync, rename, fsync the directory.
Not here: what any byte means.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mirrortool.errors import AccessError, HostError, LockedError, host_error
from mirrortool.openfile import ALIGNMENT as ALIGNMENT
from mirrortool.openfile import IOV_MAX as IOV_MAX
from mirrortool.openfile import Buffer as Buffer
from mirrortool.openfile import Facts as Facts
from mirrortool.openfile import File as File
from mirrortool.openfile import Identity as Identity
from mirrortool.openfile import aligned_buffer as aligned_buffer
from mirrortool.openfile import facts_of_stat
from mirrortool.openfile import remainder_of as remainder_of

SMALL_FILE_BYTES_MAX = 16 << 20
_AT_FDCWD = -100
_STATX_BTIME = 0x800
_COPY_BYTES = 1 << 20
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Permissions:
    """Which users may do what with a name's file or directory; of a link, its own. Owner and group by their numbers."""

    owner: int
    group: int
    mode: int
    is_directory: bool
    is_sticky: bool


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
        return facts_of_stat(os.stat(path), None)
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
    try:
        remove(temporary)
        with open_file(temporary, write=True, create=True, exclusive=True, mode=0o600) as file:
            file.pwrite(data, 0)
            file.give_access(mode)
        rename_unsynced(temporary, path)
    except HostError as error:
        error.where = path  # the reader knows no other name
        raise


def write_again(path: str, start: int, end: int) -> None:
    """Write a file's bytes from `start` to `end` once more, as they are, and make them durable.

    After an fdatasync that failed, the kernel may hold for written what the device never got: it can be read until the
    next boot, and a later fdatasync succeeds without it.
    """
    with open_file(path, write=True, follow=False) as file:
        copy_range(file, file, start, end)
        file.fdatasync()


def copy_range(source: File, target: File, start: int, end: int) -> None:
    """Copy bytes to the same place in another file; what is a hole stays one."""
    for first, last in source.data_extents(start, end):
        for offset in range(first, last, _COPY_BYTES):
            target.pwrite(source.pread(min(_COPY_BYTES, last - offset), offset), offset)


def rename(source: str, target: str) -> None:
    """Rename durably, within one file system; out of a directory, too: no crash brings the old name back."""
    is_moved = os.path.dirname(source) != os.path.dirname(target)
    is_left = is_moved and _is_same_file(source, target)  # a crash may leave both names; then rename(2) does nothing
    if not is_left:
        _on_path(source, "rename", os.rename, target)
    sync_name(target)
    if is_left:
        remove(source)
    if is_moved:
        sync_name(source)


def rename_unsynced(source: str, target: str) -> None:
    """Rename within one file system, atomically; a power cut may bring the old name back."""
    _on_path(source, "rename", os.rename, target)


def _is_same_file(path: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except (OSError, ValueError):
        return False


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


def sync_directories(*paths: str) -> None:
    """Make the names in each of these directories durable that is there."""
    for path in filter(exists, paths):
        sync_directory(path)


def sync_name(path: str) -> None:
    """Make the name of a file that was made, or that it is gone, durable."""
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
    make_directory_unsynced(path, exist_ok=exist_ok, mode=mode)
    sync_directory(above)


def make_directory_unsynced(path: str, *, exist_ok: bool = False, mode: int | None = None) -> None:
    """The same; a power cut may take it away again."""
    try:
        _on_path(path, "make the directory", os.mkdir, 0o700)
    except HostError as error:
        if not (exist_ok and isinstance(error.__cause__, FileExistsError) and is_directory(path)):
            raise
    else:
        with _open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as made:
            _adopt(made, os.path.dirname(absolute(path)), 0o775, mode)


def claim_directory(path: str, group: int | None = None) -> None:
    """Make a directory for what holds the contents of disks, durably, or use an empty one: nobody else may read it.

    Args:
        group: the number of one whose members may read it.
    Raises:
        AccessError: one that is there is open to others, and belongs to somebody else.
    """
    is_there = exists(path)
    if not is_there:
        _on_path(path, "make the directory", os.mkdir, 0o700)
    # What made it may have been killed here; but one that is there may lie in a directory that is not ours to read.
    with contextlib.suppress(*[AccessError] if is_there else []):
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


def remove_durably(path: str) -> None:
    """Remove a file, if it is there; no crash brings it back, nor one that an interrupted call removed."""
    remove(path)
    sync_name(path)


@contextlib.contextmanager
def temporary_directory() -> Iterator[str]:
    """A directory for what is needed only meanwhile; gone afterwards."""
    import tempfile  # loaded late: it costs 4 ms

    try:
        directory = tempfile.TemporaryDirectory(prefix="mirrortool-", ignore_cleanup_errors=True)
    except OSError as error:
        raise host_error(error, tempfile.gettempdir(), "make a temporary directory") from error
    with directory as path:
        yield path


def unnamed_file(directory: str) -> File:
    """A new, empty file without a name, in a directory: its space is free again when it is closed, or its process gone.

    Where the file system makes none without a name, it has one for a moment.
    """
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=directory, prefix="mirrortool-") as made:
            return File(directory, os.dup(made.fileno()))
    except (OSError, ValueError) as error:
        raise _as_host_error(error, directory, "make a file in") from error


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
