"""A volume that is a mirror's says so, until the mirror is promoted; a copy of it is free."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrortool import accounts, files, hostinfo
from mirrortool.errors import ChangedOutsideError, NewerMirrorError, UnusableVolumeError, host_error
from mirrortool.mirror import volumelabels, volumeregistry
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.volumelabels import ATTRIBUTE, Belonging, belonging
from mirrortool.replay.session import Replay
from tests.fakes.promotions import promote
from tests.fakes.volumes import PAGE, Primary, loop_device, make_scanned, pattern, write_file


@pytest.fixture(autouse=True)
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(volumeregistry.PLACE, str(tmp_path / "state" / "mirrortool"))
    return tmp_path / "state" / "mirrortool" / "volumes"


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    return make_scanned(tmp_path, {"a": pattern(1, 10 * PAGE)})


@pytest.fixture
def no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without extended attributes."""

    def fail(path: str, _name: str, _value: bytes) -> None:
        raise host_error(OSError(95, "Operation not supported"), path, "label")

    monkeypatch.setattr(files, "set_attribute", fail)
    monkeypatch.setattr(files, "get_attribute", lambda *_: None)


def image_of(mirror: Mirror) -> str:
    return mirror.volume_path(mirror.kept[0])


def onto(primary: Primary, target: str, name: str = "mirror", **options: bool) -> Mirror:
    return primary.mirror(name, targets={"a": target}, **options)


def is_of(path: str, mirror: Mirror, *, is_there: bool = True) -> bool:
    return belonging(path) == Belonging(mirror.uuid.hex(), files.absolute(mirror.path), is_there)


def test_a_label_of_a_later_format_is_refused(primary: Primary, own_registry: Path) -> None:
    """It may protect the volume; and so may an entry of the registry."""
    image = image_of(primary.mirror())
    label = json.loads(files.get_attribute(image, ATTRIBUTE) or b"{}")
    if label:
        files.set_attribute(image, ATTRIBUTE, json.dumps({**label, "format": 2, "needs": "9.8.7"}).encode())
        with pytest.raises(NewerMirrorError, match=r"use mirrortool 9\.8\.7"):
            belonging(image)
        files.set_attribute(image, ATTRIBUTE, json.dumps(label).encode())
    own_registry.mkdir(parents=True, exist_ok=True)
    (own_registry / "x-a.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(NewerMirrorError, match=r"x-a\.json: is of format 2"):
        list(volumeregistry._entries())


def test_an_own_image_and_a_file_of_the_owners_have_labels(
    primary: Primary, tmp_path: Path, own_registry: Path
) -> None:
    assert is_of(image_of(own := primary.mirror("own")), own)
    assert is_of(str(tmp_path / "disk"), onto(primary, str(tmp_path / "disk")))
    assert belonging(primary.paths["a"]) is None and belonging(str(tmp_path / "nothing")) is None
    assert not own_registry.exists()


@pytest.mark.parametrize("command", [["cp", "-a"], ["cp", "--preserve=all"], ["cp"]])
def test_a_copy_is_free(primary: Primary, tmp_path: Path, command: list[str]) -> None:
    mirror = onto(primary, str(tmp_path / "disk"))
    subprocess.run([*command, tmp_path / "disk", tmp_path / "copy"], check=True)
    assert belonging(str(tmp_path / "copy")) is None
    assert is_of(str(tmp_path / "disk"), mirror)


def test_a_copy_with_the_same_inode_on_another_file_system_is_free(
    primary: Primary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = str(tmp_path / "disk")
    mirror = onto(primary, disk)
    found = files.find_facts(disk)
    assert found
    other = files.Facts(
        files.Identity(found.identity.device + 1, found.identity.inode, False),
        found.size, found.allocated, found.modified_ns, found.changed_ns, found.kind,
    )  # fmt: skip
    real = files.find_facts
    monkeypatch.setattr(files, "find_facts", lambda path: other if path == disk else real(path))
    assert belonging(disk) is None
    monkeypatch.setattr(hostinfo, "boot_id", lambda: "another-boot")  # in which numbers are others
    assert is_of(disk, mirror)


def test_a_promoted_mirrors_volumes_are_free(primary: Primary, tmp_path: Path) -> None:
    own, other = primary.mirror("own"), onto(primary, str(tmp_path / "disk"), "other")
    promote(own.path)
    assert belonging(image_of(own)) is None
    assert files.get_attribute(image_of(own), ATTRIBUTE) is None
    assert is_of(str(tmp_path / "disk"), other)


def test_a_label_that_a_promotion_could_not_remove_says_nothing(
    primary: Primary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = onto(primary, str(tmp_path / "disk"))
    monkeypatch.setattr(volumelabels, "remove", lambda _: None)
    promote(mirror.path)
    assert files.get_attribute(str(tmp_path / "disk"), ATTRIBUTE)
    assert belonging(str(tmp_path / "disk")) is None


def test_a_mirror_that_is_gone_only_asks_and_one_that_was_moved_labels_anew(primary: Primary, tmp_path: Path) -> None:
    disk = str(tmp_path / "disk")
    mirror = onto(primary, disk)
    os.rename(mirror.path, tmp_path / "moved")
    assert is_of(disk, mirror, is_there=False)
    moved = onto(primary, disk, "moved")
    assert is_of(disk, moved)
    shutil.rmtree(moved.path)
    assert is_of(disk, moved, is_there=False)
    anew = primary.mirror("anew", targets={"a": disk}, overwrite=True)
    assert is_of(disk, anew)


def test_an_own_image_belongs_also_to_a_mirror_that_was_copied_whole(primary: Primary, tmp_path: Path) -> None:
    mirror = primary.mirror()
    shutil.copytree(mirror.path, tmp_path / "copy")
    assert is_of(image_of(Mirror(str(tmp_path / "copy"))), Mirror(str(tmp_path / "copy")))


def test_another_mirrors_volume_is_no_target(primary: Primary, tmp_path: Path) -> None:
    disk = str(tmp_path / "disk")
    mirror = onto(primary, disk)
    with pytest.raises(UnusableVolumeError, match=f"belongs to the mirror {mirror.path}"):
        onto(primary, disk, "other", overwrite=True)
    assert not (tmp_path / "other").exists()
    with Replay(primary.journal_path, mirror.path) as replay:
        replay.run()


def test_a_mirror_whose_volume_another_one_took_is_refused(primary: Primary, tmp_path: Path) -> None:
    disk = str(tmp_path / "disk")
    mirror = onto(primary, disk)
    os.rename(mirror.path, tmp_path / "away")
    onto(primary, disk, "other", overwrite=True)
    os.rename(tmp_path / "away", mirror.path)
    (Path(mirror.path) / "seen.json").unlink()
    with pytest.raises(ChangedOutsideError, match=r"belongs to the mirror .*/other by now"):
        primary.mirror()


@pytest.mark.usefixtures("no_attributes")
def test_without_attributes_the_registry_knows(primary: Primary, tmp_path: Path, own_registry: Path) -> None:
    disk = str(tmp_path / "disk")
    mirror = onto(primary, disk)
    assert is_of(disk, mirror) and [each.name for each in own_registry.iterdir()] == [f"{mirror.uuid.hex()}-a.json"]
    shutil.copy(disk, tmp_path / "copy")
    assert belonging(str(tmp_path / "copy")) is None
    promote(mirror.path)
    assert belonging(disk) is None and list(own_registry.iterdir()) == []


@pytest.mark.usefixtures("no_attributes")
def test_a_registry_that_cannot_be_written_or_read_is_done_without(primary: Primary, tmp_path: Path) -> None:
    write_file(str(tmp_path / "state"), b"a file")
    mirror = onto(primary, str(tmp_path / "disk"))
    assert belonging(str(tmp_path / "disk")) is None
    promote(mirror.path)


@pytest.mark.usefixtures("no_attributes")
def test_what_makes_no_sense_in_the_registry_is_passed_over(
    primary: Primary, tmp_path: Path, own_registry: Path
) -> None:
    mirror = onto(primary, str(tmp_path / "disk"))
    (own_registry / "x.json").write_text("{")
    (own_registry / "y.json").write_text('{"mirror": 1}')
    assert is_of(str(tmp_path / "disk"), mirror)


@pytest.mark.parametrize("label", [b"", b"{", b"[]", b"1", b'{"mirror": "x"}', b'"\xff"'])
def test_a_label_that_is_not_valid_is_none(primary: Primary, label: bytes) -> None:
    os.setxattr(primary.paths["a"], ATTRIBUTE, label)
    assert belonging(primary.paths["a"]) is None


@contextmanager
def attached(path: Path, *options: str) -> Iterator[str]:
    """A loop device over a file; gone afterwards."""
    device = subprocess.run(["losetup", "--find", "--show", *options, path], capture_output=True, text=True, check=True)
    try:
        yield device.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", device.stdout.strip()], check=True)


def test_a_loop_device_is_known_by_its_file(primary: Primary, tmp_path: Path, own_registry: Path) -> None:
    with loop_device(tmp_path, 64 * PAGE) as device:
        mirror = onto(primary, device)
        assert is_of(device, mirror) and len(list(own_registry.iterdir())) == 1
        with attached(tmp_path / "disk.backing", "--offset", "4096") as other:
            assert belonging(other) is None
    write_file(str(tmp_path / "other"), 64 * PAGE)
    with attached(tmp_path / "other") as other:
        assert belonging(other) is None
    with attached(tmp_path / "disk.backing") as again:
        assert is_of(again, mirror)
        promote(mirror.path)
        assert belonging(again) is None


def test_a_loop_device_over_a_mirrors_file_is_the_mirrors(primary: Primary, tmp_path: Path) -> None:
    write_file(str(tmp_path / "disk"), 16 * PAGE)
    with loop_device(tmp_path, PAGE):  # so that there are loop devices at all
        pass
    mirror = onto(primary, str(tmp_path / "disk"))
    with attached(tmp_path / "disk") as device:
        assert is_of(device, mirror)
    own = primary.mirror("own")
    with attached(Path(image_of(own))) as device:
        assert is_of(device, own)


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ((1, "b", "wwid:x", "", 3, ()), (2, "c", "wwid:x", "", 9, ()), True),
        ((1, "b", "wwid:x", "", 3, ()), (1, "b", "wwid:y", "", 3, ()), False),
        ((1, "b", "wwid:x", "p", 3, ()), (2, "c", "wwid:x", "q", 3, ()), False),
        ((1, "b", "", "", 3, ()), (1, "b", "", "", 3, ()), True),
        ((1, "b", "", "", 3, ()), (1, "b", "", "", 4, ()), False),
        ((1, "b", "", "", 3, ()), (1, "c", "", "", 3, ()), False),
        ((1, "b", "", "", 0, ()), (2, "b", "", "", 0, ()), False),
        ((1, "b", "", "", 3, (7, 8, 0)), (2, "b", "", "", 4, (7, 8, 0)), True),
        ((1, "b", "", "", 3, (7, 8, 0)), (1, "b", "", "", 3, (7, 8, 512)), False),
        ((1, "b", "", "", 3, (7, 8, 0)), (1, "b", "", "", 3, ()), False),
        ((1, "b", "", "", 3, (7, 8, 0)), (1, "c", "", "", 3, (6, 8, 0)), True),
        ((1, "b", "", "", 3, (7, 8, 0)), (1, "b", "", "", 3, (6, 8, 0)), False),
    ],
)
def test_a_device_is_known_by_what_identifies_it(
    then: tuple[int, str, str, str, int, tuple[int, ...]],
    now: tuple[int, str, str, str, int, tuple[int, ...]],
    expected: bool,
) -> None:
    one, two = (
        volumeregistry.Known(
            files.Identity(0, number, True), boot, hostinfo.DiskIds(wwid, partuuid, diskseq), backing, 0
        )
        for number, boot, wwid, partuuid, diskseq, backing in (then, now)
    )
    assert one.is_same(two) is expected


@pytest.mark.parametrize("is_device", [False, True])
def test_a_file_that_was_given_the_inode_of_another_is_not_taken_for_it(is_device: bool) -> None:
    """A file system gives the inode of a removed file to the next one that is made."""

    def known(born_ns: int) -> volumeregistry.Known:
        backing = (7, 8, 0) if is_device else ()
        return volumeregistry.Known(files.Identity(7, 8, is_device), "b", hostinfo.DiskIds("", "", 0), backing, born_ns)

    assert known(5).is_same(known(5)) and not known(5).is_same(known(6))
    assert known(0).is_same(known(6)) and known(5).is_same(known(0)), "not every file system keeps it"


@pytest.mark.usefixtures("no_attributes", "own_registry")
def test_the_registry_does_not_name_a_mirror_for_a_new_file(primary: Primary, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    mirror = onto(primary, str(disk))
    before = files.find_facts(str(disk))
    os.rename(disk, tmp_path / "moved")
    assert is_of(str(tmp_path / "moved"), mirror)
    for number in range(100):
        (tmp_path / "moved").unlink(missing_ok=True)
        place = tmp_path / str(number)
        place.touch()
        facts = files.find_facts(str(place))
        if before and facts and facts.identity == before.identity:
            assert belonging(str(place)) is None
            return
    pytest.skip("this file system does not give an inode again soon")


def test_the_registry_of_each_user_has_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert volumeregistry.place().endswith("/state/mirrortool")
    monkeypatch.delenv(volumeregistry.PLACE)
    monkeypatch.setattr(accounts, "home", lambda: None)
    assert volumeregistry.place() == "/var/lib/mirrortool"
    monkeypatch.setattr(accounts, "home", lambda: "/home/u")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert volumeregistry.place() == "/home/u/.local/state/mirrortool"
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert volumeregistry.place() == "/elsewhere/mirrortool"
