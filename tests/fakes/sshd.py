"""A real sshd with keys and a configuration of its own, for the user who runs the tests, and nobody else."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mirrortool
from tests.fakes.loop import call, require
from tests.fakes.waiting import wait_until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
SEPARATION = Path("/run/sshd")
"""sshd that is started by root wants this directory for its unprivileged part."""


class Sshd:
    """One sshd; `with` starts and ends it.

    Attributes:
        rsh: the command that takes the place of ssh, for --rsh.
        host: what names it in a destination.
    """

    def __init__(
        self,
        path: Path,
        address: str = "127.0.0.1",
        *,
        inside: Sequence[str] = (),
        server: Sequence[str] = (),
        client: Sequence[str] = (),
    ) -> None:
        """Make keys and configurations.

        Args:
            inside: what its command line begins with, to run it elsewhere.
            server, client: lines for the configurations of either.
        """
        self._path, self._inside = path, inside
        self.port = free_port()
        self.host = f"{getpass.getuser()}@{address}"
        for name in ("host", "client"):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path / name)
        (path / "known").write_text(f"[{address}]:{self.port} {(path / 'host.pub').read_text()}")
        self.allow("")
        lines = [
            f"Port {self.port}", f"ListenAddress {address}", f"HostKey {path}/host", f"PidFile {path}/pid",
            f"AuthorizedKeysFile {path}/authorized", "StrictModes no", "UsePAM no", "PermitRootLogin yes",
            "PasswordAuthentication no", "KbdInteractiveAuthentication no", "MaxStartups 100",
            *(["PerSourcePenalties no"] if has_penalties() else []), *server,
        ]  # fmt: skip
        (path / "sshd_config").write_text("\n".join(lines) + "\n")
        options = ["-F", "/dev/null", "-i", path / "client", "-o", f"UserKnownHostsFile={path}/known", "-T"]
        words = [*map(str, options), "-o", "BatchMode=yes", *(word for line in client for word in ("-o", line))]
        self.rsh = shlex.join(["ssh", *words, "-p", str(self.port)])

    def __enter__(self) -> Sshd:
        self.log = (self._path / "log").open("wb")
        self.process = subprocess.Popen(
            [*self._inside, SSHD, "-D", "-e", "-f", str(self._path / "sshd_config")], stdout=self.log, stderr=self.log
        )
        try:
            wait_until(self._is_listening)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()

    def allow(self, restriction: str) -> None:
        """What the client's key may do."""
        (self._path / "authorized").write_text(f"{restriction} {(self._path / 'client.pub').read_text()}".lstrip())

    def _is_listening(self) -> bool:
        said = (self._path / "log").read_text()
        assert self.process.poll() is None, said
        return "Server listening" in said


@contextmanager
def running_sshd(path: Path, address: str = "127.0.0.1", **options: Sequence[str]) -> Iterator[Sshd]:
    """An sshd, where openssh is installed; options as of Sshd."""
    require(os.access(SSHD, os.X_OK) and shutil.which("ssh") and shutil.which("ssh-keygen"), "openssh is not installed")
    made = False
    if os.geteuid() == 0 and not SEPARATION.exists():
        SEPARATION.mkdir(mode=0o755)
        made = True
    try:
        with Sshd(path, address, **options) as server:
            yield server
    finally:
        if made:
            SEPARATION.rmdir()


def in_login_shell(program: str) -> str:
    """For --remote-path: a login shell there does not know where the tool under test is."""
    source = Path(mirrortool.__path__[0]).parent
    return f"env PYTHONPATH={shlex.quote(str(source))} {program}"


def has_penalties() -> bool:
    """Whether sshd shuts out addresses that fail often: since OpenSSH 9.8."""
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    number = version.removeprefix("OpenSSH_").split("p")[0]
    return tuple(map(int, number.split("."))) >= (9, 8)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
