"""What the rest of the tool takes for granted of an open file, also where the kernel does half of what it was asked."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool import files, hostinfo, openfile
from mirrortool.errors import (
    InputOutputError,
    LockedError,
)
from tests.fakes.volumes import fast_directory, loop_device, pattern

MEBI = 1 << 20
GRAIN = 64 << 10
"""Larger than the blocks of any file system that tests run on, so that every extent is exact."""


@pytest.fixture(params=["disk", "memory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """On whatever /tmp is, and on tmpfs: they differ in how they show holes."""
    if request.param == "disk":
        yield str(tmp_path)
        return
    with fast_directory() as path:
        yield path


@pytest.fixture
def file(tmp_path: Path) -> Iterator[files.File]:
    with files.open_file(str(tmp_path / "file"), write=True, create=True) as opened:
        yield opened


# Short reads and writes


def at_most(number: int) -> Callable[..., int]:
    """A pwrite or pwritev that writes a few bytes each time, as a signal or a full pipe would make it."""

    real = os.pwrite

    def short(descriptor: int, data: files.Buffer | list[files.Buffer], offset: int) -> int:
        whole = b"".join(data) if isinstance(data, list) else bytes(data)
        return real(descriptor, whole[:number], offset)

    return short


LENGTHS = [0, 1, 6, 7, 8, 100]


@pytest.mark.parametrize("length", LENGTHS)
def test_short_reads_are_resumed(file: files.File, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    data = pattern(1, 50)
    file.pwrite(data, 3)
    real_pread, real_preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda fd, n, at: real_pread(fd, min(n, 7), at))
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: real_preadv(fd, [into[0][:7]], at))
    assert file.pread(length, 3) == data[:length]
    buffers = [memoryview(bytearray(max(1, length // 2))) for _ in range(2)]
    wanted = sum(map(len, buffers))
    assert file.pread_into(buffers, 3) == min(50, wanted)
    assert b"".join(buffers)[: min(50, wanted)] == data[:wanted]


@pytest.mark.parametrize("length", LENGTHS)
def test_short_writes_are_resumed(file: files.File, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    data = pattern(1, length)
    monkeypatch.setattr(os, "pwrite", at_most(7))
    monkeypatch.setattr(os, "pwritev", at_most(7))
    file.pwrite(data, 2)
    assert file.pread(length + 1, 2) == data
    file.pwritev([data, b"", bytearray(data), memoryview(data)], 1000)
    assert file.pread(4 * length + 1, 1000) == 3 * data


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    step=st.integers(1, 40),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_vectored_writes_arrive_whole(sizes: list[int], step: int, kind: type) -> None:
    parts = [pattern(i, size) for i, size in enumerate(sizes)]
    with (
        fast_directory() as path,
        files.open_file(f"{path}/f", write=True, create=True) as file,
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr(os, "pwritev", at_most(step))
        file.pwritev([kind(part) for part in parts], 5)
        assert file.pread(1000, 0)[5:] == b"".join(parts)


@pytest.mark.parametrize("count", [files.IOV_MAX, files.IOV_MAX + 1, 3 * files.IOV_MAX + 7])
def test_any_number_of_buffers_is_written_with_one_call(file: files.File, count: int) -> None:
    parts = [b"%07d" % i for i in range(count)]
    file.pwritev(parts, 11)
    assert file.pread(7 * count + 1, 11) == b"".join(parts)


# Holes


def extents(file: files.File, start: int, end: int) -> list[tuple[int, int]]:
    return list(file.data_extents(start, end))


def test_data_extents_are_what_is_not_a_hole(directory: str) -> None:
    with files.open_file(f"{directory}/f", write=True, create=True) as file:
        file.truncate(20 * GRAIN)
        assert extents(file, 0, 20 * GRAIN) == []
        for number in (2, 3, 9, 19):
            file.pwrite(pattern(number, GRAIN), number * GRAIN)
        runs = [(2 * GRAIN, 4 * GRAIN), (9 * GRAIN, 10 * GRAIN), (19 * GRAIN, 20 * GRAIN)]
        assert extents(file, 0, 20 * GRAIN) == runs
        assert extents(file, 0, 100 * GRAIN) == runs
        assert extents(file, 3 * GRAIN + 5, 9 * GRAIN + 1) == [
            (3 * GRAIN + 5, 4 * GRAIN),
            (9 * GRAIN, 9 * GRAIN + 1),
        ]
        assert extents(file, 4 * GRAIN, 9 * GRAIN) == []
        assert extents(file, 50 * GRAIN, 60 * GRAIN) == []
        assert extents(file, 5, 5) == []
        file.punch(2 * GRAIN, 8 * GRAIN)
        assert extents(file, 0, 20 * GRAIN) == runs[-1:]


def test_everything_is_data_where_holes_cannot_be_asked_for(file: files.File, monkeypatch: pytest.MonkeyPatch) -> None:
    file.truncate(100)

    def lseek(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "lseek", lseek)
    assert extents(file, 10, 90) == [(10, 90)]


def test_a_failing_seek_is_an_error_and_not_the_end(file: files.File, monkeypatch: pytest.MonkeyPatch) -> None:
    def lseek(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "lseek", lseek)
    with pytest.raises(InputOutputError):
        extents(file, 0, 10)


def test_all_of_a_device_is_data(tmp_path: Path) -> None:
    with loop_device(tmp_path, MEBI) as device, files.open_file(device) as file:
        assert extents(file, 100, MEBI) == [(100, MEBI)]
        assert file.size() == MEBI
        assert files.find_facts(device).kind == "block device"


PUNCHES = [(0, GRAIN), (GRAIN, 2 * GRAIN), (5, 10), (GRAIN - 5, 10), (17, 3 * GRAIN), (0, 8 * GRAIN), (100, 0)]


@pytest.mark.parametrize(("offset", "length"), PUNCHES)
def test_punched_bytes_read_as_zeros_and_no_others(directory: str, offset: int, length: int) -> None:
    data = bytearray(pattern(1, 8 * GRAIN))
    with files.open_file(f"{directory}/f", write=True, create=True) as file:
        file.pwrite(bytes(data), 0)
        before = file.facts().allocated
        file.punch(offset, length)
        data[offset : offset + length] = bytes(length)
        assert file.pread(9 * GRAIN, 0) == data
        if length >= GRAIN and not offset % GRAIN:
            assert file.facts().allocated <= before - length // GRAIN * GRAIN


@pytest.mark.parametrize(("offset", "length"), [(0, 4096), (512, 1024), (100, 50), (4096, MEBI - 4096), (0, MEBI)])
def test_punched_bytes_of_a_device_read_as_zeros(tmp_path: Path, offset: int, length: int) -> None:
    data = bytearray(pattern(1, MEBI))
    with loop_device(tmp_path, MEBI) as device, files.open_file(device, write=True) as file:
        file.pwrite(bytes(data), 0)
        file.punch(offset, length)
        data[offset : offset + length] = bytes(length)
        assert file.pread(MEBI, 0) == data
        file.fdatasync()
        hostinfo.flush_device_cache(file)
        assert file.pread(MEBI, 0) == data


@pytest.mark.parametrize("length", [1, MEBI, 2 * MEBI + 17])
def test_zeros_are_written_where_no_hole_can_be_punched(
    file: files.File, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(openfile, "_libc_fallocate", lambda *_: errno.EOPNOTSUPP)
    file.pwrite(pattern(1, length + 20), 0)
    file.punch(10, length)
    assert file.pread(length + 20, 0) == pattern(1, 10) + bytes(length) + pattern(1, length + 20)[-10:]
    file.reserve(0, 100)


def test_a_signal_does_not_end_a_punch(file: files.File, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter calls again what a signal interrupted, but does not know of this call."""
    answers = [errno.EINTR, errno.EINTR, 0]

    def fallocate(*_: object) -> int:
        code = answers.pop(0)
        ctypes.set_errno(code)
        return -1 if code else 0

    library = SimpleNamespace(fallocate=fallocate)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    file.punch(0, 10)
    assert not answers


def test_a_failing_punch_is_an_error(file: files.File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openfile, "_libc_fallocate", lambda *_: errno.EIO)
    with pytest.raises(InputOutputError, match="give space back"):
        file.punch(0, 10)


def test_reserved_blocks_change_no_byte(file: files.File) -> None:
    file.pwrite(b"data", 0)
    file.truncate(MEBI)
    file.reserve(0, MEBI)
    assert file.facts().allocated >= MEBI
    assert file.pread(MEBI, 0) == b"data".ljust(MEBI, b"\0")


# Locks


HOLDER = """
import sys
from mirrortool import files, openfile
from mirrortool.errors import LockedError
with files.open_file(sys.argv[1], write=True) as file:
    try:
        file.lock(exclusive=sys.argv[2] == "exclusive", what="it")
    except LockedError:
        sys.exit(22)
"""


@pytest.mark.parametrize(
    ("held", "wanted", "exit_code"),
    [
        ("exclusive", "exclusive", 22),
        ("exclusive", "shared", 22),
        ("shared", "exclusive", 22),
        ("shared", "shared", 0),
        (None, "exclusive", 0),
    ],
)
def test_a_second_process_is_refused_a_lock(file: files.File, held: str | None, wanted: str, exit_code: int) -> None:
    if held:
        file.lock(exclusive=held == "exclusive", what="it")
    done = subprocess.run([sys.executable, "-c", HOLDER, file.path, wanted])
    assert done.returncode == exit_code


def test_closing_another_descriptor_of_the_file_keeps_the_lock(file: files.File) -> None:
    """POSIX locks would be gone; these belong to the open file description."""
    file.lock(exclusive=True, what="it")
    files.open_file(file.path, write=True).close()
    with files.open_file(file.path, write=True) as other, pytest.raises(LockedError, match="it is in use"):
        other.lock(exclusive=True, what="it")
    file.close()
    with files.open_file(file.path, write=True) as other:
        other.lock(exclusive=True, what="it")


def test_a_held_device_is_refused(tmp_path: Path) -> None:
    with (
        loop_device(tmp_path, MEBI) as device,
        files.open_file(device, write=True, exclusive=True),
        pytest.raises(LockedError),
    ):
        files.open_file(device, write=True, exclusive=True)


def test_a_file_is_in_place_until_its_path_leads_elsewhere(directory: str) -> None:
    path = Path(directory, "below", "name")
    path.parent.mkdir()
    path.write_bytes(b"x")
    with files.open_file(str(path)) as file, files.open_file(str(path.parent)) as parent:
        assert (file.length(), file.is_in_place(), parent.is_in_place()) == (1, True, True)
        os.link(path, path.with_name("other"))
        path.rename(path.with_name("moved"))
        assert not file.is_in_place()
        path.symlink_to("moved")
        assert file.is_in_place()
        path.unlink()
        path.write_bytes(b"x")
        assert not file.is_in_place()
        path.unlink()
        path.with_name("moved").rename(path)
        assert file.is_in_place()
        path.parent.rename(Path(directory, "elsewhere"))
        assert not file.is_in_place()
        assert not parent.is_in_place()
        path.parent.write_bytes(b"not a directory")
        assert not file.is_in_place()
