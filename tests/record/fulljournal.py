"""A journal whose file system is full when a test says so, and a client that knows what it wrote meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mirrortool import files
from mirrortool.errors import NoSpaceError
from mirrortool.journal.directory import Journal
from mirrortool.record.detach import WhenFull
from mirrortool.record.missingsegments import load_noted
from mirrortool.record.recorder import Recorder
from tests.fakes.recorders import check_everywhere, quiet_recorder
from tests.fakes.volumes import Primary

SEGMENT = 16 << 20
SIZE = 3 * SEGMENT + 9
RESERVE = 64 << 10


class Full:
    """A journal whose file system has no room while `is_full` is set; small files have the reserve's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        real = files.File.pwritev

        def pwritev(file: files.File, buffers: Any, offset: int) -> None:
            if self.is_full and file.path.endswith(".mj"):
                raise NoSpaceError("full", where=file.path)
            real(file, buffers, offset)

        monkeypatch.setattr(files.File, "pwritev", pwritev)
        monkeypatch.setattr(files, "free_bytes", lambda _: 0 if self.is_full else 1 << 40)


class Client:
    """Writes through a recorder and knows what it wrote."""

    def __init__(self, primary: Primary, recorder: Recorder) -> None:
        self.primary, self.recorder = primary, recorder
        self.contents = {name: bytearray(content) for name, content in primary.contents().items()}

    def write(self, name: str, offset: int, data: bytes) -> None:
        self.recorder.write(name, offset, data)
        self.contents[name][offset : offset + len(data)] = data
        assert self.recorder.read(name, offset, len(data)) == data

    def zero(self, name: str, offset: int, length: int) -> None:
        self.recorder.zero(name, offset, length)
        self.contents[name][offset : offset + length] = bytes(length)

    def check(self, recorder: Recorder) -> None:
        for name, content in self.contents.items():
            assert recorder.read(name, 0, len(content)) == content

    def check_everywhere(self) -> None:
        check_everywhere(self.primary, {name: bytes(content) for name, content in self.contents.items()})


def detaching(primary: Primary) -> Any:
    return quiet_recorder(primary, when_full=WhenFull.DETACH, reserve=RESERVE)


@contextmanager
def clients_moment(recorder: Recorder) -> Iterator[None]:
    """What clients may do between two steps of a thread that holds the journal's lock, in that thread."""
    lock = recorder._journal.lock
    lock.release()
    try:
        yield
    finally:
        lock.acquire()


def noted(primary: Primary) -> list[int]:
    return sorted(load_noted(Journal(primary.journal_path)).segments)
