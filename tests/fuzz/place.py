"""Where targets keep files: in memory where there is such a file system, and removed when the process ends."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.fakes.journals import JournalMaker

VARIABLE = "MIRRORTOOL_FUZZ_PLACE"
"""A directory that whatever started this process removes."""


@functools.cache
def scratch() -> Path:
    """A directory of this process."""
    if given := os.environ.get(VARIABLE):
        return Path(tempfile.mkdtemp(dir=given))
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    made = tempfile.mkdtemp(prefix="mirrortool-fuzz-", dir=where)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


class Written:
    """A file that is written anew for each input."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = str(path)

    def put(self, data: bytes) -> None:
        """Let it hold these bytes and no others."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def known_numbers() -> Iterator[None]:
    """What is made meanwhile has the same uuids in every process, so that kept inputs stay of the same journal."""
    numbers, whole = itertools.count(1), secrets.token_bytes
    secrets.token_bytes = lambda length=32: bytes([next(numbers)]) * (length or 32)
    try:
        yield
    finally:
        secrets.token_bytes = whole


def journal_maker(name: str, sizes: Mapping[str, int], *, file_bytes: int = 64 << 20) -> JournalMaker:
    """A journal in the scratch directory, with the same uuid whatever its name."""
    path = scratch() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with known_numbers():
        return JournalMaker(path, sizes, file_bytes=file_bytes)
