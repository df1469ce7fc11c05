"""Primaries, mirrors and loop devices for tests; small, in a directory of the test's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from mirrortool import files
from mirrortool.errors import HostError
from mirrortool.journal.directory import Journal, create
from mirrortool.journal.recordercheckpoint import VolumeRecord
from mirrortool.journal.writer import JournalWriter
from mirrortool.mirror.directory import Mirror
from mirrortool.record import recovery
from mirrortool.record.scan import Scan, ScanResult
from mirrortool.replay.session import Replay
from mirrortool.volume import place
from tests.fakes.serial import volumes_at

PAGE = 512
_LONG_AGO_NS = 10**18


def unavailable(why: str) -> None:
    """Skip the test, but fail it where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must offer this: {why}")
    pytest.skip(why)


@contextlib.contextmanager
def fast_directory() -> Iterator[str]:
    """A directory in memory where there is one, for tests that make things durable a thousand times."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.path.isdir(memory) else None) as path:
        yield path


def can_hold(directory: str, size: int) -> bool:
    """Whether the file system of a directory takes a sparse file of this size."""
    with files.open_file(f"{directory}/probe", write=True, create=True) as file:
        try:
            file.truncate(size)
        except HostError:
            return False
        finally:
            files.remove(file.path)
    return True


@contextlib.contextmanager
def inside_fast_directory() -> Iterator[str]:
    """The same, as the current directory."""
    with fast_directory() as path, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


@contextlib.contextmanager
def written_back_directory(*wanted: object) -> Iterator[str]:
    """A directory in one of these, or else in /var/tmp or here, on a file system that is not in memory."""
    for parent in (*map(str, wanted), "/var/tmp", "."):
        kind = subprocess.run(["stat", "-f", "-c", "%T", parent], capture_output=True, text=True, check=True).stdout
        if kind.strip() not in ("tmpfs", "ramfs") and os.access(parent, os.W_OK):
            with tempfile.TemporaryDirectory(dir=parent) as path:
                yield path
            return
    unavailable("every directory is in memory")


@contextlib.contextmanager
def loop_device(directory: object, size: int, name: str = "disk") -> Iterator[str]:
    """The path of a block device of `size` bytes that reads as zeros."""
    if os.geteuid() or not shutil.which("losetup"):
        unavailable("loop devices need root and losetup")
    backing = os.path.join(str(directory), f"{name}.backing")
    with open(backing, "wb") as file:
        file.truncate(size)
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True)
    if made.returncode:
        unavailable(f"losetup: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def loop_mount(directory: object, size: int, *options: str) -> Iterator[str]:
    """A mounted ext4 file system of `size` bytes."""
    if not shutil.which("mkfs.ext4"):
        unavailable("needs mkfs.ext4")
    place = os.path.join(str(directory), "mounted")
    os.mkdir(place)
    with loop_device(directory, size, "mounted-disk") as device:
        subprocess.run(["mkfs.ext4", "-q", "-m0", "-b1024", "-O", "^has_journal", device], check=True)
        mounted = subprocess.run(["mount", *options, device, place], capture_output=True, text=True)
        if mounted.returncode:
            unavailable(f"mount: {mounted.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)


def fill_up(directory: str, leave: int = 0) -> None:
    """Use up the space of a file system but for about `leave` bytes."""
    free = files.free_bytes(directory)
    with open(os.path.join(directory, "filler"), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - leave))


def pattern(number: int, length: int) -> bytes:
    """Bytes that differ from page to page, and are not zeros."""
    out = b"".join(b"%08d%08d" % (number, i) for i in range(length // 16 + 1))
    return out[:length]


def make_old(path: str) -> None:
    """Say that a file was last written long ago, so that a scan need not wait for the clock to move on."""
    os.utime(path, ns=(_LONG_AGO_NS, _LONG_AGO_NS))


@dataclass
class Primary:
    """A journal and its volumes."""

    directory: str
    paths: dict[str, str]

    @property
    def journal_path(self) -> str:
        return os.path.join(self.directory, "journal")

    @property
    def journal(self) -> Journal:
        """As it is now."""
        return Journal(self.journal_path)

    def write(self, name: str, offset: int, data: bytes) -> None:
        with open(self.paths[name], "r+b") as file:
            file.seek(offset)
            file.write(data)
        make_old(self.paths[name])

    def punch(self, name: str, offset: int, length: int) -> None:
        """Make a hole."""
        with files.open_file(self.paths[name], write=True) as file:
            file.punch(offset, length)
        make_old(self.paths[name])

    def resize(self, name: str, size: int) -> None:
        os.truncate(self.paths[name], size)
        make_old(self.paths[name])

    def replace(self, name: str, content: bytes) -> None:
        """Another file in its place, as an editor would."""
        other = f"{self.paths[name]}.other"
        with open(other, "wb") as file:
            file.write(content)
        make_old(other)
        os.rename(other, self.paths[name])

    def contents(self) -> dict[str, bytes]:
        """The volumes' bytes as they are now."""
        return {name: read_bytes(path) for name, path in self.paths.items()}

    def scan(self, **options: Any) -> ScanResult:
        with Scan(self.journal_path, **options) as scan:
            return scan.run()

    def check(self) -> None:
        """The journal holds exactly the volumes."""
        assert volumes_at(self.journal) == self.contents()

    def mirror(self, name: str = "mirror", **options: Any) -> Mirror:
        """Replay into a mirror, which is made if it does not exist."""
        path = os.path.join(self.directory, name)
        with Replay(self.journal_path, path, **options) as replay:
            replay.run()
        return Mirror(path)


def make_primary(directory: object, contents: Mapping[str, bytes | int], page_size: int = PAGE) -> Primary:
    """Volumes with contents (a number: that many zeros, sparse), and an empty journal beside them."""
    paths = {}
    for name, content in contents.items():
        paths[name] = os.path.join(str(directory), f"{name}.vol")
        write_file(paths[name], content)
    adopt(directory, paths, page_size)
    return Primary(str(directory), paths)


def make_scanned(directory: object, contents: Mapping[str, bytes | int], page_size: int = PAGE) -> Primary:
    """A primary whose journal has all that its volumes hold."""
    primary = make_primary(directory, contents, page_size)
    primary.scan()
    return primary


def adopt(directory: object, paths: Mapping[str, str], page_size: int = PAGE) -> Primary:
    """An empty journal for volumes that exist."""
    facts = {}
    for name, path in paths.items():
        with files.open_file(path) as file:
            facts[name] = file.facts()
    volumes = place([(name, fact.size) for name, fact in facts.items()], page_size)
    records = {name: VolumeRecord.of(fact) for name, fact in facts.items()}
    create(os.path.join(str(directory), "journal"), volumes, paths, records)
    return Primary(str(directory), dict(paths))


def write_file(path: str, content: bytes | int) -> None:
    """A file with this content, or a hole of this length."""
    with open(path, "wb") as file:
        if isinstance(content, int):
            file.truncate(content)
        else:
            file.write(content)
    make_old(path)


def read_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def small_journal_files(monkeypatch: pytest.MonkeyPatch, file_bytes: int) -> None:
    """Let recorders begin a new journal file after this many bytes."""

    def writer(journal: Journal, end: Any, **rest: Any) -> JournalWriter:
        return JournalWriter(journal, end, file_bytes=file_bytes, **rest)

    monkeypatch.setattr(recovery, "JournalWriter", writer)
