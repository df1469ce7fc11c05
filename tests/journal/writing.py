"""What the tests of the writer share: calls that are noted, held up or fail, and what was appended."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mirrortool import files
from mirrortool.errors import host_error
from mirrortool.files import Buffer, File
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.writer import JournalWriter
from tests.journal.sample import (
    read_all,
    write_batch,
)


def put(writer: JournalWriter, page: int) -> Position:
    """Append without reading back, which would make it durable."""
    return writer.append(write_batch(page, page), captured=False, state_sum=page)


def positions(journal: Journal) -> list[Position]:
    return [frame.position for frame in read_all(Journal(journal.path)).frames]


def fail_with(number: int, *, after: int = 0) -> Callable[..., None]:
    """A pwritev that writes some bytes and then fails."""

    def fail(file: File, buffers: Sequence[Buffer], offset: int) -> None:
        if after:
            os.pwrite(file.fileno(), b"".join(buffers)[:after], offset)
        raise host_error(OSError(number, "no"), file.path, "write")

    return fail


class Calls:
    """The order of what happens to files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        for name in ("fdatasync", "pwritev", "pwrite", "truncate"):
            self._spy(monkeypatch, File, name, lambda file: files.base_name(file.path))
        self._spy(monkeypatch, files, "open_file", files.base_name)
        self._spy(monkeypatch, files, "sync_directory", files.base_name)

    def _spy(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, label: Callable[[Any], str]) -> None:
        real = getattr(owner, name)

        def spy(first: Any, *args: Any, **options: Any) -> Any:
            self.names.append(f"{name} {label(first)}")
            return real(first, *args, **options)

        monkeypatch.setattr(owner, name, spy)
