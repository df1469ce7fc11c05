"""A scan refuses what it could not record for sure, leaves nothing behind, and may be told to take it over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrortool.errors import (
    ChangedOutsideError,
    LockedError,
    NotAJournalError,
    UnusableVolumeError,
)
from mirrortool.record.scan import Scan
from tests.fakes.descriptors import open_descriptors
from tests.fakes.journals import operations
from tests.fakes.volumes import (
    PAGE,
    Primary,
    adopt,
    loop_mount,
    make_primary,
    pattern,
)


def test_a_replaced_volume_is_refused_until_it_is_taken_over(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 10 * PAGE)})
    first = primary.scan()
    primary.replace("a", pattern(2, 9 * PAGE + 1))
    with pytest.raises(ChangedOutsideError) as refused:
        primary.scan()
    assert refused.value.exit_code == 21
    assert primary.journal.recorder_checkpoint().position == first.commit
    primary.scan(take_over=True)
    primary.check()
    primary.scan()


def test_a_refused_volume_leaves_no_descriptor_behind(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, PAGE), "b": pattern(2, PAGE)})
    primary.replace("b", b"other")
    before = open_descriptors()
    for _ in range(3):
        with pytest.raises(ChangedOutsideError):
            primary.scan()
    assert open_descriptors() == before


def test_two_recorders_of_one_journal_exclude_each_other(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, PAGE)})
    with Scan(primary.journal_path), pytest.raises(LockedError):
        Scan(primary.journal_path)
    primary.scan()


def test_a_journal_on_its_own_volume_is_refused(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 4 << 20) as mounted:
        device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if mounted in line)
        for volume in (device, f"{tmp_path}/mounted-disk.backing"):
            inside = f"{mounted}/{os.path.basename(volume)}"
            os.mkdir(inside)
            primary = adopt(inside, {"a": volume})
            with pytest.raises(UnusableVolumeError, match="lies on this volume"):
                primary.scan()


def _hard_link(primary: Primary) -> None:
    os.unlink(primary.paths["b"])
    os.link(primary.paths["a"], primary.paths["b"])


def _symbolic_link(primary: Primary) -> None:
    os.unlink(primary.paths["b"])
    os.symlink(primary.paths["a"], primary.paths["b"])


def _directory(primary: Primary) -> None:
    os.unlink(primary.paths["b"])
    os.mkdir(primary.paths["b"])


def _fifo(primary: Primary) -> None:
    os.unlink(primary.paths["b"])
    os.mkfifo(primary.paths["b"])


def _nothing(primary: Primary) -> None:
    os.unlink(primary.paths["b"])


REFUSED = {
    _hard_link: "one and the same", _symbolic_link: "one and the same", _directory: "is a directory",
    _fifo: "is a FIFO", _nothing: "does not exist",
}  # fmt: skip


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_volume_of_its_own_is_refused(directory: str, how: Callable[[Primary], None]) -> None:
    primary = make_primary(directory, {"a": pattern(1, PAGE), "b": pattern(2, PAGE)})
    how(primary)
    with pytest.raises(UnusableVolumeError, match=REFUSED[how]):
        primary.scan(take_over=True)
    assert not operations(primary.journal)


def test_a_snapshot_of_an_unknown_volume_is_refused(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, PAGE)})
    with pytest.raises(UnusableVolumeError, match="no volume b"):
        primary.scan(sources={"b": primary.paths["a"]})


def test_a_volume_that_grew_into_the_next_is_refused(directory: str) -> None:
    if not hasattr(os, "SEEK_DATA"):
        pytest.skip("needs sparse files")
    primary = make_primary(directory, {"a": pattern(1, PAGE), "b": pattern(2, PAGE)})
    try:
        primary.resize("a", (1 << 48) + 1)
    except OSError:
        pytest.skip("the file system does not hold so large a file")
    with pytest.raises(UnusableVolumeError, match="into the addresses of the next one; cut it to 256"):
        primary.scan()


@pytest.mark.parametrize("gone", ["recorder.json", "local.json"])
def test_a_copy_of_a_journal_is_not_recorded(directory: str, gone: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, PAGE)})
    os.unlink(f"{primary.journal_path}/{gone}")
    with pytest.raises((NotAJournalError, UnusableVolumeError)):
        primary.scan()
