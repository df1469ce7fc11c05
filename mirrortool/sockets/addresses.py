"""Addresses that a server listens at: `unix:PATH` or `tcp:HOST:PORT`, with the host in brackets where it is IPv6."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import UsageError

UNIX_PATH_BYTES_MAX = 107
"""sockaddr_un of Linux (unix(7)): 108 bytes with the zero byte at the end."""

_TCP = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:]+)):(?P<port>[0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A port of this host; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """The address of a text such as `str` of an address gives.

    Raises:
        UsageError: it is not an address.
    """
    kind, _, place = text.partition(":")
    if kind == "unix":
        return _parse_unix(place)
    match = _TCP.fullmatch(place)
    if kind != "tcp" or not match or int(match["port"]) > 65535:
        raise UsageError(f"{text!r} is not an address of an NBD server", remedy="give unix:PATH or tcp:HOST:PORT")
    return TcpAddress(match["six"] or match["host"], int(match["port"]))


def _parse_unix(path: str) -> UnixAddress:
    if not path or "\0" in path:
        raise UsageError(f"{path!r} is not a path of a socket", remedy="give unix:PATH")
    length = len(files.path_bytes(path))
    if length > UNIX_PATH_BYTES_MAX:
        raise UsageError(
            f"a socket's path has at most {UNIX_PATH_BYTES_MAX} bytes, not {length}", where=path, remedy="shorten it"
        )
    return UnixAddress(path)
