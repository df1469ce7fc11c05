"""A mirror on backings: which are refused when it is made, and what is compared when they are opened."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirrortool import files, imageformats
from mirrortool.errors import (
    ChangedOutsideError,
    LockedError,
    MirrortoolError,
    NotAMirrorError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.journal.directory import Journal
from mirrortool.mirror.backingvolumes import find_backings
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.mirror.newmirror import create
from mirrortool.mirror.openvolumes import open_store
from mirrortool.mirror.targetvolume import open_target
from mirrortool.replay.replayoptions import ReplayOptions
from mirrortool.replay.session import Replay
from mirrortool.store.backing import read_header, unmake_backing
from mirrortool.store.joined import JoinedStore
from mirrortool.verify import Verify, to_json
from tests.fakes.disk import PowerCut, cut_at, faulty
from tests.fakes.journals import (
    PAGE,
    Commit,
    Write,
    assert_is_commit,
    assert_verifies,
    images_of,
    make_journal,
    memory_directory,
    replay_all,
    verified,
)
from tests.fakes.spannedmirrors import EXTENT, small_extents, targets
from tests.fakes.volumes import loop_device, make_primary, pattern

SIZES = {"a": 8 * EXTENT + 100, "b": 3 * PAGE}


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path, small_extents():
        yield path


@pytest.fixture
def journal(place: Path) -> Journal:
    frames = [[Write("a", number * 4, pattern(number, 3 * PAGE)), Commit()] for number in range(8)]
    return make_journal(place / "J", SIZES, [*frames, [Write("b", 1, pattern(9, PAGE)), Commit()]])


@pytest.fixture
def mirror(place: Path, journal: Journal) -> Mirror:
    """On three backings of unequal sizes."""
    replay_all(journal, place / "M", backings=targets(place, [8, 4, 2]), extent_bytes=EXTENT)
    return Mirror(str(place / "M"))


def fail(place: Path, journal: Journal, **options: object) -> MirrortoolError:
    with pytest.raises(MirrortoolError) as failed:
        replay_all(journal, place / "M", **options)
    return failed.value


def test_volumes_lie_on_the_backings_and_mirror_json_says_so(place: Path, journal: Journal, mirror: Mirror) -> None:
    assert assert_is_commit(journal, mirror.path) > 0
    assert_verifies(mirror.path)
    values = json.loads((place / "M/mirror.json").read_text())
    assert (values["format"], values["extent"]) == (3, EXTENT)
    assert [each["path"] for each in values["backings"]] == [str(place / f"b{number}") for number in range(3)]
    assert values["volumes"] == [
        {"name": "a", "base": 0, "kind": "spanned"}, {"name": "b", "base": 1 << 48, "kind": "spanned"}
    ]  # fmt: skip
    assert [holder.name for holder in mirror.holders()] == [f"@{each['uuid'][:8]}" for each in values["backings"]]
    assert oct(os.stat(place / "b0").st_mode & 0o777) == "0o600"


def test_a_volume_that_is_named_lies_where_it_is_named(place: Path, journal: Journal) -> None:
    replay_all(
        journal, place / "M", targets={"b": str(place / "b.img")}, backings=targets(place, [9]), extent_bytes=EXTENT
    )
    assert (place / "b.img").read_bytes() == bytes(PAGE) + pattern(9, PAGE) + bytes(PAGE)
    with closing(open_store(Mirror(str(place / "M")), write=True)) as store:
        assert isinstance(store, JoinedStore)
    assert_verifies(place / "M")


def test_an_older_mirrortool_refuses_it_by_its_format(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirrortool.mirror.directory.MIRROR_FORMAT", 2)
    with pytest.raises(NotAMirrorError, match="is of format 3, and this mirrortool knows formats up to 2"):
        Mirror(mirror.path)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"extent": 3}, "extent"),
        ({"extent": None}, "extent"),
        ({"backings": []}, "backings"),
        ({"backings": [{"uuid": "ab" * 16, "path": "/x", "is_draining": False}] * 2}, "backings"),
        ({"backings": [{"uuid": "ab", "path": "/x", "is_draining": False}]}, "uuid"),
        ({"backings": [{"uuid": "ab" * 16, "path": "/x"}]}, "is_draining"),
    ],
)
def test_a_field_that_is_not_valid_is_named(mirror: Mirror, change: dict[str, object], name: str) -> None:
    path = Path(mirror.path, "mirror.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(NotAMirrorError, match=f"field '{name}' is missing or not valid"):
        Mirror(mirror.path)


def test_what_is_to_be_a_backing_is_refused_where_it_must_not_be_lost(place: Path, journal: Journal) -> None:
    (place / "full").write_bytes(b"data" * EXTENT)
    (place / "qcow2").write_bytes(b"QFI\xfb" + bytes(16 * EXTENT))
    (place / "zeros").write_bytes(bytes(12 * EXTENT))
    (place / "directory").mkdir()

    def why(*backings: BackTarget, **options: object) -> str:
        error = fail(place, journal, backings=backings, extent_bytes=EXTENT, **options)
        assert not (place / "M/mirror.json").exists()
        return str(error)

    def at(name: str, size: int | None = None) -> BackTarget:
        return BackTarget(str(place / name), size)

    assert "needs a size" in why(at("new"))
    assert "have no room for an extent" in why(at("new", PAGE))
    assert "the target holds data" in why(at("full"))
    assert "in the format qcow2" in why(at("qcow2"), overwrite=True)
    assert "is a directory" in why(at("directory"))
    assert "there is no such device" in why(BackTarget("/dev/none", EXTENT * 9))
    assert "would share one target" in why(at("new", 9 * EXTENT), at("new", 9 * EXTENT))
    assert "would share one target" in why(at("zeros"), targets={"a": str(place / "zeros")})
    assert "lies in the mirror's directory" in why(at("M/sums/x", 9 * EXTENT))
    assert "lies inside the journal" in why(at("J/x", 9 * EXTENT))
    assert "no volume is left" in why(at("zeros"), targets={name: str(place / name) for name in SIZES})
    assert (place / "full").read_bytes() == b"data" * EXTENT
    replay_all(journal, place / "M", backings=[at("full"), at("zeros")], extent_bytes=EXTENT, overwrite=True)
    assert_verifies(place / "M")


def test_a_backing_is_not_on_the_primary(place: Path) -> None:
    primary = make_primary(place, {"disk": bytes(100 * EXTENT)})
    primary.scan()
    for options in ({}, {"overwrite": True, "raw": True}):
        error = fail(
            place, primary.journal, backings=[BackTarget(primary.paths["disk"])], extent_bytes=EXTENT, **options
        )
        assert isinstance(error, UnusableVolumeError)
        assert "is the primary's own volume" in str(error)


def test_sizes_of_extents_that_are_not_possible_are_refused() -> None:
    for size in (1, 3 << 20, 32 << 20, 32 << 10):
        with pytest.raises(UsageError, match="extents of"):
            ReplayOptions(backings=[BackTarget("b", 1 << 30)], extent_bytes=size)
    with pytest.raises(UsageError, match="--back"):
        ReplayOptions(extent_bytes=1 << 20)


@pytest.mark.parametrize("cut", range(3, 60, 4))
def test_a_mirror_that_was_not_made_whole_is_made_by_the_next_call(place: Path, journal: Journal, cut: int) -> None:
    """Without --overwrite: nothing of another's is there."""
    wanted = targets(place, [8, 4])
    with faulty(cut_at(cut)) as system:
        try:
            create(str(place / "M"), journal, backings=wanted, extent_bytes=EXTENT)
        except PowerCut:
            pass
        system.disk.lose_all_but_newest()
    if not (place / "M/mirror.json").exists():
        create(str(place / "M"), journal, backings=wanted, extent_bytes=EXTENT)
    replay_all(journal, place / "M")
    assert_verifies(place / "M")


def test_another_mirrors_backing_is_refused(place: Path, journal: Journal, mirror: Mirror) -> None:
    for options in ({}, {"overwrite": True, "raw": True}):
        with pytest.raises(UnusableVolumeError, match="belongs to the mirror"):
            replay_all(journal, place / "M2", backings=[BackTarget(str(place / "b0"))], extent_bytes=EXTENT, **options)
    assert_verifies(mirror.path)
    shutil.rmtree(mirror.path)  # then it is nobody's, but it holds what may not be lost
    with pytest.raises(UnusableVolumeError, match="backing of a mirror"):
        replay_all(journal, place / "M2", backings=[BackTarget(str(place / "b0"))], extent_bytes=EXTENT)
    backings = [BackTarget(str(place / "b0")), *targets(place, [0, 0, 0, 4])[3:]]
    replay_all(journal, place / "M2", backings=backings, extent_bytes=EXTENT, overwrite=True, raw=True)
    assert_verifies(place / "M2")


def test_a_missing_backing_is_named_and_what_lies_on_the_others_is_verified(
    place: Path, journal: Journal, mirror: Mirror
) -> None:
    before = images_of(mirror.path)
    os.rename(place / "b1", place / "elsewhere")
    error = fail(place, journal)
    assert isinstance(error, UnusableVolumeError)
    assert f"{place}/b1" in str(error) and "is not there" in str(error) and "--back PATH" in str(error)
    result = verified(mirror.path)
    assert not result.is_right and result.table_is_right and result.journal_agrees
    assert [str(each.where) for each in result.missing] == [f"{place}/b1"]
    assert result.bad_pages and all(run.is_missing for run in result.bad_runs)
    pages = {
        (run.volume, page) for run in result.bad_runs for page in range(run.first_page, run.first_page + run.count)
    }
    after = images_of(mirror.path)
    for name, content in before.items():
        for page in range(-(-len(content) // PAGE)):
            part = slice(page * PAGE, page * PAGE + PAGE)
            assert ((name, page) in pages) == (content[part] != after[name][part])
    with Verify(mirror.path) as verify:
        values = to_json(verify.mirror, verify.run())
    assert values["missing_backings"] == [{"path": f"{place}/b1", "problem": result.missing[0].what}]
    os.rename(place / "elsewhere", place / "b1")
    assert_verifies(mirror.path)


def test_with_a_bad_page_beside_it_the_two_are_told_apart(place: Path, mirror: Mirror) -> None:
    os.remove(place / "b1")
    with open(place / "b0", "r+b") as file:
        data = file.read()
        at = data.index(pattern(0, PAGE))
        file.seek(at)
        file.write(b"rot!")
    result = verified(mirror.path)
    assert [run.count for run in result.bad_runs if not run.is_missing] == [1]
    assert any(run.is_missing for run in result.bad_runs)


def test_of_a_mirror_without_any_backing_nothing_can_be_read(place: Path, mirror: Mirror) -> None:
    for number in range(3):
        os.remove(place / f"b{number}")
    with pytest.raises(UnusableVolumeError, match="is not there"):
        Verify(mirror.path)


def test_backings_are_found_by_their_uuids(place: Path, journal: Journal, mirror: Mirror) -> None:
    """Two that have each other's paths, as devices may after a boot, and one that the owner names."""
    for old, new in (("b0", "x"), ("b1", "b0"), ("x", "b1"), ("b2", "b9")):
        os.rename(place / old, place / new)
    assert not verified(mirror.path).is_right
    replay_all(journal, mirror.path, backings=[BackTarget(str(place / "b9"))])
    assert_verifies(mirror.path)
    values = json.loads((place / "M/mirror.json").read_text())
    assert [each["path"] for each in values["backings"]] == [str(place / name) for name in ("b1", "b0", "b9")]


def test_what_is_no_backing_of_the_mirror_cannot_be_named_as_one(place: Path, journal: Journal, mirror: Mirror) -> None:
    (place / "other").write_bytes(bytes(9 * EXTENT))
    error = fail(place, journal, backings=[BackTarget(str(place / "other"))])
    assert "is not a backing of this mirror" in str(error)
    assert f"mirrortool backing add {mirror.path} {place}/other" in str(error)
    assert "cannot be changed" in str(fail(place, journal, backings=[BackTarget(str(place / "b0"), 77 * EXTENT)]))
    assert "cannot be changed" in str(
        fail(place, journal, backings=[BackTarget(str(place / "b0"))], extent_bytes=EXTENT * 2)
    )
    replay_all(journal, mirror.path, backings=targets(place, [8, 4, 2]), extent_bytes=EXTENT)
    replay_all(journal, place / "flat")
    with pytest.raises(UsageError, match="the mirror has no backings"):
        replay_all(journal, place / "flat", backings=targets(place, [8]))


def swap(place: Path) -> None:
    (place / "b1").write_bytes(bytes(9 * EXTENT))


def shrink(place: Path) -> None:
    os.truncate(place / "b1", os.path.getsize(place / "b1") - 1)


def spoil(place: Path) -> None:
    with open(place / "b1", "r+b") as file:
        file.seek(20)
        file.write(b"?")


def give_away(place: Path) -> None:
    """Another mirror's backing, with that uuid."""
    with open_target(str(place / "b1")) as file:
        header = read_header(file)
        assert header
        file.pwrite(
            type(header)(header.uuid, b"x" * 16, EXTENT, header.size, header.cells, header.data_offset, 0).to_bytes(), 0
        )


def unmake(place: Path) -> None:
    with open_target(str(place / "b1")) as file:
        unmake_backing(file)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (swap, ChangedOutsideError, "is not a backing, and it was"),
        (shrink, ChangedOutsideError, "shrank: it has"),
        (spoil, UnusableVolumeError, "the header of this backing is damaged"),
        (give_away, ChangedOutsideError, "belongs to another mirror by now"),
        (unmake, ChangedOutsideError, "is not a backing"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_backing_that_is_not_what_it_was_is_refused_to_a_replay_and_left_out_of_what_is_read(
    place: Path, journal: Journal, mirror: Mirror, change: object, kind: type[MirrortoolError], text: str
) -> None:
    assert callable(change)
    change(place)
    error = fail(place, journal)
    assert isinstance(error, kind) and text in str(error) and error.exit_code in (20, 21) and error.remedy
    result = verified(mirror.path)
    assert [str(each.where) for each in result.missing] == [f"{place}/b1"]
    assert all(run.is_missing for run in result.bad_runs)


def test_backings_are_locked_while_they_are_written(place: Path, journal: Journal, mirror: Mirror) -> None:
    with Replay(journal.path, mirror.path):
        for number in range(3):
            with pytest.raises(LockedError):
                open_target(str(place / f"b{number}"))
    with open_target(str(place / "b2")), pytest.raises(LockedError):
        Replay(journal.path, mirror.path)


def test_a_backing_that_another_program_wrote_is_found(place: Path, journal: Journal, mirror: Mirror) -> None:
    os.utime(place / "b1")
    error = fail(place, journal)
    assert isinstance(error, ChangedOutsideError)
    assert f"backing {find_backings(mirror)[1].kept.short} changed outside of mirrortool" in str(error)
    assert verified(mirror.path).is_right
    replay_all(journal, mirror.path)


def test_a_block_device_is_a_backing(place: Path, journal: Journal, tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * EXTENT) as device:
        (tmp_path / "disk.backing").write_bytes(pattern(3, 64 * EXTENT))
        backings = [BackTarget(device), *targets(place, [4])]
        assert "holds data" in str(fail(place, journal, backings=backings, extent_bytes=EXTENT))
        assert "the device has" in str(
            fail(place, journal, backings=[BackTarget(device, 1 << 30)], extent_bytes=EXTENT, overwrite=True)
        )
        replay_all(journal, place / "M", backings=backings, extent_bytes=EXTENT, overwrite=True)
        assert_verifies(place / "M")
        assert assert_is_commit(journal, place / "M") > 0
        replay_all(journal, place / "M")


@pytest.mark.usefixtures("mirror")
def test_a_backing_is_no_volume(place: Path, journal: Journal) -> None:
    """What it holds is not the bytes of one, so that it is refused like an image in a container format."""
    with files.open_file(str(place / "b0")) as file:
        assert imageformats.container_format(file, file.size()) == "backing of a mirror"
    with pytest.raises(UnusableVolumeError, match="belongs to the mirror"):
        replay_all(journal, place / "M2", targets={"a": str(place / "b0")}, overwrite=True)
