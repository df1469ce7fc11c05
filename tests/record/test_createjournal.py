"""A journal is made for volumes that are nobody else's, and hold a disk as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.errors import AccessError, MirrortoolError, UnusableVolumeError, UsageError
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.record.createjournal import NewVolume, init
from tests.fakes.promotions import promote
from tests.fakes.volumes import can_hold, fast_directory, make_primary, pattern, write_file


def made_mirror(path: Path) -> Mirror:
    primary = make_primary(path, {"disk": pattern(1, 4096)})
    primary.scan()
    return primary.mirror()


def test_a_container_is_a_volume_only_if_that_is_said(tmp_path: Path) -> None:
    image = str(tmp_path / "image")
    write_file(image, b"QFI\xfb" + bytes(8188))
    with pytest.raises(UnusableVolumeError, match="in the format qcow2"):
        init(str(tmp_path / "J"), [NewVolume("disk", image)], 4096)
    assert not (tmp_path / "J").exists()
    journal = init(str(tmp_path / "J"), [NewVolume("disk", image)], 4096, raw=True)
    assert journal.volumes["disk"].size == 8192


def test_an_empty_file_becomes_a_volume_of_the_size_asked_for(tmp_path: Path) -> None:
    """A call that lost its power may have left it; and where the call fails, it is empty again."""
    (tmp_path / "a").touch()
    volumes = [NewVolume("a", str(tmp_path / "a"), 8192), NewVolume("b", str(tmp_path / "b"))]
    with pytest.raises(MirrortoolError):
        init(str(tmp_path / "J"), volumes, 4096)
    assert (tmp_path / "a").stat().st_size == 0
    journal = init(str(tmp_path / "J"), volumes[:1], 4096)
    assert journal.volumes["a"].size == 8192 == (tmp_path / "a").stat().st_size
    (tmp_path / "c").write_bytes(b"c")
    with pytest.raises(UnusableVolumeError, match="has 1 B"):
        init(str(tmp_path / "K"), [NewVolume("c", str(tmp_path / "c"), 8192)], 4096)


def test_what_lies_in_a_mirror_is_nobodys_volume(tmp_path: Path) -> None:
    mirror = made_mirror(tmp_path)
    image = mirror.volume_path(mirror.kept[0])
    with pytest.raises(UnusableVolumeError, match="lies inside the mirror"):
        init(str(tmp_path / "J"), [NewVolume("disk", image)], 4096)
    with pytest.raises(AccessError, match="lies inside the mirror"):
        init(f"{mirror.path}/J", [NewVolume("disk", str(tmp_path / "disk.vol"))], 4096)
    assert not (tmp_path / "J").exists() and not Path(mirror.path, "J").exists()


def test_what_was_promoted_is_a_primarys_volume_for_any_journal(tmp_path: Path) -> None:
    mirror = made_mirror(tmp_path)
    promote(mirror.path)
    journal = init(str(tmp_path / "J"), [NewVolume("disk", mirror.volume_path(mirror.kept[0]))], 4096)
    assert journal.volumes["disk"].size == 4096


def test_volumes_stay_where_they_were_placed(tmp_path: Path) -> None:
    volumes = [NewVolume("a", str(tmp_path / "a"), 1 << 20, 3 << 60), NewVolume("b", str(tmp_path / "b"), 1 << 20)]
    made = init(str(tmp_path / "J"), volumes)
    for journal in (made, Journal(made.path)):
        assert [(volume.name, volume.start) for volume in journal.volumes] == [("b", 0), ("a", 3 << 60)]


def test_volumes_that_overlap_by_the_size_that_a_file_has_are_refused_and_nothing_is_left() -> None:
    """Which is known only after a file of the other volume was made; on a file system with such files, as tmpfs."""
    with fast_directory() as directory:
        image = f"{directory}/large"
        if not can_hold(directory, 300 << 40):
            pytest.skip("no file of 300 TiB on this file system")
        write_file(image, 300 << 40)
        volumes = [NewVolume("new", f"{directory}/new", 1 << 20, 1 << 48), NewVolume("large", image, None, 0)]
        with pytest.raises(UsageError, match="volumes large and new overlap"):
            init(f"{directory}/J", volumes)
        assert [path.name for path in Path(directory).iterdir()] == ["large"]
        journal = init(f"{directory}/J", [NewVolume("new", f"{directory}/new", 1 << 20), volumes[1]])
        assert journal.volumes["new"].start == 2 << 48
