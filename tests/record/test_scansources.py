"""A source is a file or a block device, and tells when it may have changed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import clock, files
from mirrortool.errors import ChangedOutsideError
from mirrortool.journal.recordercheckpoint import VolumeRecord
from mirrortool.record.scansources import check_identity, inspect_volume, open_source
from tests.fakes.volumes import loop_device, make_old, pattern, write_file


@pytest.fixture
def path(tmp_path: Path) -> str:
    write_file(str(tmp_path / "v"), pattern(1, 5000))
    return str(tmp_path / "v")


def test_an_untouched_file_has_not_changed(path: str) -> None:
    source = open_source("v", path)
    with source.file:
        read = source.file.pread(5000, 0)
        assert read == pattern(1, 5000)
        assert source.changed() is None
    assert source.facts.size == inspect_volume(path).size == 5000


CHANGES = {
    "written": lambda path: Path(path).open("r+b").write(b"x"),
    "written in place": lambda path: os.close(_rewrite(path)),
    "longer": lambda path: os.truncate(path, 5001),
    "shorter": lambda path: os.truncate(path, 4999),
    "same size, new times": lambda path: os.utime(path),
    "written, times put back": lambda path: (os.close(_rewrite(path)), make_old(path)),
}


def _rewrite(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, b"y", 100)
    return descriptor


@pytest.mark.parametrize("change", CHANGES)
def test_any_trace_of_a_change_is_told(path: str, change: str) -> None:
    source = open_source("v", path)
    with source.file:
        CHANGES[change](path)
        assert source.changed()


def test_a_file_written_just_now_is_opened_after_its_timestamp_has_passed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a write within the same tick would leave the same times."""
    now = clock.now_ns()
    os.utime(path, ns=(now, now))
    slept: list[float] = []
    monkeypatch.setattr(clock, "sleep", slept.append)
    monkeypatch.setattr(clock, "now_ns", lambda: now + 5_000_000)
    open_source("v", path).file.close()
    assert slept == [0.02]
    monkeypatch.setattr(clock, "now_ns", lambda: now + 25_000_000)
    open_source("v", path).file.close()
    assert len(slept) == 1


@pytest.mark.parametrize("is_synced", [True, False])
def test_a_written_device_is_told(tmp_path: Path, is_synced: bool) -> None:
    """Also where the bytes are still in the cache, and count as no sectors yet."""
    with loop_device(tmp_path, 1 << 20) as device:
        source = open_source("v", device)
        with source.file:
            assert source.changed() is None
            with files.open_file(device, write=True) as file:
                file.pwrite(pattern(1, 4096), 0)
                if is_synced:
                    file.fdatasync()
            assert source.changed() == "the device was written"


RECORDS = [
    ({}, True), ({"device": 999}, True), ({"inode": 1}, False), ({"is_device": True}, False),
]  # fmt: skip


@pytest.mark.parametrize(("other", "is_accepted"), RECORDS)
def test_a_volume_is_known_by_inode_and_kind(path: str, other: dict[str, int], is_accepted: bool) -> None:
    """Not by the file system's number, which may be another after each boot."""
    source = open_source("v", path)
    with source.file:
        record = VolumeRecord.of(source.facts)
        record = replace(record, identity=replace(record.identity, **other))
        check_identity(source, None)
        if is_accepted:
            check_identity(source, record)
            return
        with pytest.raises(ChangedOutsideError, match="another file or device"):
            check_identity(source, record)
