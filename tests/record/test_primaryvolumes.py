"""A volume that belongs to a mirror is nobody's primary until that is promoted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mirrortool.errors import ChangedOutsideError, UnusableVolumeError
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.volumelabels import belonging
from mirrortool.record.createjournal import NewVolume, init
from mirrortool.record.mark import mark
from mirrortool.record.recorder import Recorder
from mirrortool.record.scan import Scan
from mirrortool.replay.session import Replay
from tests.fakes.promotions import promote, receive
from tests.fakes.volumes import PAGE, Primary, make_old, make_primary, pattern, read_bytes


@pytest.fixture
def failed_back(tmp_path: Path) -> tuple[Primary, Mirror, str]:
    """An old primary whose volume is a mirror of the new one; that mirror, and its journal."""
    old = make_primary(tmp_path, {"disk": pattern(1, 10 * PAGE)})
    old.scan()
    receive(old.journal, tmp_path / "K")
    with Replay(str(tmp_path / "K"), str(tmp_path / "new")) as replay:
        replay.run()
    promote(str(tmp_path / "new"))
    new = Mirror(str(tmp_path / "new"))
    image = new.volume_path(new.kept[0])
    with open(image, "r+b") as file:
        file.write(b"new primary")
    make_old(image)
    with Scan(str(tmp_path / "K")) as scan:
        scan.run()
    with Replay(str(tmp_path / "K"), str(tmp_path / "M"), targets={"disk": old.paths["disk"]}, overwrite=True) as back:
        back.run()
    assert read_bytes(old.paths["disk"]) == read_bytes(image)
    return old, Mirror(str(tmp_path / "M")), str(tmp_path / "K")


def test_the_old_journal_does_not_take_the_mirror_over(failed_back: tuple[Primary, Mirror, str]) -> None:
    old, mirror, _ = failed_back
    before = {path: read_bytes(str(path)) for path in Path(old.journal_path).rglob("*.mj")}
    for attempt in (old.scan, lambda: old.scan(take_over=True), lambda: mark(old.journal_path, "x")):
        with pytest.raises(UnusableVolumeError, match=f"volume disk belongs to the mirror {mirror.path}; mirrortool p"):
            attempt()
    for take_over in (False, True):
        with pytest.raises(UnusableVolumeError, match="belongs to the mirror"):
            Recorder(old.journal_path, take_over=take_over)
    with pytest.raises(UnusableVolumeError, match="belongs to the mirror"):
        init(f"{old.directory}/J3", [NewVolume("disk", old.paths["disk"])], PAGE)
    assert {path: read_bytes(str(path)) for path in before} == before


def test_the_mirror_goes_on_and_is_promoted_and_then_recorded(failed_back: tuple[Primary, Mirror, str]) -> None:
    old, mirror, journal = failed_back
    with Scan(journal) as scan:
        scan.run()
    with Replay(journal, mirror.path) as replay:
        replay.run()
    promote(mirror.path)
    assert belonging(old.paths["disk"]) is None
    assert Journal(journal).volume_paths() == {"disk": old.paths["disk"]}
    with Scan(journal) as scan:
        scan.run()
    with Recorder.open(journal):
        pass


def test_where_the_mirror_is_gone_a_scan_adopts_the_volume_if_that_is_said(
    failed_back: tuple[Primary, Mirror, str],
) -> None:
    old, mirror, _ = failed_back
    shutil.rmtree(mirror.path)
    with pytest.raises(ChangedOutsideError, match=r"belonged to the mirror .*/M, which is not there; .*--scan"):
        old.scan()
    old.scan(take_over=True)
    assert belonging(old.paths["disk"]) is None
    old.scan()
    old.check()


def test_a_mirror_that_was_only_away_keeps_its_volume(failed_back: tuple[Primary, Mirror, str]) -> None:
    old, mirror, _ = failed_back
    os.rename(mirror.path, f"{mirror.path}.away")
    with pytest.raises(ChangedOutsideError, match="which is not there"):
        old.scan()
    os.rename(f"{mirror.path}.away", mirror.path)
    with pytest.raises(UnusableVolumeError, match="belongs to the mirror"):
        old.scan()


def test_a_copy_of_a_mirrors_volume_is_anybodys(failed_back: tuple[Primary, Mirror, str], tmp_path: Path) -> None:
    old, *_ = failed_back
    shutil.copy2(old.paths["disk"], tmp_path / "copy")
    init(str(tmp_path / "J3"), [NewVolume("disk", str(tmp_path / "copy"))], PAGE)
    with Scan(str(tmp_path / "J3")) as scan:
        scan.run()
