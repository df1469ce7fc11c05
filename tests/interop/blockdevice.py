"""An export as a block device, which nbdfuse and a loop device make of it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.fakes.loop import call
from tests.fakes.waiting import wait_until


class Serving(Protocol):
    """What serves NBD clients."""

    def uri(self, name: str = ...) -> str:
        """The address of an export."""


@contextlib.contextmanager
def block_device(live: Serving, where: Path, name: str = "disk") -> Iterator[str]:
    """A loop device that is an export."""
    where.mkdir()
    fuse = subprocess.Popen(["nbdfuse", where, live.uri(name)])
    try:
        wait_for_file(where / "nbd", fuse)
        device = call("losetup", "--show", "--find", where / "nbd").strip()
        try:
            yield device
        finally:
            call("losetup", "--detach", device)
    finally:
        wait_until(lambda: fuse.poll() is not None or is_unmounted(where))
        fuse.wait(30)


def is_unmounted(where: Path) -> bool:
    """Whether it could be unmounted: who looks at all loop devices keeps one busy for a moment."""
    return subprocess.run(["fusermount3", "-u", where], capture_output=True, check=False).returncode == 0


def wait_for_file(path: Path, process: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: path.exists() or process.poll() is not None)
    assert process.poll() is None, "nbdfuse ended"
