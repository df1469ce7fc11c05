"""Shipping through a real ssh to a real sshd on loopback, with keys and a configuration of their own."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool.journal.directory import Journal
from mirrortool.journal.runs import find_end
from tests.docs.workshop import environment, make_image, run
from tests.fakes.daemon import Daemon, children_of
from tests.fakes.volumes import unavailable
from tests.fakes.waiting import wait_until
from tests.interop.tool import Site
from tests.ship.pairs import assert_same

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
SEPARATION = Path("/run/sshd")
"""sshd that is started by root wants this directory for its unprivileged part."""


class Sshd:
    """An sshd for the user who runs the tests, and nobody else.

    Attributes:
        rsh: the command that takes the place of ssh, for --rsh.
        host: what names it in a destination.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.port = free_port()
        self.host = f"{getpass.getuser()}@127.0.0.1"
        for name in ("host", "client"):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path / name)
        (path / "known").write_text(f"[127.0.0.1]:{self.port} {(path / 'host.pub').read_text()}")
        self.allow("")
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {path}/host", f"PidFile {path}/pid",
            f"AuthorizedKeysFile {path}/authorized", "StrictModes no", "UsePAM no", "PermitRootLogin yes",
            "PasswordAuthentication no", "KbdInteractiveAuthentication no", "MaxStartups 100",
            *(["PerSourcePenalties no"] if has_penalties() else []),
        ]  # fmt: skip
        (path / "sshd_config").write_text("\n".join(lines) + "\n")
        options = ["-F", "/dev/null", "-i", path / "client", "-o", f"UserKnownHostsFile={path}/known", "-T"]
        self.rsh = shlex.join(["ssh", *map(str, options), "-o", "BatchMode=yes", "-p", str(self.port)])

    def __enter__(self) -> Sshd:
        self.log = (self._path / "log").open("wb")
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self._path / "sshd_config")], stdout=self.log, stderr=self.log
        )
        wait_until(self._is_listening)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self.log.close()

    def allow(self, restriction: str) -> None:
        """What the client's key may do."""
        (self._path / "authorized").write_text(f"{restriction} {(self._path / 'client.pub').read_text()}".lstrip())

    def _is_listening(self) -> bool:
        assert self._process.poll() is None, (self._path / "log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


def has_penalties() -> bool:
    """Whether sshd shuts out addresses that fail often: since OpenSSH 9.8."""
    version = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr
    number = version.removeprefix("OpenSSH_").split("p")[0]
    return tuple(map(int, number.split("."))) >= (9, 8)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def call(*command: object) -> None:
    subprocess.run([str(each) for each in command], check=True, capture_output=True)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not (os.access(SSHD, os.X_OK) and shutil.which("ssh") and shutil.which("ssh-keygen")):
        unavailable("openssh is not installed")
    made = False
    if os.geteuid() == 0 and not SEPARATION.exists():
        SEPARATION.mkdir(mode=0o755)
        made = True
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server
    if made:
        SEPARATION.rmdir()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A journal in the current directory, and the program under test where the host's user finds it."""
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    site = Site(tmp_path)
    run("init", "journal", "disk=disk.img")
    run("record", "journal", "-q")
    environment(tmp_path / "bin")
    return site


def program(site: Site) -> str:
    """For --remote-path: a login shell there knows nothing of this environment."""
    import mirrortool

    source = Path(mirrortool.__path__[0]).parent
    return f"env PYTHONPATH={shlex.quote(str(source))} {shlex.quote(str(site.path))}/bin/mirrortool"


def ship(site: Site, sshd: Sshd, path: object, *options: object, code: int = 0) -> str:
    return site.run(
        "ship", site.journal, f"{sshd.host}:{path}", "--rsh", sshd.rsh, "--remote-path", program(site), *options,
        code=code,
    )  # fmt: skip


def test_a_copy_through_ssh_is_replayed_and_verified(site: Site, sshd: Sshd) -> None:
    sshd.allow("")
    copy = site.path / "a copy of 'it'"
    assert "up to LSN" in ship(site, sshd, copy)
    assert_same(site.journal, copy)
    with Path("disk.img").open("r+b") as file:
        file.write(b"changed")
    site.run("record", site.journal, "-q")
    url = f"ssh://{sshd.host}:{sshd.port}{str(copy).replace(' ', '%20')}"
    rsh = sshd.rsh.replace(f" -p {sshd.port}", "")
    site.run("ship", site.journal, url, "--rsh", rsh, "--remote-path", program(site), "--slot", "by-url", "--no-slot",
             code=2)  # fmt: skip
    site.run("ship", site.journal, url, "--rsh", rsh, "--remote-path", program(site), "--slot", "by-url")
    assert_same(site.journal, copy)
    site.run("replay", copy, site.mirror, "-q")
    site.run("verify", site.mirror, "-q")


def test_a_forced_command_writes_below_its_directory_only(site: Site, sshd: Sshd) -> None:
    allowed = site.path / "allowed"
    allowed.mkdir()
    sshd.allow(f'restrict,command="{program(site)} receive --restrict-to {allowed}"')
    ship(site, sshd, allowed / "J")
    ship(site, sshd, "K")
    for copy in ("J", "K"):
        assert_same(site.journal, allowed / copy)
    ship(site, sshd, site.path / "elsewhere", code=40)
    assert not (site.path / "elsewhere").exists()


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda sshd: sshd.rsh.replace("/client", "/host"), "Permission denied"),
        (lambda sshd: sshd.rsh.replace(str(sshd.port), "1"), "Connection refused"),
        (lambda sshd: sshd.rsh.replace("/known", "/unknown"), "Host key verification failed"),
    ],
)
def test_the_error_has_what_ssh_said(sshd: Sshd, change: Callable[[Sshd], str], what: str) -> None:
    sshd.allow("")
    done = subprocess.run(
        [sys.executable, "-m", "mirrortool", "ship", "journal", f"{sshd.host}:x", "--rsh", change(sshd)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (40, 1), done.stderr
    assert what in done.stderr


def test_following_goes_on_after_its_ssh_was_killed(site: Site, sshd: Sshd) -> None:
    sshd.allow("")
    copy = site.path / "copy"
    options = ["--follow", "--rsh", sshd.rsh, "--remote-path", program(site)]
    with Daemon("ship", "journal", f"{sshd.host}:{copy}", *options) as shipping:
        for number in range(2):
            shipping.wait_until(lambda: has_everything(copy))
            for child in children_of(shipping.process.pid):
                os.kill(child, signal.SIGKILL)
            with Path("disk.img").open("r+b") as file:
                file.write(bytes([number]) * 10000)
            run("record", "journal", "-q")
        shipping.wait_until(lambda: has_everything(copy))
    assert any("it goes on" in line for line in shipping.lines)
    assert_same(Path("journal"), copy)


def has_everything(copy: Path) -> bool:
    """Whether the copy ends where the journal does, which rests."""
    return (copy / "journal.json").exists() and find_end(Journal(str(copy))) == find_end(Journal("journal"))
