"""Options of the commands that serve NBD clients, and the server that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

import click

from mirrortool import files
from mirrortool.cli.options import DIRECTORY, MODE, SIZE
from mirrortool.errors import UsageError
from mirrortool.nbd.export import Export
from mirrortool.nbd.memorybudget import check_memory
from mirrortool.nbd.server import Server, check_endpoints
from mirrortool.nbd.tls import server_context

SOCKET_MODE_DEFAULT = 0o600
MAX_CONNECTIONS_DEFAULT = 64

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Command = Callable[Parameters, Result]


def server_options(command: Command[Parameters, Result]) -> Command[Parameters, Result]:
    """Decorates a command with the options of ServerOptions, but for --nbd, which each command describes itself."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = [
    click.option(
        "--socket-mode", type=MODE, metavar="MODE",
        help=f"Permissions of unix:PATH.  [default: {SOCKET_MODE_DEFAULT:04o}]",
    ),
    click.option("--socket-group", metavar="GROUP", help="Group of unix:PATH."),
    click.option(
        "--tls-certificates", type=DIRECTORY, metavar="DIRECTORY",
        help="Holds server-cert.pem, server-key.pem, and ca-cert.pem, which signed the clients' certificates.",
    ),
    click.option("--tls-anonymous", is_flag=True, help="Let in clients without a certificate."),
    click.option("--insecure", is_flag=True, help="Serve tcp:HOST:PORT without TLS, to anybody."),
    click.option(
        "--max-connections", type=click.IntRange(1, 10_000), metavar="N",
        help=f"Clients at a time.  [default: {MAX_CONNECTIONS_DEFAULT}]",
    ),
    click.option(
        "--max-memory", type=SIZE, metavar="SIZE",
        help="Memory of all clients together.  [default: 256M, or 4M a client where that is more]",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the options say of a server; None stands for the default."""

    nbd: Sequence[str]
    socket_mode: int | None
    socket_group: str | None
    tls_certificates: str | None
    tls_anonymous: bool
    insecure: bool
    max_connections: int | None
    max_memory: int | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ServerOptions:
        """Those of a command line, which has others, too."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def are_given(self) -> bool:
        """Whether any of them was."""
        return any(value not in (None, False, ()) for value in asdict(self).values())

    @property
    def has_tls(self) -> bool:
        """Whether clients can use TLS."""
        return bool(self.tls_certificates)

    def check(self) -> None:
        """Check that those which are each valid are valid together.

        Raises:
            UsageError: they are not.
        """
        if self.tls_anonymous and not self.tls_certificates:
            raise UsageError("--tls-anonymous is for TLS", remedy="give --tls-certificates, too")
        if self.max_memory is not None:
            check_memory(self.max_memory, self.max_connections or MAX_CONNECTIONS_DEFAULT)
        check_endpoints(self.nbd, has_tls=self.has_tls, insecure=self.insecure)

    def server_maker(self, on_event: Callable[[str], None]) -> Callable[[Sequence[Export]], Server]:
        """A function that makes the server of exports; the certificates are read now.

        Raises:
            MirrortoolError: they cannot be.
        """
        directory = self.tls_certificates
        return partial(
            Server,
            addresses=self.nbd,
            tls=server_context(directory, anonymous=self.tls_anonymous) if directory else None,
            insecure=self.insecure,
            max_connections=self.max_connections or MAX_CONNECTIONS_DEFAULT,
            max_memory=self.max_memory,
            socket_mode=SOCKET_MODE_DEFAULT if self.socket_mode is None else self.socket_mode,
            socket_group=self.socket_group,
            on_event=on_event,
        )


def nbd_uri(address: str, name: str, has_tls: bool) -> str:
    """The address of an export as NBD clients write it (the NBD project's uri.md)."""
    kind, _, place = address.partition(":")
    if kind == "unix":
        return f"nbd+unix:///{name}?socket={quote(files.path_bytes(place))}"
    return f"nbd{'s' * has_tls}://{place}/{name}"
