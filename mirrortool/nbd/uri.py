"""NBD URIs: where an export is, in one word.

    nbd://HOST[:PORT]/EXPORT             TCP
    nbds://HOST[:PORT]/EXPORT            TCP, under TLS
    nbd+unix:///EXPORT?socket=PATH       a socket in the file system
    nbds+unix:///EXPORT?socket=PATH      that, under TLS

Source: doc/uri.md of the NBD project. Of its parameters `socket` and `tls-certificates` are known here, and
`tls-hostname` of libnbd; another one is refused, as what it asks for would not be done.
A URI holds no secret: keys are in the directory of certificates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mirrortool import files
from mirrortool.errors import UsageError
from mirrortool.nbd.protocol import NAME_BYTES_MAX
from mirrortool.sockets.addresses import UNIX_PATH_BYTES_MAX, Address, TcpAddress, UnixAddress

PORT = 10809
"""Of NBD, as IANA has it."""

_BEGINNING = re.compile(r"nbds?(\+[a-z]+)?://", re.ASCII | re.IGNORECASE)
_SCHEMES = {"nbd": (False, False), "nbds": (True, False), "nbd+unix": (False, True), "nbds+unix": (True, True)}
_PARAMETERS = {"socket", "tls-certificates", "tls-hostname"}
_FORMS = "give nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH, with nbds for TLS"


@dataclass(frozen=True, slots=True)
class NbdUri:
    """An export of a server.

    Attributes:
        text: the URI, as it was given.
        export: its name; an empty one means the server's default.
        is_tls: whether the connection must be under TLS.
        certificates: a directory with the certificates for that; None takes the authorities that this host trusts.
        hostname: which the server's certificate must have; None where any is right that the authority signed.
    """

    text: str
    address: Address
    export: str
    is_tls: bool = False
    certificates: str | None = None
    hostname: str | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def place(self) -> tuple[Address, str]:
        """The same for all URIs that lead to one export, as far as their texts tell."""
        return self.address, self.export


def is_nbd_uri(text: str) -> bool:
    """Whether a text is meant as an NBD URI, and not as a path."""
    return _BEGINNING.match(text) is not None


def parse_uri(text: str) -> NbdUri:
    """The export that a URI names.

    Raises:
        UsageError: it is not an NBD URI, or one that asks for what is not done here.
    """
    try:
        return _parse(text)
    except ValueError as error:  # of urllib: brackets, a port, or bytes that are not UTF-8
        raise _refused(text, str(error)) from None


def _parse(text: str) -> NbdUri:
    if not text.isprintable() or " " in text:
        raise _refused(text, "it has characters that a URI writes with %")
    if not is_nbd_uri(text):
        raise _refused(text, "it does not begin like one")
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES:
        raise _refused(text, f"the scheme {parts.scheme!r} is not known")
    is_tls, is_local = _SCHEMES[parts.scheme]
    parameters = _parameters(text, parts)
    export = unquote(parts.path.removeprefix("/"), errors="strict")
    if len(export.encode("utf-8")) > NAME_BYTES_MAX:
        raise _refused(text, f"the name of an export has at most {NAME_BYTES_MAX} bytes")
    certificates = parameters.get("tls-certificates")
    if not is_tls and (certificates is not None or "tls-hostname" in parameters):
        raise UsageError("has parameters for TLS, and is not under TLS", where=text, remedy="begin it with nbds")
    if certificates is not None and not certificates.startswith("/"):
        raise _refused(text, "the directory of tls-certificates is not given from the root")
    address = _socket(text, parts, parameters) if is_local else _host(text, parts, parameters)
    hostname = parameters.get("tls-hostname", address.host if isinstance(address, TcpAddress) else None)
    return NbdUri(text, address, export, is_tls, certificates, hostname if is_tls else None)


def _parameters(text: str, parts: SplitResult) -> dict[str, str]:
    if parts.fragment:
        raise _refused(text, "it has a fragment")
    pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict")
    found = dict(pairs)
    if unknown := sorted(found.keys() - _PARAMETERS):
        raise _refused(text, f"the parameter {unknown[0]} is not known")
    if len(found) < len(pairs):
        raise _refused(text, "a parameter is given twice")
    return found


def _socket(text: str, parts: SplitResult, parameters: dict[str, str]) -> UnixAddress:
    path = parameters.get("socket", "")
    if parts.netloc:
        raise _refused(text, "there is no host of a socket: it begins with three slashes")
    if not path.startswith("/") or "\0" in path:
        raise _refused(text, "it needs socket=PATH, from the root")
    if len(files.path_bytes(path)) > UNIX_PATH_BYTES_MAX:
        raise _refused(text, f"a socket's path has at most {UNIX_PATH_BYTES_MAX} bytes")
    return UnixAddress(path)


def _host(text: str, parts: SplitResult, parameters: dict[str, str]) -> TcpAddress:
    if parts.username is not None or parts.password is not None:
        raise UsageError("has a user", where=text, remedy="leave it out: TLS is by certificates, not by shared keys")
    if "socket" in parameters:
        raise _refused(text, "a socket is of nbd+unix")
    if not parts.hostname:
        raise _refused(text, "it names no host")
    return TcpAddress(parts.hostname, PORT if parts.port is None else parts.port)


def _refused(text: str, why: str) -> UsageError:
    return UsageError(f"not an NBD URI: {why}", where=text, remedy=_FORMS)
