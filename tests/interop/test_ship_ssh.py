"""Shipping through a real ssh to a real sshd on loopback, with keys and a configuration of their own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool.journal.directory import Journal
from mirrortool.journal.rawframes import find_end
from tests.docs.workshop import environment, make_image, run
from tests.fakes.daemon import Daemon, children_of
from tests.fakes.sshd import Sshd, in_login_shell, running_sshd
from tests.interop.tool import Site
from tests.ship.pairs import assert_same


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


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
    return in_login_shell(f"{shlex.quote(str(site.path))}/bin/mirrortool")


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
        shipping.wait_until(lambda: any("connected again" in line for line in shipping.lines))  # at the next tick
    assert_same(Path("journal"), copy)


def has_everything(copy: Path) -> bool:
    """Whether the copy ends where the journal does, which is idle."""
    return (copy / "journal.json").exists() and find_end(Journal(str(copy))) == find_end(Journal("journal"))
