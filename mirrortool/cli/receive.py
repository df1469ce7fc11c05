"""`mirrortool receive`: the far end of ship, started by ssh, or at the end of a pipe."""

from __future__ import annotations

import os
import shlex
import sys

import click

from mirrortool import files
from mirrortool.cli.options import DIRECTORY, DURATION, group, quiet
from mirrortool.cli.otherusers import tell_root
from mirrortool.cli.ship import SILENCE_SECONDS_MIN
from mirrortool.cli.text import printable, quoted, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import AccessError, UsageError
from mirrortool.ship.messagestream import Stream
from mirrortool.ship.receiverprocess import ReceiverProcess
from mirrortool.ship.remote import STATE_BEGINS

ASKED_FOR = "SSH_ORIGINAL_COMMAND"
_STDIN, _STDOUT = 0, 1


@click.command("receive")
@click.argument("journal", type=DIRECTORY, required=False)
@click.option(
    "--restrict-to", type=DIRECTORY, metavar="DIRECTORY",
    help="Only below this directory; without JOURNAL, use the path that the ssh client asks for.",
)  # fmt: skip
@click.option(
    "--timeout", type=DURATION, default="30s", show_default=True, metavar="DURATION",
    help="A connection that is silent for longer is broken.",
)  # fmt: skip
@group
@quiet
def command(journal: str | None, restrict_to: str | None, timeout: float, group: int | None, quiet: bool) -> None:
    """Receive on standard input what ship sends, into a copy of its journal; answer on standard output.

    Everything is checked before it is stored, and durable before it is acknowledged.
    """
    if timeout < SILENCE_SECONDS_MIN:
        raise UsageError(f"--timeout is at least {SILENCE_SECONDS_MIN:.0f}s: a sender speaks every 10 seconds")
    path = _path(journal, restrict_to)
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal", remedy="mirrortool ship starts this, or a pipe feeds it")
    tell_root(path, quiet=quiet)
    receiver = ReceiverProcess(path, Stream(_STDIN, _STDOUT), silence_seconds=timeout, group=group)
    runner = Runner(receiver.run, receiver.stop, lambda: tell(_state(path, receiver)))
    runner.run(lambda: None)
    if runner.signal_number and not receiver.is_finished and not receiver.follows:
        raise Interrupted(runner.signal_number, f"stopped; the copy has everything up to LSN {receiver.position.lsn}")
    if receiver.is_one_way and receiver.is_finished:
        click.echo(f"up to LSN {receiver.position.lsn}")
        if not quiet:
            tell(f"next: mirrortool replay {quoted(path)} MIRROR")


def _state(path: str, receiver: ReceiverProcess) -> str:
    """For whoever asks (SIGUSR1); the sender does not take it for the reason why the link broke."""
    if not receiver.has_begun:
        return f"{STATE_BEGINS}into {printable(path)}: waiting for the sender"
    return f"{STATE_BEGINS}into {printable(path)}: the copy has everything up to LSN {receiver.position.lsn}"


def _path(journal: str | None, restrict_to: str | None) -> str:
    if restrict_to is None:
        if journal is None:
            raise UsageError("name the JOURNAL, or --restrict-to for a forced command of ssh")
        return journal
    return inside(restrict_to, journal if journal is not None else _asked_path())


def _asked_path() -> str:
    """The path in the command that the ssh client asked for, which sshd did not run."""
    asked = os.environ.get(ASKED_FOR, "")
    try:
        words = shlex.split(asked)
    except ValueError:
        words = []
    if len(words) < 3 or words[-2] != "receive":
        raise AccessError(f"only mirrortool receive JOURNAL may be run with this key, not {asked!r}")
    return words[-1]


def inside(directory: str, path: str) -> str:
    """The real path of what a client asked for, relative to the directory if it is not from the root.

    Raises:
        AccessError: it is not below the directory, symbolic links followed, or goes through one that leads out of it.
    """
    allowed = files.real(directory)
    found = files.real(files.join(allowed, path))
    if not found.startswith(f"{allowed.rstrip('/')}/"):
        raise AccessError(f"is not below {directory}", where=path, remedy="this key may write nowhere else")
    return found
