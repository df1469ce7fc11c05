"""What the writer appended is there, in order, and a failure never leaves more than it says."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mirrortool import files
from mirrortool.errors import HostError, InputOutputError, NoSpaceError, host_error
from mirrortool.files import Buffer, File
from mirrortool.journal import format as layout
from mirrortool.journal.codec import decode_file_header
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from tests.conftest import FakeClock
from tests.fakes.waiting import PATIENCE_SECONDS, in_thread, join
from tests.journal.sample import (
    append,
    commit_batch,
    journal_files,
    last_file,
    make_journal,
    open_writer,
    read_all,
    write_batch,
)

HOUR = 3600

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def journal(tmp_path: pathlib.Path, fake_clock: FakeClock) -> Journal:  # noqa: ARG001
    return make_journal(tmp_path / "journal")


def header_of(path: pathlib.Path) -> Any:
    return decode_file_header(path.read_bytes())


def fail_with(number: int, *, after: int = 0) -> Callable[..., None]:
    """A pwritev that writes some bytes and then fails."""

    def fail(file: File, buffers: Sequence[Buffer], offset: int) -> None:
        if after:
            os.pwrite(file.fileno(), b"".join(buffers)[:after], offset)
        raise host_error(OSError(number, "no"), file.path, "write")

    return fail


def test_frames_are_read_back_as_they_were_appended(journal: Journal) -> None:
    writer = open_writer(journal)
    frames = [append(writer, write_batch(page, page, 2)) for page in range(5)]
    frames.append(append(writer, commit_batch(0, "mark")))
    assert read_all(journal).frames == frames
    assert writer.position == frames[-1].position
    assert writer.durable == journal.start


def test_an_empty_journal_has_no_file_and_no_end(journal: Journal) -> None:
    writer = open_writer(journal)
    writer.close()
    assert journal_files(journal.path) == []
    assert Journal(journal.path).clean_end is None


def test_a_file_is_full_before_it_exceeds_its_size(journal: Journal) -> None:
    writer = open_writer(journal, file_bytes=1000)
    frames = [append(writer, write_batch(page, page)) for page in range(60)]
    sizes = [path.stat().st_size for path in journal_files(journal.path)]
    assert len(sizes) > 3
    assert max(sizes) <= 1000
    longest = max(frame.end - frame.offset for frame in frames)
    assert min(sizes[:-1]) > 1000 - longest
    assert read_all(journal).frames == frames


@pytest.mark.parametrize(("spare", "second_file"), [(0, 1), (-1, 2)])
def test_a_frame_fills_a_file_to_the_last_byte_its_name_included(
    journal: Journal, spare: int, second_file: int
) -> None:
    first = append(open_writer(journal), commit_batch(0, "m" * 60))
    room = first.end + (first.end - first.offset)
    writer = open_writer(Journal(journal.path), file_bytes=room + spare)
    assert append(writer, commit_batch(0, "m" * 60)).file_first_lsn == second_file


def test_a_frame_larger_than_a_file_has_one_for_itself(journal: Journal) -> None:
    writer = open_writer(journal, file_bytes=150)
    frames = [append(writer, write_batch(page, page)) for page in range(3)]
    assert [frame.file_first_lsn for frame in frames] == [1, 2, 3]
    assert read_all(journal).frames == frames


def test_a_file_ends_an_hour_after_its_first_frame(journal: Journal, fake_clock: FakeClock) -> None:
    writer = open_writer(journal)
    fake_clock.advance(10 * HOUR)
    starts = []
    for seconds in (0, HOUR - 1, 1, 1, HOUR, 1):
        fake_clock.advance(seconds)
        starts.append(append(writer, write_batch(0, 1)).file_first_lsn)
    assert starts == [1, 1, 1, 4, 4, 6]


def test_the_age_of_a_file_does_not_begin_anew_with_the_process(journal: Journal, fake_clock: FakeClock) -> None:
    starts = []
    for _ in range(5):
        writer = open_writer(Journal(journal.path))
        starts.append(append(writer, write_batch(0, 1)).file_first_lsn)
        writer.close()
        fake_clock.advance(HOUR // 2)
    assert starts == [1, 1, 1, 4, 4]


def test_a_clock_that_steps_back_does_not_show(journal: Journal, fake_clock: FakeClock) -> None:
    writer = open_writer(journal, file_bytes=400)
    times = []
    for step in (0, 5, -100, 1, 200, -1, 0):
        fake_clock.advance(step)
        times.append(append(writer, write_batch(0, 1)).time_ns)
    start = times[0]
    assert [(time - start) // 10**9 for time in times] == [0, 5, 5, 5, 106, 106, 106]
    assert [frame.time_ns for frame in read_all(journal).frames] == times


def test_a_given_time_is_taken_unless_it_is_older(journal: Journal) -> None:
    writer = open_writer(journal)
    assert [append(writer, write_batch(0, 1), time_ns=time).time_ns for time in (5, 3, 9)] == [5, 5, 9]


def test_time_goes_on_after_a_restart(journal: Journal, fake_clock: FakeClock) -> None:
    writer = open_writer(journal)
    before = append(writer, write_batch(0, 1)).time_ns
    writer.close()
    fake_clock.advance(-1000)
    writer = open_writer(Journal(journal.path))
    assert append(writer, write_batch(0, 1)).time_ns == before


def test_a_file_header_says_what_was_before_it(journal: Journal, fake_clock: FakeClock) -> None:
    """Also its time: that of the newest frame before, not of the first one in it."""
    writer = open_writer(journal, file_bytes=150)
    frames = []
    for _ in range(3):
        fake_clock.advance(10)
        frames.append(append(writer, write_batch(0, 1)))
    first, *rest = map(header_of, journal_files(journal.path))
    assert (first.start, first.time_ns, first.state_sum) == (journal.start, 0, journal.first_state_sum)
    before = [(frame.position, frame.time_ns, frame.state_sum) for frame in frames]
    assert [(header.start, header.time_ns, header.state_sum) for header in rest] == before[:2]
    assert {header.uuid for header in (first, *rest)} == {journal.uuid}


@pytest.mark.parametrize("size", [0, 1, 127])
def test_a_successor_that_was_only_begun_goes_where_the_next_frame_needs_none(journal: Journal, size: int) -> None:
    """Left there, it would say that the file before it is finished."""
    kept = append(open_writer(journal), write_batch(0, 1))
    pathlib.Path(journal.file_path(2)).write_bytes(bytes(size))
    writer = open_writer(Journal(journal.path))
    frames = [kept, *(append(writer, write_batch(number, 1)) for number in range(3))]
    writer.close()
    assert journal.file_starts() == [1]
    for number, frame in enumerate(frames, 1):
        assert read_all(Journal(journal.path), frame.position).frames == frames[number:]


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


def test_a_file_is_sealed_before_its_successor_exists(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(journal, file_bytes=150)
    append(writer, write_batch(0, 1))
    old, new = layout.file_name(1), layout.file_name(2)
    calls = Calls(monkeypatch)
    append(writer, write_batch(0, 1))
    writer.sync()
    steps = [
        f"fdatasync {old}", f"open_file {new}", f"truncate {new}", f"pwrite {new}", "sync_directory files",
        f"pwritev {new}", f"fdatasync {new}",
    ]  # fmt: skip
    assert [name for name in calls.names if name != "open_file files"] == steps


def test_sync_costs_nothing_when_all_is_durable(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    assert writer.sync() == writer.durable == writer.position
    calls = Calls(monkeypatch)
    writer.sync()
    assert calls.names == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("after", [0, 1, 71, 72, 100])
def test_a_failed_append_leaves_nothing_and_the_next_works(
    journal: Journal, number: int, after: int, monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock
) -> None:
    writer = open_writer(journal)
    kept = append(writer, write_batch(0, 1))
    before = last_file(journal).read_bytes()
    state = writer.position, writer.state_sum, writer.time_ns
    fake_clock.advance(5)
    with monkeypatch.context() as patch:
        patch.setattr(File, "pwritev", fail_with(number, after=after))
        with pytest.raises(HostError):
            append(writer, write_batch(1, 2))
    assert last_file(journal).read_bytes() == before
    assert (writer.position, writer.state_sum, writer.time_ns) == state
    assert read_all(journal).frames == [kept]
    cut = last_file(journal)
    again = append(writer, write_batch(1, 3))
    writer.close()
    assert cut.read_bytes() == before, "a reader may hold bytes of what was there for durable"
    read = read_all(Journal(journal.path))
    assert (read.frames, read.error) == ([kept, again], None)


def test_a_failed_append_that_cannot_be_cut_off_ends_the_writer(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(journal)
    kept = append(writer, write_batch(0, 1))

    def fail(file: File, _: int) -> None:
        raise InputOutputError("no", where=file.path)

    with monkeypatch.context() as patch:
        patch.setattr(File, "pwritev", fail_with(errno.EIO, after=50))
        patch.setattr(File, "truncate", fail)
        with pytest.raises(InputOutputError):
            append(writer, write_batch(1, 2))
    for again in (lambda: append(writer, write_batch(1, 2)), writer.sync, writer.close):
        with pytest.raises(InputOutputError, match="earlier failure"):
            again()
    assert Journal(journal.path).clean_end is None
    assert read_all(journal).frames == [kept]


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


@pytest.mark.parametrize("failing", ["open_file", "pwrite", "truncate", "sync_directory", "pwritev"])
def test_a_rotation_that_fails_can_be_tried_again(
    journal: Journal, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(journal, file_bytes=150)
    kept = append(writer, write_batch(0, 1))

    def fail(*_: object, **__: object) -> None:
        raise NoSpaceError("full")

    with monkeypatch.context() as patch:
        patch.setattr(File if hasattr(File, failing) else files, failing, fail)
        with pytest.raises(NoSpaceError):
            append(writer, write_batch(1, 2))
    read = read_all(journal)
    assert (read.frames, read.error) == ([kept], None)
    again = append(writer, write_batch(1, 3))
    assert again.file_first_lsn == 2
    writer.close()
    read = read_all(Journal(journal.path))
    assert (read.frames, read.error) == ([kept, again], None)


def test_a_clean_stop_says_where_the_frames_end(journal: Journal) -> None:
    writer = open_writer(journal)
    frame = append(writer, write_batch(0, 1))
    writer.close()
    assert Journal(journal.path).clean_end == FrameEnd(frame.position, 1, frame.end)
    writer = open_writer(Journal(journal.path))
    assert Journal(journal.path).clean_end is None
    writer.abandon()
    assert Journal(journal.path).clean_end is None


def test_a_writer_continues_in_the_file_that_it_finds(journal: Journal) -> None:
    frames = []
    for number in range(4):
        writer = open_writer(Journal(journal.path))
        frames.append(append(writer, write_batch(number, number)))
        writer.close()
    assert {frame.file_first_lsn for frame in frames} == {1}
    assert read_all(Journal(journal.path)).frames == frames


@pytest.mark.parametrize("size", [0, 1, 127])
def test_a_successor_that_was_only_begun_is_begun_anew(journal: Journal, size: int) -> None:
    writer = open_writer(journal, file_bytes=150)
    kept = append(writer, write_batch(0, 1))
    writer.abandon()
    pathlib.Path(journal.file_path(2)).write_bytes(b"\xff" * size)
    writer = open_writer(Journal(journal.path), file_bytes=150)
    again = append(writer, write_batch(1, 2))
    assert again.file_first_lsn == 2
    assert read_all(journal).frames == [kept, again]


def test_a_writer_that_cannot_begin_leaves_no_descriptor_open(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(journal)
    append(writer, write_batch(0, 1))
    writer.close()
    closed = Journal(journal.path)
    with JournalReader(closed) as end:
        while end.next_header():
            pass
        before = os.listdir("/proc/self/fd")
        with monkeypatch.context() as patch:
            patch.setattr(File, "pwrite", fail_with(errno.ENOSPC))
            with pytest.raises(NoSpaceError):
                JournalWriter(closed, end)
        assert os.listdir("/proc/self/fd") == before


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


def put(writer: JournalWriter, page: int) -> Position:
    """Append without reading back, which would make it durable."""
    return writer.append(write_batch(page, page), captured=False, state_sum=page)


def positions(journal: Journal) -> list[Position]:
    return [frame.position for frame in read_all(Journal(journal.path)).frames]


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


def test_nothing_is_appended_by_a_writer_that_was_closed(journal: Journal) -> None:
    """Its lock is gone: another recorder may be running."""
    writer = open_writer(journal)
    frame = put(writer, 0)
    writer.close()
    with pytest.raises(InputOutputError):
        put(writer, 1)
    assert journal.file_starts() == [1]
    assert positions(journal) == [frame]


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
