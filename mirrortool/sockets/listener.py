"""A listener: a socket that clients connect to."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import AccessError, LockedError, MirrortoolError, UsageError, host_error
from mirrortool.sockets.addresses import Address, TcpAddress, UnixAddress

BACKLOG = 128
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """The access to a socket in the file system.

    Attributes:
        mode: its permission bits.
        group: the number of its group; None leaves it as it is.
    """

    mode: int = 0o600
    group: int | None = None


class Listener:
    """A listening socket. `accept` is for one thread; `stop` and `close` for the one that ends it."""

    def __init__(self, address: Address, access: SocketAccess) -> None:
        """Listen.

        Raises:
            LockedError: a server answers there.
            UsageError: the path has something that is not a socket.
            HostError: the system refuses.
        """
        self.is_local = isinstance(address, UnixAddress)
        self._is_stopped = False
        self._identity: files.Identity | None = None
        try:
            if isinstance(address, UnixAddress):
                self.address: Address = address
                self._socket = self._listen_unix(address.path, access)
            else:
                self._socket = _listen_tcp(address)
                self.address = TcpAddress(address.host, self._socket.getsockname()[1])
        except OSError as error:
            raise _why_not(error, address) from error

    def accept(self) -> tuple[socket.socket, str] | None:
        """The next client and its name, or None when listening has stopped.

        Raises:
            OSError: a client could not be accepted, such as for lack of descriptors; the next may be.
        """
        try:
            connected, where = self._socket.accept()
        except OSError:
            if self._is_stopped:
                return None
            raise
        return connected, str(self.address) if self.is_local else str(TcpAddress(*where[:2]))

    def stop(self) -> None:
        """Accept no more clients, from any thread; `accept` returns."""
        self._is_stopped = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket and remove its name, if that is still the name of this socket."""
        self._socket.close()
        if self._identity and isinstance(self.address, UnixAddress):
            facts = files.find_facts(self.address.path)
            if facts and facts.identity == self._identity:
                files.remove(self.address.path)

    def _listen_unix(self, path: str, access: SocketAccess) -> socket.socket:
        _remove_stale(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            files.keep_private(made.fileno())
            made.bind(path)
            facts = files.find_facts(path)
            self._identity = facts.identity if facts else None
            # No client can connect before listen, so none does before the socket has its permissions.
            files.give_access(path, access.mode, access.group)
            made.listen(BACKLOG)
        except BaseException:
            made.close()
            if self._identity:
                files.remove(path)
            raise
        return made


_NO_SOCKETS_HERE = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""The errors of file systems such as vfat, NTFS or network shares when a socket gets its name."""


def _why_not(error: OSError, address: Address) -> MirrortoolError:
    if isinstance(error, socket.gaierror):
        return UsageError("this host has no such name or address", where=address)
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError("this host does not have the address", where=address)
    if error.errno == errno.EADDRINUSE:
        return LockedError("another server listens there", where=address, remedy="stop it or choose another port")
    if isinstance(address, UnixAddress) and error.errno in _NO_SOCKETS_HERE:
        remedy = "use a file system that has Unix sockets, such as ext4, xfs or tmpfs"
        return AccessError("cannot make a socket in this file system", where=address.path, remedy=remedy)
    return host_error(error, address, "listen")


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone."""
    facts = files.find_facts(path)
    if facts is None:
        return
    if facts.kind != "socket":
        raise UsageError(f"is a {facts.kind}, not a socket", where=path, remedy="choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            files.remove(path)
            return
        except (BlockingIOError, TimeoutError):  # it listens, and its queue is full
            pass
    raise LockedError("a server answers at this socket", where=path, remedy="stop it or choose another path")


def _listen_tcp(address: TcpAddress) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
