"""Small mounted file systems, where this process may make them; volumes.py has loop devices and what happens if not."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.volumes import unavailable


def require(condition: object, reason: str) -> None:
    """Skip, or under CI fail, unless something is there."""
    if not condition:
        unavailable(reason)


def require_tools(*names: str) -> None:
    """The programs of e2fsprogs and the like."""
    for name in names:
        require(shutil.which(name), f"{name} is not installed")


def require_loops() -> None:
    """Root, and a kernel with a free loop device."""
    require(os.geteuid() == 0, "needs root")
    require_tools("losetup", "mount", "umount", "mke2fs")
    found = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    require(found.returncode == 0, f"no loop device: {found.stderr.strip()}")


def call(*command: object, check: bool = True) -> str:
    """Run a program and return what it prints."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def mounted(image: Path | str, where: Path, *options: str) -> Iterator[Path]:
    """The file system in an image or on a device."""
    where.mkdir(exist_ok=True)
    loop = [] if str(image).startswith("/dev/") else ["loop"]
    call("mount", "-o", ",".join(["rw", *loop, *options]), image, where)
    try:
        yield where
    finally:
        call("umount", where)


@contextmanager
def small_file_system(path: Path, size: int) -> Iterator[Path]:
    """An ext4 of so many bytes, mounted."""
    image = path / "small.img"
    with open(image, "wb") as file:
        file.truncate(size)
    call("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", image)
    with mounted(image, path / "small") as where:
        yield where
