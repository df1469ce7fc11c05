"""NBD servers that users have, each of the test's own: nbdkit and qemu-nbd, at a socket in a directory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.loop import call, require_tools
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import wait_until

SECONDS_TO_END = 10.0


@contextmanager
def nbdkit(*arguments: str) -> Iterator[str]:
    """The URI of an nbdkit with these arguments."""
    require_tools("nbdkit")
    with fast_directory() as path, serving_process(Path(path), "nbdkit", "-f", "-U", f"{path}/s", *arguments):
        yield f"nbd+unix:///?socket={path}/s"


@contextmanager
def qemu_nbd(*arguments: object) -> Iterator[str]:
    """The URI of a qemu-nbd with these arguments."""
    require_tools("qemu-nbd")
    words = map(str, arguments)
    with fast_directory() as path, serving_process(Path(path), "qemu-nbd", "-t", "-k", f"{path}/s", *words):
        yield f"nbd+unix:///?socket={path}/s"


@contextmanager
def qcow2(size: int, *arguments: str) -> Iterator[str]:
    """The URI of a qemu-nbd with a new qcow2 image that takes eight clients."""
    require_tools("qemu-img", "qemu-nbd")
    with fast_directory() as path:
        call("qemu-img", "create", "-q", "-f", "qcow2", f"{path}/disk.qcow2", size)
        with qemu_nbd("-e", "8", "-f", "qcow2", *arguments, f"{path}/disk.qcow2") as uri:
            yield uri


@contextmanager
def serving_process(directory: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens at `s` in the directory."""
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: (directory / "s").exists() or running.poll() is not None)
        assert running.poll() is None
        yield running
    finally:
        running.kill()
        running.wait(SECONDS_TO_END)
