"""A scan journals what differs, nothing else, and says what its commit is."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mirrortool import files, hostinfo
from mirrortool.errors import (
    ChangedOutsideError,
    HostError,
    InputOutputError,
    NoSpaceError,
)
from mirrortool.files import Buffer, File
from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import CommitKind, Kind, Operation
from mirrortool.record import scan as scan_module
from mirrortool.record.scan import Scan, ScanCancelled, ScanResult
from mirrortool.replay import readback
from mirrortool.store import parallelread
from mirrortool.store.flat import FlatStore
from tests.fakes.journals import operations
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import (
    PAGE,
    Primary,
    adopt,
    fast_directory,
    loop_device,
    loop_mount,
    make_old,
    make_primary,
    pattern,
    small_journal_files,
    unavailable,
    write_file,
)

PIECE = 8 * PAGE


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces in a small volume."""
    monkeypatch.setattr(parallelread, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(readback, "PIECE_BYTES", PIECE)


def pages_of(found: list[Operation], kind: Kind) -> set[int]:
    return {page for each in found if each.kind == kind for page in range(each.page, each.page + each.count)}


def fails_on_call(number: int, error: Exception) -> Callable[..., None]:
    """A replacement of a method of File that raises at its n-th call, from 1, and works otherwise."""
    calls = 0
    real = File.pwritev

    def pwritev(self: File, buffers: Sequence[Buffer], offset: int) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        real(self, buffers, offset)

    return pwritev


SIZES = [0, 1, PAGE - 1, PAGE, PAGE + 1, PIECE, PIECE + 1, 3 * PIECE + 100]


@pytest.mark.parametrize("size", SIZES)
def test_first_scan_is_a_base_sync(directory: str, size: int) -> None:
    primary = make_primary(directory, {"a": pattern(1, size)})
    result = primary.scan()
    primary.check()
    assert result.kind == CommitKind.SCAN
    assert not result.changed
    assert result.statistics.pages_written == -(-size // PAGE)
    assert [commit.position for commit in commits(primary.journal)] == [result.commit]
    assert all(each.is_captured for each in _headers(primary.journal))


def _headers(journal: Journal) -> list:
    found = []
    with JournalReader(journal, journal.start) as reader:
        while header := reader.next_header():
            found.append(header)
    return found


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_every_page_size_is_recorded(directory: str, page_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallelread, "PIECE_BYTES", 2 * page_size)
    primary = make_primary(directory, {"a": pattern(1, 5 * page_size + 3)}, page_size)
    primary.scan()
    primary.write("a", 2 * page_size, b"x")
    after = primary.journal.recorder_checkpoint().position.lsn
    primary.scan()
    primary.check()
    assert pages_of(operations(primary.journal, after), Kind.WRITE) == {2}


def test_next_scan_journals_only_what_changed(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 40 * PAGE)})
    first = primary.scan()
    primary.write("a", 5 * PAGE + 7, b"changed")
    primary.write("a", 30 * PAGE - 1, b"two")
    second = primary.scan()
    primary.check()
    found = operations(primary.journal, first.commit.lsn)
    assert pages_of(found, Kind.WRITE) == {5, 29, 30}
    assert (second.statistics.pages_written, second.statistics.pages_zeroed) == (3, 0)


def test_scan_without_changes_adds_only_its_commit(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 10 * PAGE)})
    first = primary.scan()
    second = primary.scan()
    assert second.commit.lsn == first.commit.lsn + 1
    assert second.state_sum == first.state_sum


@pytest.mark.parametrize("how", ["hole", "written"])
def test_pages_that_became_zero_are_zeroed_not_written(directory: str, how: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 24 * PAGE)})
    first = primary.scan()
    if how == "hole":
        primary.punch("a", 8 * PAGE, 9 * PAGE)
    else:
        primary.write("a", 8 * PAGE, bytes(9 * PAGE))
    primary.scan()
    primary.check()
    found = operations(primary.journal, first.commit.lsn)
    assert pages_of(found, Kind.ZERO) == set(range(8, 17))
    assert not pages_of(found, Kind.WRITE)


def test_holes_are_skipped_without_being_read(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 30
    primary = make_primary(directory, {"a": size})
    primary.write("a", 512 << 20, b"in the middle")
    read = 0
    real = File.pread_into

    def pread_into(self: File, buffers: list[memoryview], offset: int) -> int:
        nonlocal read
        got = real(self, buffers, offset)
        read += got
        return got

    monkeypatch.setattr(File, "pread_into", pread_into)
    first = primary.scan()
    assert first.statistics.pages_total == first.statistics.pages_done == size // PAGE
    assert read <= 1 << 16
    assert pages_of(operations(primary.journal), Kind.WRITE) == {(512 << 20) // PAGE}


RESIZES = [
    (10 * PAGE, 20 * PAGE), (10 * PAGE, 3 * PAGE), (10 * PAGE + 5, 10 * PAGE + 9), (10 * PAGE + 9, 10 * PAGE + 5),
    (10 * PAGE + 5, 12 * PAGE + 1), (10 * PAGE + 5, 3 * PAGE + 1), (10 * PAGE, 0), (0, 10 * PAGE + 1), (5, 0), (1, 2),
    (10 * PAGE + 5, 11 * PAGE), (10 * PAGE + 5, 10 * PAGE),
]  # fmt: skip


@pytest.mark.parametrize("then", ["kept", "zeroed", "filled"])
@pytest.mark.parametrize(("before", "after"), RESIZES)
def test_a_new_size_is_journaled_before_what_lies_behind_it(directory: str, before: int, after: int, then: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, before), "b": pattern(2, 3 * PAGE)})
    first = primary.scan()
    mirror = primary.mirror()
    primary.resize("a", after)
    tail = max(0, min(before, after) - min(before, after) % PAGE)
    if then == "zeroed":
        primary.write("a", tail, bytes(after - tail))
    elif then == "filled":
        primary.write("a", tail, pattern(3, after - tail))
    second = scan_asking(primary)
    primary.check()
    assert operations(primary.journal, first.commit.lsn)[0].kind == Kind.RESIZE
    assert second.state_sum == _state_sum_from_scratch(directory, primary)
    primary.mirror()
    assert Path(mirror.volume_path(mirror.kept[0])).read_bytes() == primary.contents()["a"]


def was_emptied(old: bytes, now: bytes) -> bool:
    """Whether the pages that held something, of which there were some, are all zeros or gone."""
    held = [start for start in range(0, len(old), PAGE) if any(old[start : start + PAGE])]
    return bool(held) and not any(any(now[start : start + PAGE]) for start in held)


def scan_asking(primary: Primary) -> ScanResult:
    """A scan; only where a file has nothing left of what was recorded, it must be told to accept that."""
    recorded, incomplete = volumes_at(primary.journal), primary.journal.recorder_checkpoint().incomplete
    now = primary.contents()
    if any(was_emptied(old, now[name]) for name, old in recorded.items() if name not in incomplete):
        with pytest.raises(ChangedOutsideError, match="was emptied"):
            primary.scan()
        return primary.scan(take_over=True)
    return primary.scan()


def _state_sum_from_scratch(directory: str, primary: Primary) -> int:
    """Of a journal that saw nothing but the end."""
    os.mkdir(f"{directory}/other")
    return adopt(f"{directory}/other", primary.paths).scan().state_sum


def test_volumes_are_committed_together(directory: str) -> None:
    contents = {"a": pattern(1, 9 * PAGE), "b": pattern(2, PAGE + 1), "empty": b"", "holes": 1 << 20}
    primary = make_primary(directory, contents)
    result = primary.scan()
    primary.check()
    assert len(list(commits(primary.journal))) == 1
    assert result.state_sum == primary.journal.recorder_checkpoint().state_sum
    for name in ("a", "b", "holes"):
        primary.write(name, 0, b"new")
    second = primary.scan()
    assert volumes_at(primary.journal, result.commit.lsn) == {
        name: bytes(content) for name, content in contents.items()
    }
    assert volumes_at(primary.journal, second.commit.lsn) == primary.contents()


def test_state_sum_of_every_frame_is_that_of_its_prefix(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 2 * PIECE + 9)})
    primary.scan()
    primary.resize("a", PIECE + 3)
    primary.write("a", 0, bytes(3 * PAGE))
    primary.scan()
    for number, header in enumerate(_headers(primary.journal)):
        prefix = volumes_at(primary.journal, header.position.lsn)
        other = f"{directory}/{number}"
        os.mkdir(other)
        assert make_primary(other, prefix).scan().state_sum == header.state_sum


def _write(path: str, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(data)


def _write_and_date_back(path: str) -> None:
    _write(path, b"sly")
    make_old(path)


CHANGES: dict[str, Callable[[str], None]] = {
    "written": lambda path: _write(path, b"meanwhile"),
    "grown": lambda path: os.truncate(path, 100 * PAGE),
    "shrunk": lambda path: os.truncate(path, 2 * PAGE),
    "written and dated back": _write_and_date_back,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_volume_that_changes_meanwhile_makes_the_commit_fuzzy(
    directory: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = make_primary(directory, {"a": pattern(1, 40 * PAGE), "b": pattern(2, PAGE)})
    real = FlatStore.read_into
    done = []

    def read_into(self: FlatStore, page: int, buffers: list[memoryview]) -> None:
        real(self, page, buffers)
        if page < 40 and not done:
            done.append(page)
            CHANGES[change](primary.paths["a"])

    monkeypatch.setattr(FlatStore, "read_into", read_into)
    result = primary.scan()
    assert done
    assert result.kind == CommitKind.FUZZY
    assert set(result.changed) == {"a"}
    assert [commit.kind for commit in commits(primary.journal)] == [CommitKind.FUZZY]
    make_old(primary.paths["a"])
    assert primary.scan().kind == CommitKind.SCAN
    primary.check()


def test_a_snapshot_is_read_in_place_of_its_volume(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 10 * PAGE), "b": pattern(2, PAGE)})
    primary.scan()
    known = primary.journal.recorder_checkpoint().volumes["a"].identity
    snapshot = f"{directory}/snapshot"
    write_file(snapshot, pattern(3, 12 * PAGE + 1))
    result = primary.scan(sources={"a": snapshot})
    assert volumes_at(primary.journal)["a"] == pattern(3, 12 * PAGE + 1)
    assert result.kind == CommitKind.SCAN
    record = primary.journal.recorder_checkpoint().volumes["a"]
    assert (record.identity, record.size) == (known, 12 * PAGE + 1)
    primary.scan()
    primary.check()


def test_a_snapshot_may_stand_for_a_volume_that_is_gone(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, PAGE)})
    os.rename(primary.paths["a"], f"{directory}/snapshot")
    primary.scan(sources={"a": f"{directory}/snapshot"})
    assert volumes_at(primary.journal) == {"a": pattern(1, PAGE)}


def test_a_cancelled_scan_keeps_what_it_found(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallelread, "THREADS", 1)
    primary = make_primary(directory, {"a": pattern(1, 10 * PIECE)})
    monkeypatch.setattr(parallelread.for_each_piece, "__defaults__", (1,))
    with Scan(primary.journal_path) as scan:
        real = FlatStore.read_into

        def read_into(self: FlatStore, page: int, buffers: list[memoryview]) -> None:
            if page >= 4 * PIECE // PAGE:
                scan.cancel()
            real(self, page, buffers)

        monkeypatch.setattr(FlatStore, "read_into", read_into)
        with pytest.raises(ScanCancelled):
            scan.run()
        monkeypatch.setattr(FlatStore, "read_into", real)
    kept = operations(primary.journal)
    assert pages_of(kept, Kind.WRITE) == set(range(4 * PIECE // PAGE))
    assert not list(commits(primary.journal))
    assert primary.journal.clean_end is not None
    result = primary.scan()
    assert result.statistics.pages_written == 6 * PIECE // PAGE
    primary.check()


@pytest.mark.parametrize("error", [NoSpaceError, InputOutputError])
@pytest.mark.parametrize("call", [1, 2, 5, 9])
def test_a_scan_that_cannot_append_keeps_what_it_found(
    directory: str, monkeypatch: pytest.MonkeyPatch, call: int, error: type[HostError]
) -> None:
    primary = make_primary(directory, {"a": pattern(1, 8 * PIECE)})
    with monkeypatch.context() as patched:
        patched.setattr(File, "pwritev", fails_on_call(call, error("cannot write")))
        with pytest.raises(error):
            primary.scan()
    found = pages_of(operations(primary.journal), Kind.WRITE)
    assert len(found) * PAGE // PIECE >= min(8, call - 1)
    result = primary.scan()
    assert result.statistics.pages_written == 8 * PIECE // PAGE - len(found)
    primary.check()


@pytest.mark.parametrize("call", range(1, 12))
def test_a_scan_whose_sums_cannot_be_written_loses_nothing(
    directory: str, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Space that runs out while sums are applied is an error, not a bug, and recovery redoes the sums."""
    monkeypatch.setattr(scan_module, "PENDING_PAGES", 2 * PIECE // PAGE)
    primary = make_primary(directory, {"a": pattern(1, 4 * PIECE), "b": pattern(2, 2 * PIECE)})
    primary.scan()
    primary.write("a", 0, pattern(4, 4 * PIECE))
    primary.resize("b", PIECE)
    real = File.pwrite
    calls = 0

    def pwrite(self: File, data: bytes, offset: int) -> None:
        nonlocal calls
        if "/sums/" in self.path:
            calls += 1
            if calls == call:
                raise NoSpaceError("cannot write", where=self.path)
        real(self, data, offset)

    with monkeypatch.context() as patched:
        patched.setattr(File, "pwrite", pwrite)
        with pytest.raises(NoSpaceError) if call <= 5 else contextlib.nullcontext():
            primary.scan()
    assert call > 5 or calls >= call
    result = primary.scan()
    primary.check()
    assert result.state_sum == _state_sum_from_scratch(directory, primary)


def test_a_full_disk_stops_the_scan_and_the_next_goes_on(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 3 << 20) as mounted:
        primary = make_primary(tmp_path, {"a": os.urandom(6 << 20)}, 4096)
        shutil.move(primary.journal_path, f"{mounted}/journal")
        os.symlink(f"{mounted}/journal", primary.journal_path)
        with pytest.raises(NoSpaceError):
            primary.scan()
        primary.write("a", 0, bytes(6 << 20))
        primary.write("a", 0, pattern(1, 8192))
        with pytest.raises(NoSpaceError):
            primary.scan()
        os.unlink(primary.journal_path)
        shutil.copytree(f"{mounted}/journal", primary.journal_path)
        primary.scan()
        primary.check()


def test_a_device_is_recorded(tmp_path: Path) -> None:
    with loop_device(tmp_path, 1 << 20) as device:
        Path(device).write_bytes(pattern(1, 5 * PAGE))
        primary = adopt(tmp_path, {"a": device})
        assert primary.scan().kind == CommitKind.SCAN
        primary.check()
        Path(device).open("r+b").write(pattern(2, PAGE))
        result = primary.scan()
        assert (result.kind, result.statistics.pages_written) == (CommitKind.SCAN, 1)
        primary.check()


def test_a_device_that_somebody_holds_makes_the_commit_fuzzy(tmp_path: Path) -> None:
    with loop_device(tmp_path, 1 << 20) as device:
        primary = adopt(tmp_path, {"a": device})
        holder = os.open(device, os.O_RDWR | os.O_EXCL)
        try:
            assert primary.scan().kind == CommitKind.FUZZY
        finally:
            os.close(holder)


def test_frames_go_to_many_files_and_are_still_one_commit(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_journal_files(monkeypatch, 2000)
    primary = make_primary(directory, {"a": os.urandom(5 * PIECE)})
    primary.scan()
    assert len(primary.journal.file_starts()) > 3
    primary.check()


SPOTS = st.integers(0, 40 * PAGE)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), SPOTS, st.binary(min_size=1, max_size=3 * PAGE)),
        st.tuples(st.just("fill"), SPOTS, st.integers(1, 9 * PAGE)),
        st.tuples(st.just("zero"), SPOTS, st.integers(1, 9 * PAGE)),
        st.tuples(st.just("punch"), SPOTS, st.integers(1, 20 * PAGE)),
        st.tuples(st.just("resize"), SPOTS, st.just(0)),
        st.tuples(st.just("scan"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


def _mutate(primary: Primary, name: str, what: str, offset: int, value: bytes | int) -> None:
    size = os.path.getsize(primary.paths[name])
    if what == "resize":
        primary.resize(name, offset)
        return
    offset = min(offset, size)
    length = min(value if isinstance(value, int) else len(value), size - offset)
    if not length:
        return
    if what == "punch":
        primary.punch(name, offset, length)
    elif what == "write":
        assert isinstance(value, bytes)
        primary.write(name, offset, value[:length])
    else:
        primary.write(name, offset, bytes(length) if what == "zero" else pattern(offset, length))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("b", [("fill", PAGE, 1), ("scan", 0, 0), ("write", 0, b"\x01"), ("resize", 1, 0)])])
@given(st.lists(st.tuples(st.sampled_from("ab"), MUTATIONS), min_size=1, max_size=4))
def test_after_every_scan_the_journal_is_the_volumes(history: list) -> None:
    with fast_directory() as path:
        primary = make_primary(path, {"a": pattern(1, 20 * PAGE + 100), "b": 9 * PAGE})
        for name, mutations in history:
            for what, offset, value in mutations:
                if what == "scan":
                    scan_asking(primary)
                    primary.check()
                else:
                    _mutate(primary, name, what, offset, value)
        result = scan_asking(primary)
        primary.check()
        assert result.state_sum == _state_sum_from_scratch(path, primary)
        mirror = primary.mirror()
        contents = {each.name: Path(mirror.volume_path(each)).read_bytes() for each in mirror.kept}
        assert contents == primary.contents()


@pytest.mark.parametrize("page", [0, 30])
def test_a_store_through_a_mapping_of_a_file_in_memory_makes_the_commit_fuzzy(
    monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """Such a file keeps its times. Of two stores one comes to what was read already: a torn scan, and no commit."""
    if hostinfo.file_system_of(files.find_facts("/dev/shm").identity) != "tmpfs":
        unavailable("needs a tmpfs at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        primary = make_primary(directory, {"a": pattern(1, 40 * PAGE)})
        primary.scan()
        primary.write("a", 20 * PAGE, b"changed")
        with open(primary.paths["a"], "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[page * PAGE] ^= 1
            make_old(primary.paths["a"])
            read, mapped_at = FlatStore.read_into, (0, 30)

            def store_meanwhile(self: FlatStore, first: int, buffers: list[memoryview]) -> None:
                read(self, first, buffers)
                if first == 16 and len(buffers[0]) > PAGE:  # a piece, not a sample
                    for place in mapped_at:
                        mapped[place * PAGE + 1] = 0xFF

            with monkeypatch.context() as patched:
                patched.setattr(parallelread.for_each_piece, "__defaults__", (1,))
                patched.setattr(FlatStore, "read_into", store_meanwhile)
                torn = primary.scan()
        assert (torn.kind, torn.changed) == (CommitKind.FUZZY, {"a": "the file was written"})
        result = primary.scan()
        assert (result.kind, result.changed) == (CommitKind.SCAN, {})
        primary.check()


@pytest.mark.parametrize(("kind", "times"), [("tmpfs", 2), ("ramfs", 2), ("ext4", 1), ("", 1)])
def test_only_a_file_in_memory_is_read_twice(
    directory: str, kind: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary = make_primary(directory, {"a": pattern(1, 3 * PIECE)})
    pages: list[int] = []
    real = FlatStore.read_into

    def read_into(self: FlatStore, page: int, buffers: list[memoryview]) -> None:
        pages.append(page)
        real(self, page, buffers)

    monkeypatch.setattr(hostinfo, "file_system_of", lambda _: kind)
    monkeypatch.setattr(FlatStore, "read_into", read_into)
    assert primary.scan().kind == CommitKind.SCAN
    assert sorted(pages) == sorted([0, 8, 16] * times)
