"""systemd accepts the units that `unit` prints, without a warning; and what they leave of the host is enough to record.

systemd-analyze warns of what it does not know with status 0, so its standard error must be empty. No systemd runs here:
the file system and the capabilities of the unit are made by unshare(1), mount(8) and setpriv(1).
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirrortool.nbd.protocol import Command, CommandFlag
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import require, require_tools
from tests.fakes.unitfiles import settings
from tests.interop.tool import Site
from tests.nbd.wire import Client

MIB = 1 << 20
BOX = Path(__file__).with_name("confined.sh")

RECORDS: list[Sequence[str]] = [
    ["--nbd", "unix:/run/mirrortool/disk.sock"],
    ["--nbd", "unix:/run/vm.sock", "--socket-mode", "0660", "--socket-group", "kvm", "--when-full", "detach"],
    ["--nbd", "tcp:[::]:10809", "--insecure", "--max-connections", "3", "-q"],
    ["--nbd", "tcp:0.0.0.0:809", "--tls-certificates", "certificates"],
    ["--every", "10m", "--metrics-file", "metrics dir/m.prom"],
    [
        "--every",
        "1h",
        "--before",
        "lvcreate -n 'a b' \"$HOME\" 100% \\ ;",
        "--after",
        ";",
        "--source",
        "disk=/dev/vg/x",
    ],
]
NAMES = ["plain", "with a blank", "a%b", "$HOME", "quo'te\"s", "back\\slash", "ümläut", ";", "@-+!:x"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    (tmp_path / "disk.img").write_bytes(random.Random(7).randbytes(MIB))
    return made


def check(site: Site, *arguments: object) -> dict[str, str]:
    """What `unit` prints for these arguments is a unit for systemd; its settings."""
    require_tools("systemd-analyze")
    text = site.run("unit", "-q", *arguments)
    path = site.path / "mirrortool-test.service"
    path.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    return settings(text)


def test_units_are_understood(site: Site) -> None:
    site.init(f"disk={site.path}/disk.img")
    for options in RECORDS:
        check(site, "record", site.journal, *options)
    check(site, "--user-name", "root", "record", site.journal, *RECORDS[3])


def test_units_that_make_directories_are_understood(site: Site) -> None:
    site.init(f"disk={site.path}/disk.img")
    check(site, "ship", site.journal, site.path / "no such", site.path / "quo'te\"s %d $HOME")
    check(
        site, "--user-name", "root", "replay", site.journal, site.path / "M", "--metrics-file", site.path / "n/m.prom"
    )


def test_a_setting_that_systemd_does_not_know_would_be_seen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.init(f"disk={site.path}/disk.img")
    monkeypatch.setattr(Site, "run", lambda *_: "[Service]\nExecStart=/bin/true\nProtectNonsense=yes\n")
    with pytest.raises(AssertionError, match="ProtectNonsense"):
        check(site)


def test_paths_of_any_name_are_understood(site: Site) -> None:
    for name in NAMES:
        volume = site.path / name / "disk.img"
        volume.parent.mkdir()
        volume.write_bytes(b"x" * 4096)
        site.run("init", volume.parent / "J", f"disk={volume}")
        found = check(site, "record", volume.parent / "J", "--every", "1h")
        assert len(shlex.split(found["ReadWritePaths"])) == 1


class Confined(LiveRecorder):
    """A recorder that has of the host what its unit leaves."""

    def __init__(self, journal: Path, found: dict[str, str]) -> None:
        super().__init__(journal)
        paths = [word.removeprefix("-") for word in shlex.split(found["ReadWritePaths"])]
        capabilities = ",".join(
            f"+{name.removeprefix('CAP_').lower()}" for name in found["CapabilityBoundingSet"].split()
        )
        self._box = [BOX, found["UMask"], capabilities, *paths, "--"]

    def command(self) -> list[object]:
        return ["unshare", "--mount", "sh", *self._box, *super().command()]


def test_a_recorder_works_with_what_the_unit_leaves(site: Site) -> None:
    require_tools("unshare", "setpriv")
    require(os.geteuid() == 0, "needs root")
    site.init(f"disk={site.path}/disk.img")
    found = settings(site.run("unit", "-q", "record", site.journal, "--nbd", f"unix:{site.path}/s"))
    outside = site.path.parent / "outside"
    probe = [*Confined(site.journal, found).command()]
    probe = [*probe[: probe.index("--") + 1], "touch", outside]
    done = subprocess.run([str(word) for word in probe], capture_output=True, text=True, check=False)
    require("unshare failed" not in done.stderr, f"no mount namespace: {done.stderr.strip()}")
    assert done.returncode == 1 and "Read-only file system" in done.stderr, "the box is none"
    with Confined(site.journal, found) as live:
        with Client(UnixAddress(str(live.socket))) as client:
            client.go("disk")
            data = os.urandom(MIB // 2)
            assert client.do(Command.WRITE, 0, len(data), CommandFlag.FUA, data).error == 0
            assert client.do(Command.TRIM, MIB // 2, MIB // 4).error == 0
        live.finish()
    site.prove()
    assert not outside.exists()
