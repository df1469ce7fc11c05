"""A replay into a disk that is another one, or onto a file system that keeps nothing, does not make a right mirror."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import AccessError, ChangedOutsideError
from mirrortool.mirror.directory import Mirror
from mirrortool.replay.session import Replay
from tests.fakes.volumes import Primary, make_scanned, pattern

SIZE = 1 << 20


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    return make_scanned(tmp_path, {"disk": pattern(1, SIZE)}, 4096)


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
