"""What a writer says is durable is so, whatever waits or fails, and in the file that the path leads to."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from mirrortool.errors import HostError, InputOutputError, host_error
from mirrortool.files import File
from mirrortool.journal import format as layout
from mirrortool.journal.directory import Journal
from tests.conftest import FakeClock
from tests.fakes.waiting import PATIENCE_SECONDS, in_thread, join
from tests.journal.sample import (
    append,
    last_file,
    make_journal,
    open_writer,
    read_all,
    write_batch,
)
from tests.journal.writing import Calls, fail_with, positions, put

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def journal(tmp_path: pathlib.Path, fake_clock: FakeClock) -> Journal:  # noqa: ARG001
    return make_journal(tmp_path / "journal")


def test_sync_costs_nothing_when_all_is_durable(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    assert writer.sync() == writer.durable == writer.position
    calls = Calls(monkeypatch)
    writer.sync()
    assert calls.names == []


def test_a_failed_fdatasync_is_never_tried_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    durable = writer.sync()
    append(writer, write_batch(1, 2))

    def fail(file: File) -> None:
        raise host_error(OSError(errno.EIO, "no"), file.path, "make durable")

    with monkeypatch.context() as patch:
        patch.setattr(File, "fdatasync", fail)
        with pytest.raises(InputOutputError, match="cannot make durable"):
            writer.sync()
    calls = Calls(monkeypatch)
    for again in (lambda: append(writer, write_batch(1, 2)), writer.sync, writer.close):
        with pytest.raises(InputOutputError, match="earlier failure"):
            again()
    assert calls.names == []
    assert writer.durable == durable
    assert Journal(journal.path).clean_end is None


class Gate:
    """Holds every fdatasync of a journal file until it is opened.

    Attributes:
        entered: set when one waits.
        count: how many there were.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self._open = threading.Event(), threading.Event()
        self.count = 0
        self.descriptors: list[int] = []
        monkeypatch.setattr(File, "fdatasync", lambda file: self._fdatasync(file))

    def open(self) -> None:
        self._open.set()

    def _fdatasync(self, file: File) -> None:
        if not file.path.endswith(".mj"):
            return
        self.count += 1
        self.entered.set()
        assert self._open.wait(PATIENCE_SECONDS)
        self.descriptors.append(file.fileno())


def test_what_is_appended_during_an_fdatasync_is_not_durable_with_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(journal)
    first = put(writer, 0)
    gate = Gate(monkeypatch)
    syncing = in_thread(writer.sync)
    assert gate.entered.wait(PATIENCE_SECONDS)
    second = put(writer, 1)  # is not held up by it
    assert writer.durable == journal.start
    gate.open()
    join(syncing)
    assert writer.durable == first
    assert writer.sync() == second


def test_who_waits_for_an_fdatasync_shares_the_next(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(journal)
    put(writer, 0)
    gate = Gate(monkeypatch)
    threads = [in_thread(writer.sync)]
    assert gate.entered.wait(PATIENCE_SECONDS)
    put(writer, 1)
    threads += [in_thread(writer.sync) for _ in range(20)]
    gate.open()
    join(*threads)
    assert gate.count == 2
    assert writer.durable == writer.position


def test_a_file_is_not_closed_under_an_fdatasync(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread makes it durable while another begins its successor."""
    writer = open_writer(journal, file_bytes=150)
    first = put(writer, 0)
    gate = Gate(monkeypatch)
    syncing = in_thread(writer.sync)
    assert gate.entered.wait(PATIENCE_SECONDS)
    appended: list[Any] = []
    appending = in_thread(lambda: appended.append(put(writer, 1)))
    gate.open()
    join(syncing, appending)
    assert all(descriptor >= 0 for descriptor in gate.descriptors)
    assert journal.file_starts() == [1, 2]
    assert writer.durable == first
    writer.close()
    assert positions(journal) == [first, appended[0]]


def test_syncs_and_rotations_at_random_leave_nothing_behind(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """`durable` never goes back, and never names what no fdatasync covered."""
    writer = open_writer(journal, file_bytes=400)
    synced: dict[str, int] = {}

    def fdatasync(file: File) -> None:
        if file.path.endswith(".mj"):
            size = os.fstat(file.fileno()).st_size
            time.sleep(0)
            synced[file.path] = max(size, synced.get(file.path, 0))

    monkeypatch.setattr(File, "fdatasync", fdatasync)
    stop = threading.Event()
    wrong: list[object] = []

    def sync() -> None:
        newest = 0
        while not stop.is_set():
            wanted = writer.position.lsn
            durable = writer.sync().lsn
            if durable < max(newest, wanted):
                wrong.append((newest, wanted, durable))
            newest = durable

    threads = [in_thread(sync) for _ in range(2)]
    frames = [put(writer, page) for page in range(80)]
    stop.set()
    join(*threads)
    assert not wrong
    writer.sync()
    assert {path: os.path.getsize(path) for path in synced} == synced
    assert positions(journal) == frames


def test_a_failed_append_that_cannot_be_made_durable_ends_a_sync_that_waits(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells one of two fdatasyncs of a descriptor what failed; the other must not believe its success."""
    writer = open_writer(journal)
    put(writer, 0)
    entered, leave = threading.Event(), threading.Event()
    calls: list[str] = []

    def fdatasync(file: File) -> None:
        calls.append(file.path)
        if len(calls) == 1:
            entered.set()
            assert leave.wait(PATIENCE_SECONDS)
            raise InputOutputError("no", where=file.path)

    monkeypatch.setattr(File, "fdatasync", fdatasync)
    monkeypatch.setattr(File, "pwritev", fail_with(errno.EIO))
    failed: list[object] = []

    def fail() -> None:
        try:
            put(writer, 1)
        except HostError as error:
            failed.append(error)

    def sync() -> None:
        try:
            failed.append(writer.sync())
        except HostError as error:
            failed.append(error)

    appending = in_thread(fail)
    assert entered.wait(PATIENCE_SECONDS)
    syncing = in_thread(sync)
    syncing.join(0.05)
    leave.set()
    join(appending, syncing)
    assert len(failed) == 2 and all(isinstance(each, HostError) for each in failed)
    assert writer.durable == journal.start


def delete_file(journal: Journal) -> None:
    os.unlink(last_file(journal))


def replace_file(journal: Journal) -> None:
    path = pathlib.Path(last_file(journal))
    path.with_suffix(".other").write_bytes(path.read_bytes())
    path.with_suffix(".other").rename(path)


def move_files(journal: Journal) -> None:
    pathlib.Path(journal.files_path).rename(f"{journal.files_path}.moved")


def delete_journal(journal: Journal) -> None:
    shutil.rmtree(journal.path)


def replace_journal(journal: Journal) -> None:
    """By what a backup has of it."""
    shutil.copytree(journal.path, f"{journal.path}.backup", symlinks=True)
    shutil.rmtree(journal.path)
    pathlib.Path(f"{journal.path}.backup").rename(journal.path)


@pytest.mark.parametrize("is_durable", [False, True])
@pytest.mark.parametrize("lose", [delete_file, replace_file, move_files, delete_journal, replace_journal])
def test_nothing_is_durable_in_a_file_that_was_deleted_or_replaced(
    journal: Journal, lose: Callable[[Journal], None], is_durable: bool
) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    durable = writer.sync()
    if not is_durable:
        append(writer, write_batch(1, 1))
    lose(journal)
    left = {path: path.read_bytes() for path in pathlib.Path(journal.path).rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(InputOutputError):
            writer.sync()
    assert writer.is_dead
    assert writer.durable == durable
    with pytest.raises(InputOutputError):
        append(writer, write_batch(2, 1))
    with pytest.raises(InputOutputError):
        writer.close()
    assert {path: path.read_bytes() for path in pathlib.Path(journal.path).rglob("*") if path.is_file()} == left


def test_the_error_names_the_file_and_the_way_out(journal: Journal) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    path = last_file(journal)
    os.unlink(path)
    with pytest.raises(InputOutputError, match=r"deleted or replaced.*bring back what was there") as lost:
        writer.sync()
    assert (lost.value.where, lost.value.exit_code) == (str(path), 31)


def test_a_journal_may_be_reached_by_a_link(journal: Journal) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    pathlib.Path(journal.path).rename(f"{journal.path}.moved")
    os.symlink(f"{journal.path}.moved", journal.path)
    writer.sync()
    append(writer, write_batch(1, 1))
    writer.close()
    assert len(read_all(Journal(journal.path)).frames) == 2


@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_what_somebody_else_appended_is_not_overwritten(journal: Journal, change: int) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    writer.sync()
    path = pathlib.Path(last_file(journal))
    others = path.read_bytes()[:change] if change < 0 else path.read_bytes() + bytes(change)
    with path.open("r+b") as file:  # the same inode
        file.truncate(0)
        file.write(others)
    for _ in range(2):
        with pytest.raises(InputOutputError):
            append(writer, write_batch(1, 1))
    assert writer.is_dead
    with pytest.raises(InputOutputError):
        writer.close()
    assert path.read_bytes() == others
    assert Journal(journal.path).clean_end is None


def test_a_file_that_somebody_else_began_is_not_begun_anew(journal: Journal) -> None:
    writer = open_writer(journal, file_bytes=150)
    append(writer, write_batch(0, 1))
    path = pathlib.Path(journal.file_path(2))
    path.write_bytes(b"x" * (layout.FILE_HEADER.size + 1))
    with pytest.raises(InputOutputError, match="somebody else wrote to it"):
        append(writer, write_batch(1, 1))
    assert writer.is_dead
    assert path.read_bytes() == b"x" * (layout.FILE_HEADER.size + 1)


def test_the_first_file_is_not_begun_in_another_directory(journal: Journal) -> None:
    writer = open_writer(journal)
    move_files(journal)
    os.mkdir(journal.files_path)
    with pytest.raises(InputOutputError, match="deleted or replaced"):
        append(writer, write_batch(0, 1))
    assert os.listdir(journal.files_path) == []
