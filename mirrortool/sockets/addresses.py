"""Where a server listens: `unix:PATH` or `tcp:HOST:PORT`, with the host in brackets where it is IPv6."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import UsageError

UNIX_PATH_BYTES_MAX = 107
"""sockaddr_un of Linux (unix(7)): 108 bytes with the one that ends it."""

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
    """The address that `str` of one gives.

    Raises:
        UsageError: it is none.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return _parse_unix(rest)
    match = _TCP.fullmatch(rest)
    if kind != "tcp" or not match or int(match["port"]) > 65535:
        raise UsageError(f"{text!r} is no address of an NBD server", remedy="give unix:PATH or tcp:HOST:PORT")
    return TcpAddress(match["six"] or match["host"], int(match["port"]))


def _parse_unix(path: str) -> UnixAddress:
    if not path or "\0" in path:
        raise UsageError(f"{path!r} is no path of a socket", remedy="give unix:PATH")
    length = len(files.path_bytes(path))
    if length > UNIX_PATH_BYTES_MAX:
        raise UsageError(
            f"a socket's path has at most {UNIX_PATH_BYTES_MAX} bytes, not {length}", where=path, remedy="shorten it"
        )
    return UnixAddress(path)
