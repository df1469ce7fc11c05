"""The README's two commands on a machine that has nothing but Debian and its Python: a container, no network inside.

Its /tmp is a tmpfs of 2.4 GB, as Debian 13 and Fedora have it. Run by

    python -m pytest -m soak -s tests/interop/test_bare_container.py

It needs about ten minutes, root, debootstrap, systemd-nspawn, a mirror of Debian and a package index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.readme import README, ROOT
from tests.fakes.loop import call, require, require_tools
from tests.fakes.volumes import unavailable

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

SUITE = "bookworm"
PYTHON = "3.11"
MIRROR = "http://deb.debian.org/debian"
TMP_MIB = 2400
PEAK_MIB = 1000
"""What README says that the tests need in the temporary directory."""

SCRIPT = """
(while sleep 0.3; do df --output=used -m /tmp | tail -1; done >/root/used) &
sampler=$!
trap 'kill $sampler' EXIT
cd /root/clone
{command}
find /tmp -mindepth 1 -not -type d -not -path '/tmp/.*' >/root/left
"""


def commands() -> tuple[str, str]:
    """To try it, and to test it."""
    first, *_, last = re.findall(r"^```sh\n(python3 -m venv .*?)^```$", README, re.DOTALL | re.MULTILINE)
    return first, last


def requirements() -> list[str]:
    """Of the package, its tests and its build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [each for extra in project["project"]["optional-dependencies"].values() for each in extra]
    wanted = project["project"]["dependencies"] + extras + project["build-system"]["requires"]
    return ["editables", *(each for each in wanted if not each.startswith("mirrortool["))]


class Container:
    """A root directory with a bare Debian, a clone of this checkout, and a tmpfs at /tmp for each run."""

    def __init__(self, path: Path) -> None:
        self.root, self._wheels = path / "root", path / "wheels"
        call("debootstrap", "--variant=minbase", "--include=python3-venv", SUITE, self.root, MIRROR)
        only = ["--only-binary=:all:", "--python-version", PYTHON]
        call(sys.executable, "-m", "pip", "download", "-q", *only, "-d", self._wheels, *requirements())
        listed = call("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, listed.split("\0")):
            target = self.root / "root/clone" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((ROOT / name).stat().st_mode)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell's line where the clone is."""
        words = ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--pipe", "--private-network"]
        words += ["-D", str(self.root), f"--tmpfs=/tmp:mode=1777,size={TMP_MIB}M", f"--bind-ro={self._wheels}:/wheels"]
        words += ["--setenv=PIP_NO_INDEX=1", "--setenv=PIP_FIND_LINKS=/wheels"]
        (self.root / "root/script").write_text(SCRIPT.format(command=command))
        return subprocess.run([*words, "bash", "-eu", "/root/script"], capture_output=True, text=True, check=False)

    @property
    def peak_mib(self) -> int:
        """The most that the newest run had in /tmp."""
        return max(map(int, (self.root / "root/used").read_text().split()))

    @property
    def left(self) -> list[str]:
        """What the newest run left there."""
        return (self.root / "root/left").read_text().splitlines()


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    require(os.geteuid() == 0, "needs root")
    require_tools("debootstrap", "systemd-nspawn", "git")
    try:
        yield Container(tmp_path_factory.mktemp("bare"))
    except AssertionError as error:
        unavailable(f"no bare Debian: {error}")


def test_it_can_be_tried(container: Container) -> None:
    done = container.run(commands()[0])
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert container.left == []


def test_its_tests_pass_and_leave_nothing(container: Container) -> None:
    done = container.run(commands()[1])
    print(done.stdout[-3000:])
    print(f"peak in /tmp: {container.peak_mib} MiB")
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]
    assert container.left == []
    assert container.peak_mib < PEAK_MIB
