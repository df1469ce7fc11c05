"""An exported file is there whole or not at all, and what must not be replaced is refused with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.errors import AccessError, LockedError, MirrortoolError, NoSpaceError, UnusableVolumeError
from mirrortool.files import File
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.targetvolume import Primaries, open_target
from mirrortool.serve.exportfile import PART_SUFFIX, ExportStream, ExportTarget, open_export_target
from mirrortool.volume import Volume
from tests.fakes.cuts import EACH_CALL, lose_after, lose_everywhere
from tests.fakes.journals import PAGE, Commit, Write, make_journal, memory_directory, replay_all
from tests.fakes.volumes import loop_device

SIZE = 9 * PAGE - 5
DISK = Volume("disk", 0, SIZE)
NOBODY = Primaries([])


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


def opened(path: Path, *, overwrite: bool = False, primaries: Primaries = NOBODY) -> ExportTarget:
    return open_export_target(str(path), DISK, primaries, overwrite=overwrite)


def write_all(target: ExportTarget) -> None:
    """Two pages, with zeros around them."""
    target.write(3 * PAGE, memoryview(b"a" * 2 * PAGE))


EXPECTED = bytes(3 * PAGE) + b"a" * 2 * PAGE + bytes(SIZE - 5 * PAGE)


def test_a_file_gets_its_name_when_it_is_whole(place: Path) -> None:
    target = opened(place / "out")
    write_all(target)
    assert os.listdir(place) == [f"out{PART_SUFFIX}"]
    target.finish()
    target.abandon()
    assert os.listdir(place) == ["out"] and (place / "out").read_bytes() == EXPECTED
    assert (place / "out").stat().st_mode & 0o777 == 0o600


def test_of_an_export_that_is_given_up_nothing_is_left(place: Path) -> None:
    (place / "out").write_bytes(b"old")
    target = opened(place / "out", overwrite=True)
    write_all(target)
    target.abandon()
    assert os.listdir(place) == ["out"] and (place / "out").read_bytes() == b"old"


def test_what_a_killed_export_left_is_begun_anew(place: Path) -> None:
    (place / f"out{PART_SUFFIX}").write_bytes(b"x" * 99 * PAGE)
    target = opened(place / "out")
    write_all(target)
    target.finish()
    assert (place / "out").read_bytes() == EXPECTED


def test_two_exports_do_not_write_into_one_file(place: Path) -> None:
    target = opened(place / "out")
    with pytest.raises(LockedError):
        opened(place / "out")
    write_all(target)
    target.finish()
    assert (place / "out").read_bytes() == EXPECTED


def test_a_file_that_was_made_meanwhile_is_kept(place: Path) -> None:
    target = opened(place / "out")
    write_all(target)
    (place / "out").write_bytes(b"another's")
    with pytest.raises(UnusableVolumeError, match="meanwhile"):
        target.finish()
    target.abandon()
    assert os.listdir(place) == ["out"] and (place / "out").read_bytes() == b"another's"


@pytest.mark.parametrize("content", [b"", bytes(10), b"something"])
def test_a_file_that_is_there_is_replaced_only_if_that_is_asked_for(place: Path, content: bytes) -> None:
    (place / "out").write_bytes(content)
    with pytest.raises(UnusableVolumeError, match="--overwrite"):
        opened(place / "out")
    target = opened(place / "out", overwrite=True)
    write_all(target)
    target.finish()
    assert (place / "out").read_bytes() == EXPECTED


def test_a_file_that_is_in_use_is_not_replaced(place: Path) -> None:
    (place / "out").write_bytes(b"of a guest")
    with open_target(str(place / "out"), write=False), pytest.raises(LockedError):
        opened(place / "out", overwrite=True)
    assert os.listdir(place) == ["out"]


def make_site(place: Path) -> None:
    """A journal with a mirror, of which one volume lies elsewhere."""
    (place / "out").write_bytes(b"the primary's")
    journal = make_journal(place / "J", {"a": PAGE}, [[Write("a", 0, b"a" * PAGE), Commit()]])
    replay_all(journal, place / "M", targets={"a": str(place / "target.img")})


def refused(place: Path, name: str) -> MirrortoolError:
    with pytest.raises(MirrortoolError) as caught:
        opened(place / name, overwrite=True, primaries=Primaries([str(place / "out")]))
    assert not any(PART_SUFFIX in each for each in os.listdir(place))
    return caught.value


@pytest.mark.parametrize("name", ["out", "hard"])
def test_the_primarys_own_volume_is_refused_by_any_name(place: Path, name: str) -> None:
    make_site(place)
    os.link(place / "out", place / "hard")
    assert isinstance(error := refused(place, name), UnusableVolumeError) and "primary's own" in str(error)


def test_what_belongs_to_a_journal_or_mirror_is_refused(place: Path) -> None:
    make_site(place)
    for name in ("J/files/x", "M/volumes/x.img", "J/x"):
        assert isinstance(error := refused(place, name), AccessError) and "lies inside the " in str(error)
    error = refused(place, "target.img")
    assert isinstance(error, UnusableVolumeError) and f"belongs to the mirror {place}/M" in str(error)
    assert Mirror(str(place / "M")).checkpoint.is_consistent


def test_what_is_no_file_is_refused(place: Path) -> None:
    (place / "directory").mkdir()
    os.mkfifo(place / "fifo")
    os.symlink("file", place / "link")
    os.symlink("nowhere", place / "dangling")
    (place / "file").write_bytes(b"x")
    for name, says in (("directory", "is a directory"), ("fifo", "- for standard output"), ("link", "symbolic link")):
        assert says in str(refused(place, name))
    assert "symbolic link" in str(refused(place, "dangling"))
    assert "there is no such device" in str(refused(place, "/dev/nowhere"))
    assert "check the path" in str(refused(place, "missing/out"))
    assert (place / "file").read_bytes() == b"x"


def test_without_room_no_file_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise NoSpaceError("the disk is full")

    monkeypatch.setattr(File, "truncate", full)
    with pytest.raises(NoSpaceError):
        opened(place / "out")
    assert os.listdir(place) == []


@EACH_CALL
def test_after_a_power_cut_the_file_is_whole_or_as_it_was(place: Path, step: int) -> None:
    out = place / "out"

    def prepare() -> None:
        out.write_bytes(b"old")

    def act() -> None:
        target = opened(out, overwrite=True)
        write_all(target)
        target.finish()

    def check(has_ended: bool) -> None:
        found = out.read_bytes()
        assert found == EXPECTED or (found == b"old" and not has_ended)

    lose_everywhere(prepare, act, check, least=5, step=step)


@pytest.mark.parametrize("is_full", [False, True])
def test_a_device_takes_the_volume_and_keeps_what_comes_after_it(place: Path, is_full: bool) -> None:
    length = 64 * 4096
    with loop_device(place, length) as device:
        if is_full:
            Path(device).write_bytes(b"old!" * (length // 4))
            with pytest.raises(UnusableVolumeError, match="--overwrite"):
                opened(Path(device))
        target = opened(Path(device), overwrite=is_full)
        write_all(target)
        with pytest.raises(MirrortoolError):
            open_target(device)
        target.finish()
        found = Path(device).read_bytes()
    assert found[:SIZE] == EXPECTED
    assert found[-4096:] == (b"old!" * 1024 if is_full else bytes(4096))


def test_a_device_has_it_durably(place: Path) -> None:
    (place / "device").write_bytes(b"old!" * 4 * PAGE)

    def act() -> None:
        target = opened(place / "device", overwrite=True)
        write_all(target)
        target.finish()

    lose_after(act, devices=[str(place / "device")])
    assert (place / "device").read_bytes()[:SIZE] == EXPECTED


def test_a_device_that_is_too_small_is_refused(place: Path) -> None:
    with loop_device(place, 4096) as device, pytest.raises(UnusableVolumeError, match="use a larger one"):
        opened(Path(device), overwrite=True)


def test_a_stream_gets_every_byte_in_order(place: Path) -> None:
    with open(place / "out", "wb") as file:
        target = ExportStream(file.fileno(), SIZE)
        write_all(target)
        target.finish()
        target.abandon()
    assert (place / "out").read_bytes() == EXPECTED


def test_a_stream_nobody_reads_ends_as_a_broken_pipe() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "wb") as file, pytest.raises(BrokenPipeError):
        write_all(ExportStream(file.fileno(), SIZE))


def test_a_stream_waits_for_a_reader_also_where_it_does_not_block() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    length = 1 << 20
    pid = os.fork()
    if not pid:
        try:
            os.close(theirs)
            total = 0
            while piece := os.read(ours, 4096):
                total += len(piece)
            os._exit(0 if total == length else 1)
        finally:
            os._exit(2)
    os.close(ours)
    ExportStream(theirs, length).finish()
    os.close(theirs)
    assert os.waitpid(pid, 0)[1] == 0
