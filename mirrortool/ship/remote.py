"""A remote link, to a receiver on another host: through the user's ssh, or another command that runs it there.

    ssh -T -o BatchMode=yes [-p PORT] -- [USER@]HOST 'mirrortool receive PATH'

No argument passes through a shell here; the remote command is quoted for the shell there. BatchMode: a service would
wait for a password for ever.
"""

from __future__ import annotations

import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from mirrortool.errors import LinkError, host_error
from mirrortool.ship.destination import Remote
from mirrortool.ship.link import StreamLink
from mirrortool.ship.messagestream import SILENCE_SECONDS, Stream
from mirrortool.ship.protocol import NoReceiverError

PROGRAM = "mirrortool"
STATE_BEGINS = "receiving "
"""So begins what a receiver prints when it is asked (SIGUSR1): never the reason why a link broke."""
_SSH = ("ssh", "-T", "-o", "BatchMode=yes")
_END_SECONDS = 5.0
_LINE_BYTES_MAX = 4096
_NOT_FOUND_REMEDY = "--remote-path says where the program is there"


def command_for(remote: Remote, rsh: Sequence[str] | None, remote_program: str) -> list[str]:
    """The command that runs a receiver there.

    Args:
        rsh: the command in place of ssh, with its options; host and remote command follow.
        remote_program: given to the shell there unquoted: it may have arguments, such as `sudo mirrortool`.
    """
    port = ["-p", str(remote.port)] if remote.port else []
    before = [*rsh, *port] if rsh else [*_SSH, *port, "--"]
    return [*before, remote.host, f"{remote_program} receive {shlex.quote(remote.path)}"]


def _is_not_found(status: int | None, last_line: str) -> bool:
    """Whether the shell there did not find the program, or may not run it.

    csh ends with 1 then, and ssh with 255 for errors of its own.

    Args:
        status: None while ssh has not ended, as on a busy host; below 0 if it was killed, as after a broken link.
    """
    is_open = status is None or (status < 126 and status != 0)
    return status in (126, 127) or (is_open and "command not found" in last_line.lower())


class ProcessLink(StreamLink):
    """A link through a process's standard input and output."""

    def __init__(
        self, command: Sequence[str], on_reply: Callable[[], None], *, silence_seconds: float = SILENCE_SECONDS
    ) -> None:
        """Start the process, in a process group of its own: a SIGINT from the terminal is not for it.

        Raises:
            HostError: it cannot be started.
        """
        self._name = command[0]
        self._last_line = ""
        try:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            raise host_error(error, self._name, "run") from error
        # Reads what the process says on stderr until it has ended.
        self._stderr = threading.Thread(target=self._read_stderr, name="mirrortool-ship-stderr", daemon=True)
        self._stderr.start()
        assert self._process.stdin and self._process.stdout
        stream = Stream(self._process.stdout.fileno(), self._process.stdin.fileno())
        super().__init__(stream, on_reply, silence_seconds=silence_seconds)

    def close(self) -> None:
        """End the process: it should end when its input ends, and is killed otherwise."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        super().close()
        self._process.wait()
        self._stderr.join(_END_SECONDS)  # a process that ssh started may still hold the pipe
        self._process.stdout.close()

    def abort(self) -> None:
        with suppress(OSError):
            self._process.kill()

    def _explained(self, error: LinkError) -> LinkError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._stderr.join(1.0)
        status = self._process.poll()
        said = f"; {self._name} ended with status {status}" if status and status > 0 else ""
        if self._last_line:
            said = f"; {self._name} said: {self._last_line}"
        found: LinkError = error
        if _is_not_found(status, self._last_line):
            found = NoReceiverError(error.what, where=error.where, remedy=_NOT_FOUND_REMEDY)
        found.what += said
        return found

    def _read_stderr(self) -> None:
        assert self._process.stderr
        with self._process.stderr as stderr, suppress(OSError, ValueError):
            while line := stderr.readline(_LINE_BYTES_MAX):
                text = line.decode("utf-8", "replace").strip()
                if text and not text.startswith(STATE_BEGINS):
                    self._last_line = text
