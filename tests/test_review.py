"""What a review found: each a way in which a mirror was called right, or a disk overwritten, and is not any more."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.cli.main import main
from mirrortool.errors import AccessError, ChangedOutsideError
from mirrortool.mirror.directory import Mirror
from mirrortool.record.scan import Scan
from mirrortool.replay.session import Replay
from mirrortool.store.flat import FlatStore
from tests.fakes.volumes import Primary, make_primary, pattern, small_journal_files, written_back_directory

SIZE = 1 << 20


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    made = make_primary(tmp_path, {"disk": pattern(1, SIZE)}, 4096)
    made.scan()
    return made


def test_file_system_that_an_error_made_read_only_keeps_nothing(
    primary: Primary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """EROFS from fdatasync is no success: the dirty pages will never be written."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with Replay(primary.journal_path, str(tmp_path / "mirror")) as replay:
        monkeypatch.setattr(files.os, "fdatasync", fail)
        with pytest.raises(AccessError):
            replay.run()
        monkeypatch.undo()
    assert not Mirror(str(tmp_path / "mirror")).checkpoint.position.lsn


def test_mirror_at_a_fuzzy_commit_says_so(
    primary: Primary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = FlatStore.read_into

    def change_meanwhile(self: FlatStore, page: int, buffers: list[memoryview]) -> None:
        read(self, page, buffers)
        primary.write("disk", 5, b"changed")

    with monkeypatch.context() as patch:
        patch.setattr(FlatStore, "read_into", change_meanwhile)
        assert main(["record", "-q", primary.journal_path]) == 25
    mirror = str(tmp_path / "mirror")
    assert main(["replay", "-q", primary.journal_path, mirror]) == 0
    assert Mirror(mirror).checkpoint.is_fuzzy
    assert "FUZZY" in capsys.readouterr().out
    assert main(["verify", "-q", mirror]) == 25
    assert main(["verify", "-q", "--allow-fuzzy", mirror]) == 0
    primary.scan()
    assert main(["replay", "-q", primary.journal_path, mirror]) == 0
    assert main(["verify", "-q", mirror]) == 0


def test_redo_does_not_overwrite_another_disk(primary: Primary) -> None:
    """A power cut both causes redo and renumbers disks: what is there must be what a killed replay leaves."""
    mirror = primary.mirror()
    primary.write("disk", 0, b"more")
    primary.scan()
    with mirror.lock(exclusive=True):
        mirror.save_checkpoint(mirror.checkpoint.reaching(mirror.checkpoint.position.lsn + 2))
    image = Path(mirror.path, "volumes", "disk.img")
    image.write_bytes(pattern(99, SIZE))
    with Replay(primary.journal_path, mirror.path) as replay, pytest.raises(ChangedOutsideError):
        replay.run()
    assert image.read_bytes() == pattern(99, SIZE)


def test_rotten_sum_does_not_poison_the_journal(
    primary: Primary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = Path(primary.journal.sums_path, "disk.sums")
    data = bytearray(sums.read_bytes())
    data[8 * 7] ^= 1
    sums.write_bytes(data)
    assert main(["record", "-q", primary.journal_path]) == 11
    assert "run record again" in capsys.readouterr().err
    assert main(["record", "-q", primary.journal_path]) == 0
    mirror = str(tmp_path / "mirror")
    assert main(["replay", "-q", primary.journal_path, mirror]) == 0
    assert main(["verify", "-q", mirror]) == 0


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Primary]:
    """A primary whose file system writes back, which /tmp often does not: in memory no store changes a file's times."""
    with written_back_directory(tmp_path) as directory:
        primary = make_primary(directory, {"disk": pattern(1, SIZE)}, 4096)
        primary.scan()
        yield primary


def test_mapped_writes_during_a_scan_make_it_fuzzy(on_disk: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was dirty before the scan takes stores without changing the file's times, unless it is flushed."""
    import mmap

    with open(on_disk.journal.volume_paths()["disk"], "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"x"
        read = FlatStore.read_into

        def store_meanwhile(self: FlatStore, page: int, buffers: list[memoryview]) -> None:
            read(self, page, buffers)
            mapped[0:1] = b"y"

        monkeypatch.setattr(FlatStore, "read_into", store_meanwhile)
        with Scan(on_disk.journal_path) as scan:
            assert scan.run().changed


def test_log_does_not_hide_damage_in_an_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_journal_files(monkeypatch, 8192)
    primary = make_primary(tmp_path, {"disk": pattern(1, 16384)}, 4096)
    for number in range(4):
        primary.write("disk", 0, random.Random(number).randbytes(8192))
        primary.scan()
    starts = primary.journal.file_starts()
    assert len(starts) > 3
    damaged = Path(primary.journal.file_path(starts[1]))
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    assert main(["log", primary.journal_path]) == 11
    printed = capsys.readouterr()
    assert "scan" in printed.out
    assert damaged.name in printed.err
