"""A replay that ended cleanly is continued only over volumes that nobody wrote to since, where that can be known."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mirrortool import files, hostinfo
from mirrortool.errors import ChangedOutsideError
from mirrortool.mirror import lastseen
from mirrortool.mirror.directory import Mirror
from mirrortool.promote import Promotion
from mirrortool.replay.session import Replay
from mirrortool.verify import Verify
from tests.fakes.promotions import promote
from tests.fakes.volumes import PAGE, Primary, loop_device, make_scanned, pattern


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    return make_scanned(tmp_path, {"a": pattern(1, 4000 * PAGE)})


@pytest.fixture
def mirror(primary: Primary) -> Mirror:
    made = primary.mirror()
    primary.write("a", 0, b"news")
    primary.scan()
    return made


def image_of(mirror: Mirror) -> str:
    return mirror.volume_path(mirror.kept[0])


def scribble(path: str) -> None:
    """Write where no sample is taken."""
    with open(path, "r+b") as file:
        file.seek(1001 * PAGE)
        file.write(b"foreign")


def verify(mirror: Mirror) -> bool:
    with Verify(mirror.path) as opened:
        return opened.run().is_right


def test_a_replay_goes_on_where_it_stopped(primary: Primary, mirror: Mirror) -> None:
    assert primary.mirror().checkpoint.position.lsn > mirror.checkpoint.position.lsn
    primary.mirror()
    assert verify(mirror)


def test_a_foreign_write_is_refused_and_nothing_is_changed(primary: Primary, mirror: Mirror) -> None:
    scribble(image_of(mirror))
    before = Path(image_of(mirror)).read_bytes()
    for _ in range(2):
        with pytest.raises(ChangedOutsideError, match=r"the file was written since the last replay; if mirrortool ver"):
            primary.mirror()
    assert Path(image_of(mirror)).read_bytes() == before
    assert not verify(mirror)
    with pytest.raises(ChangedOutsideError):
        primary.mirror()


def test_a_write_whose_time_was_put_back_is_seen(primary: Primary, mirror: Mirror) -> None:
    times = os.stat(image_of(mirror))
    scribble(image_of(mirror))
    os.utime(image_of(mirror), ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ChangedOutsideError):
        primary.mirror()


def test_another_file_in_its_place_is_seen(primary: Primary, mirror: Mirror) -> None:
    shutil.copy(image_of(mirror), f"{image_of(mirror)}.new")
    os.rename(f"{image_of(mirror)}.new", image_of(mirror))
    with pytest.raises(ChangedOutsideError, match="another file is in its place"):
        primary.mirror()
    assert verify(mirror)
    primary.mirror()


@pytest.mark.parametrize("act", ["chmod", "rename", "fallocate"])
def test_what_only_moves_the_time_is_cured_by_a_verification(primary: Primary, mirror: Mirror, act: str) -> None:
    path = image_of(mirror)
    match act:
        case "chmod":
            os.chmod(path, 0o640)
        case "rename":
            os.rename(path, f"{path}.aside")
            os.rename(f"{path}.aside", path)
        case "fallocate":
            with files.open_file(path, write=True) as file:
                file.reserve(0, PAGE)
                file.truncate(file.size())
    with pytest.raises(ChangedOutsideError):
        primary.mirror()
    assert verify(mirror)
    assert primary.mirror().checkpoint.position.lsn > mirror.checkpoint.position.lsn


def test_a_verification_during_which_something_was_written_cures_nothing(
    primary: Primary, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(image_of(mirror), 0o640)
    real = Verify._compare

    def compare(self: Verify, *arguments: object) -> None:
        real(self, *arguments)  # type: ignore[arg-type]  # whatever they are
        scribble(image_of(mirror))

    monkeypatch.setattr(Verify, "_compare", compare)
    assert verify(mirror)
    with pytest.raises(ChangedOutsideError):
        primary.mirror()


def test_a_copy_of_a_mirror_is_a_mirror(primary: Primary, mirror: Mirror, tmp_path: Path) -> None:
    shutil.copytree(mirror.path, tmp_path / "copy")
    primary.mirror("copy")
    assert verify(Mirror(str(tmp_path / "copy")))


def test_a_mirror_that_was_moved_is_the_same(primary: Primary, mirror: Mirror, tmp_path: Path) -> None:
    os.rename(mirror.path, tmp_path / "moved")
    primary.mirror("moved")
    scribble(image_of(Mirror(str(tmp_path / "moved"))))
    with pytest.raises(ChangedOutsideError):
        primary.mirror("moved")


def test_a_replay_that_was_only_opened_changes_nothing(primary: Primary, mirror: Mirror) -> None:
    with Replay(primary.journal_path, mirror.path):
        pass
    scribble(image_of(mirror))
    with pytest.raises(ChangedOutsideError):
        primary.mirror()


def test_what_a_replay_that_was_killed_left_is_not_taken_for_a_change(primary: Primary, mirror: Mirror) -> None:
    replay = Replay(primary.journal_path, mirror.path)
    replay.run()
    replay._ended_soundly = False  # as kill -9: nothing is noted
    replay.__exit__()
    os.utime(image_of(mirror))
    primary.mirror()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"boot_id": 1}'])
def test_without_a_note_that_makes_sense_nothing_is_known(primary: Primary, mirror: Mirror, text: str) -> None:
    os.chmod(image_of(mirror), 0o640)
    (Path(mirror.path) / "seen.json").write_text(text)
    primary.mirror()


def test_after_another_boot_the_time_of_a_file_still_counts(
    primary: Primary, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostinfo, "boot_id", lambda: "another-boot")
    assert lastseen.find_problem(mirror) is None
    os.chmod(image_of(mirror), 0o640)
    with pytest.raises(ChangedOutsideError):
        primary.mirror()


def test_a_write_to_a_device_is_seen_in_the_same_boot(
    primary: Primary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loop_device(tmp_path, 4096 * PAGE) as device:
        mirror = primary.mirror("on-device", targets={"a": device})
        primary.mirror("on-device")
        with files.open_file(device, write=True) as file:
            file.pwrite(b"foreign", 1001 * PAGE)
            file.fdatasync()
        with pytest.raises(ChangedOutsideError, match="the device was written since"):
            primary.mirror("on-device")
        with monkeypatch.context() as patch:
            patch.setattr(hostinfo, "disk_ids", lambda _: hostinfo.DiskIds(diskseq=1 << 40))
            assert lastseen.find_problem(mirror) is None, "it was attached anew, and counts from 0"
        assert not verify(mirror)
        with monkeypatch.context() as patch:
            patch.setattr(hostinfo, "boot_id", lambda: "another-boot")
            assert lastseen.find_problem(mirror) is None


def test_a_promotion_that_verifies_is_not_kept_by_a_time(mirror: Mirror) -> None:
    os.chmod(image_of(mirror), 0o640)
    promote(mirror.path)
    assert Mirror(mirror.path).promoted


def test_a_promotion_that_does_not_end_hides_no_foreign_write(primary: Primary, mirror: Mirror) -> None:
    scribble(image_of(mirror))
    with Promotion(mirror.path) as promotion:
        promotion.drain()
    assert Mirror(mirror.path).checkpoint.position.lsn > mirror.checkpoint.position.lsn
    for _ in range(2):
        with pytest.raises(ChangedOutsideError):
            primary.mirror()
    with Promotion(mirror.path) as promotion:
        promotion.drain()
        with pytest.raises(ChangedOutsideError):
            promotion.verify()
    with pytest.raises(ChangedOutsideError):
        primary.mirror()


def test_a_promotion_that_proved_a_mirror_cures_its_time(primary: Primary, mirror: Mirror) -> None:
    os.chmod(image_of(mirror), 0o640)
    with Promotion(mirror.path) as promotion:
        promotion.drain()
        promotion.verify()
    primary.mirror()
