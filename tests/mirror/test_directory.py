"""A mirror is made whole or not at all, on targets that may be overwritten, and is opened only as it was left."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import files, jsonfile
from mirrortool.errors import (
    AccessError,
    ChangedOutsideError,
    ForkedJournalError,
    HostError,
    LockedError,
    MirrortoolError,
    NoSpaceError,
    NotAMirrorError,
    OtherJournalError,
    PromotedError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.journal.position import Position
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror, Promoted
from mirrortool.mirror.newmirror import create, is_to_be_made
from mirrortool.mirror.openvolumes import open_store
from mirrortool.mirror.targetvolume import open_target
from mirrortool.wording import exact_bytes
from tests.fakes.loop import call, require_loops
from tests.fakes.volumes import (
    PAGE,
    Primary,
    adopt,
    fast_directory,
    loop_device,
    loop_mount,
    make_scanned,
    pattern,
    read_bytes,
    write_file,
)


@pytest.fixture
def directory() -> Iterator[str]:
    with fast_directory() as path:
        yield path


@pytest.fixture
def primary(directory: str) -> Primary:
    return make_scanned(directory, {"a": pattern(1, 10 * PAGE), "b": pattern(2, PAGE + 1)})


def contents(mirror: Mirror) -> dict[str, bytes]:
    return {kept.name: read_bytes(mirror.volume_path(kept)) for kept in mirror.kept}


def edit(path: str, **values: object) -> None:
    fields = json.loads(read_bytes(path))
    Path(path).write_text(json.dumps({**fields, **values}))


def test_a_mirror_can_be_made_where_nothing_else_is(primary: Primary, directory: str) -> None:
    """A replay asks before it touches anything, and so does what only says how a replay would be done."""
    assert is_to_be_made(f"{directory}/m")
    os.mkdir(f"{directory}/m")
    assert is_to_be_made(f"{directory}/m")
    create(f"{directory}/m", primary.journal)
    assert not is_to_be_made(f"{directory}/m")
    os.mkdir(f"{directory}/other")
    Path(directory, "other", "diary").write_text("dear")
    with pytest.raises(AccessError, match="not empty"):
        is_to_be_made(f"{directory}/other")
    with pytest.raises(NotAMirrorError):
        is_to_be_made(f"{directory}/other/diary")


def test_a_new_mirror_is_all_zeros_at_lsn_0(primary: Primary, directory: str) -> None:
    mirror = create(f"{directory}/m", primary.journal)
    assert contents(mirror) == {"a": bytes(10 * PAGE), "b": bytes(PAGE + 1)}
    assert mirror.checkpoint.position == primary.journal.start
    assert not mirror.checkpoint.is_consistent, "nothing was replayed yet"
    assert mirror.checkpoint.commit_lsn == 0
    assert mirror.volumes == primary.journal.volumes
    sums = mirror.open_sums(write=False)
    assert sums.compute_state_sum() == mirror.checkpoint.state_sum == primary.journal.first_state_sum
    sums.close()
    open_store(mirror, write=True).close()


def test_targets_are_used_where_they_are_named(primary: Primary, directory: str) -> None:
    write_file(f"{directory}/there", b"")
    os.symlink(f"{directory}/there", f"{directory}/link")
    mirror = primary.mirror(targets={"b": f"{directory}/link"})
    assert contents(mirror) == primary.contents()
    assert read_bytes(f"{directory}/there") == primary.contents()["b"]
    assert os.listdir(f"{directory}/mirror/volumes") == ["a.img"]
    with pytest.raises(UsageError, match="kept in"):
        primary.mirror(targets={"b": f"{directory}/elsewhere"})
    primary.mirror(targets={"b": f"{directory}/link"})


# What is no target. Each takes the primary and gives the path that is refused, and why.


def _data(primary: Primary) -> tuple[str, str]:
    path = f"{primary.directory}/data"
    write_file(path, bytes(3 * PAGE) + b"precious")
    return path, "holds data"


def _primary_itself(primary: Primary) -> tuple[str, str]:
    return primary.paths["a"], "primary's own volume"


def _other_primary(primary: Primary) -> tuple[str, str]:
    return primary.paths["b"], "primary's own volume"


def _hard_link_to_primary(primary: Primary) -> tuple[str, str]:
    os.link(primary.paths["b"], f"{primary.directory}/innocent")
    return f"{primary.directory}/innocent", "primary's own volume"


def _fifo(primary: Primary) -> tuple[str, str]:
    os.mkfifo(f"{primary.directory}/fifo")
    return f"{primary.directory}/fifo", "is a FIFO"


def _directory(primary: Primary) -> tuple[str, str]:
    return primary.directory, "is a directory"


def _character_device(_: Primary) -> tuple[str, str]:
    return os.ttyname(os.openpty()[1]), "is a character device"  # none of the machine's, if what is tested is wrong


REFUSED = [_data, _primary_itself, _other_primary, _hard_link_to_primary, _fifo, _directory, _character_device]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("make", REFUSED)
def test_what_must_not_be_overwritten_is_refused_and_unchanged(
    primary: Primary, make: Callable[[Primary], tuple[str, str]], overwrite: bool
) -> None:
    path, why = make(primary)
    before = read_bytes(path) if os.path.isfile(path) else None
    if overwrite and make is _data:
        mirror = primary.mirror(targets={"a": path}, overwrite=True)
        assert contents(mirror) == primary.contents()
        return
    with pytest.raises(UnusableVolumeError, match=why) as refused:
        primary.mirror(targets={"a": path}, overwrite=overwrite)
    assert refused.value.exit_code == 20
    assert not os.path.exists(f"{primary.directory}/mirror/mirror.json")
    assert before is None or read_bytes(path) == before
    mirror = primary.mirror()
    assert contents(mirror) == primary.contents()


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("second", ["t", "./t", "link"])
def test_two_volumes_on_one_target_are_refused_before_anything_is_lost(
    primary: Primary, directory: str, exists: bool, second: str
) -> None:
    if exists:
        write_file(f"{directory}/t", b"precious")
    os.symlink(f"{directory}/t", f"{directory}/link")
    targets = {"a": f"{directory}/t", "b": f"{directory}/{second}"}
    with pytest.raises(UnusableVolumeError, match="would share one target"):
        primary.mirror(targets=targets, overwrite=True)
    assert not os.path.exists(f"{directory}/mirror")
    if exists:
        assert read_bytes(f"{directory}/t") == b"precious"
    else:
        assert not os.path.exists(f"{directory}/t")


def test_a_target_of_an_unknown_volume_is_a_usage_error(primary: Primary, directory: str) -> None:
    with pytest.raises(UsageError, match="no volume c"):
        primary.mirror(targets={"c": f"{directory}/c"})
    assert not os.path.exists(f"{directory}/mirror")


@pytest.mark.parametrize("size", [10 * PAGE, 10 * PAGE + 4096])
def test_a_device_is_a_target_and_what_is_after_the_volume_stays(primary: Primary, tmp_path: Path, size: int) -> None:
    with loop_device(tmp_path, size) as device:
        mirror = primary.mirror(targets={"a": device})
        assert read_bytes(device) == primary.contents()["a"].ljust(size, b"\0")
        primary.write("a", 3 * PAGE, b"more")
        primary.scan()
        assert primary.mirror().checkpoint.position != mirror.checkpoint.position
        assert read_bytes(device) == primary.contents()["a"].ljust(size, b"\0")


def test_overwriting_a_device_clears_the_volumes_part_of_it(primary: Primary, tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * PAGE) as device:
        Path(device).write_bytes(pattern(7, 64 * PAGE))
        with pytest.raises(UnusableVolumeError, match="holds data"):
            primary.mirror(targets={"a": device})
        assert read_bytes(device) == pattern(7, 64 * PAGE)
        primary.mirror(targets={"a": device}, overwrite=True)
        assert read_bytes(device) == primary.contents()["a"] + pattern(7, 64 * PAGE)[10 * PAGE :]
        primary.resize("a", 12 * PAGE)
        primary.scan()
        primary.mirror()
        assert read_bytes(device) == primary.contents()["a"] + pattern(7, 64 * PAGE)[12 * PAGE :]


def test_a_device_that_is_too_small_is_refused_and_unchanged(primary: Primary, tmp_path: Path) -> None:
    with loop_device(tmp_path, 8 * PAGE) as device:
        Path(device).write_bytes(pattern(7, 8 * PAGE))
        with pytest.raises(UnusableVolumeError, match=r"needs 5\.0 KiB"):
            primary.mirror(targets={"a": device}, overwrite=True)
        assert read_bytes(device) == pattern(7, 8 * PAGE)


def test_a_held_device_is_refused(primary: Primary, tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * PAGE) as device:
        holder = os.open(device, os.O_RDWR | os.O_EXCL)
        try:
            with pytest.raises(LockedError, match="held"):
                primary.mirror(targets={"a": device})
        finally:
            os.close(holder)
        primary.mirror(targets={"a": device})


def test_a_locked_file_is_refused(primary: Primary, directory: str) -> None:
    path = f"{directory}/image"
    write_file(path, 10 * PAGE)
    with files.open_file(path, write=True) as holder:
        holder.lock(exclusive=False, what="it")
        with pytest.raises(LockedError):
            primary.mirror(targets={"a": path})


# Interrupted creation

CALLS = [
    "open_file", "make_directory", "sync_directory", "sync_name", "rename", "list_directory", "File.truncate",
    "File.fdatasync", "File.pwrite", "File.lock",
]  # fmt: skip


def _fail_at(patched: pytest.MonkeyPatch, name: str, number: int) -> Callable[[], bool]:
    """Make the n-th call of a function of files, from 1, fail; returns whether that call was made."""
    owner: object = files.File if name.startswith("File.") else files
    name = name.removeprefix("File.")
    real = getattr(owner, name)
    calls = 0

    def counted(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            raise NoSpaceError("no space")
        return real(*args, **options)

    patched.setattr(owner, name, counted)
    return lambda: calls >= number


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupted_creation_can_be_repeated(
    primary: Primary, directory: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whichever call fails: there is no mirror, and the next attempt makes one."""
    for number in range(1, 100):
        path = f"{directory}/{name}{number}"
        targets = {"b": f"{path}.target"}
        with monkeypatch.context() as patched:
            was_reached = _fail_at(patched, name, number)
            try:
                create(path, primary.journal, targets)
            except HostError:
                is_made = os.path.exists(f"{path}/mirror.json")
            else:
                assert not was_reached()
                break
        if not is_made:
            create(path, primary.journal, targets)
        mirror = Mirror(path)
        assert contents(mirror) == {"a": bytes(10 * PAGE), "b": bytes(PAGE + 1)}
        assert mirror.checkpoint.position.lsn == 0
        # Only the very last step, making the new name durable, may fail with the mirror in place.
        assert not is_made or name in ("sync_name", "sync_directory", "open_file")
    else:
        pytest.fail("the call is made without end")
    assert number > 1, "the call was never made"


@pytest.mark.parametrize("name", ["file", "mirror.json.old", "lost+found"])
def test_a_directory_with_something_else_is_left_alone(primary: Primary, directory: str, name: str) -> None:
    os.mkdir(f"{directory}/m")
    write_file(f"{directory}/m/{name}", b"data")
    with pytest.raises(AccessError, match="not empty"):
        create(f"{directory}/m", primary.journal)
    assert os.listdir(f"{directory}/m") == [name]


def test_a_mirror_is_not_made_over_another(primary: Primary) -> None:
    mirror = primary.mirror()
    with pytest.raises(AccessError, match="already"):
        create(mirror.path, primary.journal)
    assert Mirror(mirror.path).checkpoint == mirror.checkpoint


def test_two_creations_at_once_make_one_mirror(
    primary: Primary, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first prepares its volumes."""
    path = f"{directory}/m"
    real = files.File.fdatasync
    refused: list[MirrortoolError] = []

    def fdatasync(self: files.File) -> None:
        if not refused:
            refused.append(NoSpaceError("begun"))
            with pytest.raises(LockedError) as caught:
                create(path, primary.journal)
            refused.append(caught.value)
        real(self)

    monkeypatch.setattr(files.File, "fdatasync", fdatasync)
    create(path, primary.journal)
    assert len(refused) == 2


# What is opened


def test_a_replay_excludes_others_and_readers_share(primary: Primary) -> None:
    mirror = primary.mirror()
    with mirror.lock(exclusive=True):
        for exclusive in (True, False):
            with pytest.raises(LockedError, match="the mirror is in use"):
                Mirror(mirror.path).lock(exclusive=exclusive)
    with mirror.lock(exclusive=False), Mirror(mirror.path).lock(exclusive=False), pytest.raises(LockedError):
        Mirror(mirror.path).lock(exclusive=True)
    mirror.lock(exclusive=True).close()


def test_the_checkpoint_is_read_under_the_lock(primary: Primary) -> None:
    early = primary.mirror()
    primary.write("a", 0, b"new")
    primary.scan()
    late = primary.mirror().checkpoint
    assert early.checkpoint != late
    early.lock(exclusive=False).close()
    assert early.checkpoint == late


def test_volumes_are_held_while_they_are_open(primary: Primary) -> None:
    mirror = primary.mirror()
    store = open_store(mirror, write=True)
    for write in (True, False):
        with pytest.raises(LockedError):
            open_store(mirror, write=write)
    store.close()
    readers = [open_store(mirror, write=False) for _ in range(2)]
    with pytest.raises(LockedError):
        open_store(mirror, write=True)
    for reader in readers:
        reader.close()


def test_a_refused_store_leaves_no_lock_behind(primary: Primary) -> None:
    mirror = primary.mirror()
    os.truncate(mirror.volume_path(mirror.kept[1]), 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ChangedOutsideError):
            open_store(mirror, write=True)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("size", [0, 10 * PAGE - 1, 10 * PAGE + 1])
def test_a_volume_of_another_size_is_refused_unless_replay_was_interrupted(primary: Primary, size: int) -> None:
    mirror = primary.mirror()
    os.truncate(mirror.volume_path(mirror.kept[0]), size)
    with pytest.raises(
        ChangedOutsideError, match=re.escape(f"has {exact_bytes(size)}, the mirror left it with")
    ) as refused:
        open_store(mirror, write=False)
    assert refused.value.exit_code == 21
    mirror.save_checkpoint(mirror.checkpoint.reaching(mirror.checkpoint.position.lsn + 1))
    open_store(mirror, write=True).close()


def test_a_replaced_target_is_refused(primary: Primary, directory: str) -> None:
    mirror = primary.mirror(targets={"a": f"{directory}/t"})
    os.rename(f"{directory}/t", f"{directory}/kept")
    write_file(f"{directory}/t", read_bytes(f"{directory}/kept"))
    with pytest.raises(ChangedOutsideError, match="another file"):
        open_store(mirror, write=False)
    os.rename(f"{directory}/kept", f"{directory}/t")
    open_store(mirror, write=False).close()
    os.unlink(f"{directory}/t")
    with pytest.raises(UnusableVolumeError, match="missing"):
        open_store(mirror, write=False)


def test_a_shrunk_device_is_refused(primary: Primary, tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * PAGE) as device:
        mirror = primary.mirror(targets={"a": device})
        os.truncate(tmp_path / "disk.backing", 8 * PAGE)
        os.system(f"losetup --set-capacity {device}")
        with pytest.raises(UnusableVolumeError, match=r"needs 5\.0 KiB"):
            open_store(mirror, write=False)


def test_another_journal_is_refused(primary: Primary, directory: str) -> None:
    mirror = primary.mirror()
    os.mkdir(f"{directory}/other")
    other = adopt(f"{directory}/other", primary.paths)
    other.scan()
    with pytest.raises(OtherJournalError, match="another journal") as refused:
        mirror.check_is_of(other.journal)
    assert primary.journal_path in str(refused.value)


def test_a_mirror_follows_a_promoted_journal_and_refuses_that_of_before(primary: Primary) -> None:
    path, journal = primary.mirror().path, primary.journal
    old, position = journal.history, Mirror(path).checkpoint.position
    journal.description = replace(journal.description, history=old.promoted(position, b"1" * 16))
    Mirror(path).check_is_of(journal)
    Mirror(path).follow_to(journal)
    assert Mirror(path).history == journal.history
    for other in (old, old.promoted(position, b"2" * 16)):
        journal.description = replace(journal.description, history=other)
        with pytest.raises(ForkedJournalError, match=str(position)) as refused:
            Mirror(path).check_is_of(journal)
        assert refused.value.exit_code == 13


def test_a_mirror_that_may_hold_what_a_promotion_dropped_is_refused(primary: Primary) -> None:
    mirror, journal = primary.mirror(), primary.journal
    journal.description = replace(
        journal.description, history=journal.history.promoted(mirror.checkpoint.position, b"1" * 16)
    )
    mirror.save_checkpoint(mirror.checkpoint.reaching(mirror.checkpoint.position.lsn + 1))
    with pytest.raises(ForkedJournalError, match="past that"):
        mirror.check_is_of(journal)


def test_a_new_epoch_that_cannot_be_noted_is_not_followed(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, _: object) -> None:
        raise NoSpaceError("no space left", where=path)

    mirror, journal = primary.mirror(), primary.journal
    journal.description = replace(
        journal.description, history=journal.history.promoted(mirror.checkpoint.position, b"1" * 16)
    )
    monkeypatch.setattr(jsonfile, "save", full)
    with pytest.raises(NoSpaceError):
        mirror.follow_to(journal)
    assert mirror.history != journal.history


def test_a_promoted_mirror_is_a_mirror_no_more(primary: Primary) -> None:
    mirror = primary.mirror()
    epoch = mirror.history.promoted(mirror.checkpoint.position, b"1" * 16).current
    mirror.save_promoted(Promoted(epoch, primary.journal_path, 5))
    assert Mirror(mirror.path).promoted == Promoted(epoch, primary.journal_path, 5)
    for exclusive in (True, False):
        with pytest.raises(PromotedError, match="epoch 1") as refused:
            mirror.lock(exclusive=exclusive)
        assert (refused.value.exit_code, primary.journal_path in str(refused.value)) == (26, True)
    mirror.lock(exclusive=True, promoting=True).close()


DAMAGE = [
    ("mirror.json", None), ("mirror.json", b""), ("mirror.json", b"[]"), ("mirror.json", b'{"format": 1}'),
    ("mirror.json", b'{"format": 99}'), ("mirror.json", b"[" * 100_000), ("checkpoint.json", None),
    ("checkpoint.json", b"{}"), ("checkpoint.json", b'{"sizes": {"a": 1}}'), ("checkpoint.json", b"\xff"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data"), DAMAGE)
def test_what_is_no_mirror_is_one_line_of_error(primary: Primary, name: str, data: bytes | None) -> None:
    mirror = primary.mirror()
    if data is None:
        os.unlink(f"{mirror.path}/{name}")
    else:
        Path(f"{mirror.path}/{name}").write_bytes(data)
    with pytest.raises(NotAMirrorError) as refused:
        Mirror(mirror.path)
    assert refused.value.exit_code == 24


FIELDS = [
    {"page_size": 1000}, {"page_size": 1 << 40}, {"uuid": "00"}, {"epoch": -1}, {"epoch": True}, {"volumes": {}},
    {"volumes": []}, {"volumes": [{"name": "a"}]}, {"journal_path": None},
    {"volumes": [{"name": "a", "base": 5, "path": "x"}, {"name": "b", "base": 1 << 48, "path": "y"}]},
    {"volumes": [{"name": "../a", "base": 0, "path": "x"}, {"name": "b", "base": 1 << 48, "path": "y"}]},
]  # fmt: skip


@pytest.mark.parametrize("values", FIELDS)
def test_a_field_that_makes_no_sense_is_one_line_of_error(primary: Primary, values: dict[str, object]) -> None:
    mirror = primary.mirror()
    edit(f"{mirror.path}/mirror.json", **values)
    with pytest.raises(NotAMirrorError):
        _ = Mirror(mirror.path).volumes


def test_a_checkpoint_comes_back_as_it_was_saved(primary: Primary) -> None:
    mirror = primary.mirror()
    checkpoint = Checkpoint(Position((1 << 63) - 1, (1 << 64) - 1), 5, 7, False, 3, 1 << 62, {"a": 0, "b": 1 << 40})
    mirror.save_checkpoint(checkpoint)
    assert Mirror(mirror.path).checkpoint == checkpoint
    fields = jsonfile.load(f"{mirror.path}/checkpoint.json", NotAMirrorError)
    assert fields is not None
    assert Checkpoint.from_json(fields) == checkpoint


STATES = [
    # position, reached, is_commit: finished, consistent
    (5, 5, True, True, True), (5, 4, True, True, True), (5, 6, True, False, False), (5, 5, False, True, False),
    (0, 0, True, True, False),
]  # fmt: skip


@pytest.mark.parametrize(("lsn", "reached", "is_commit", "is_finished", "is_consistent"), STATES)
def test_a_mirror_is_consistent_only_at_rest_at_a_commit(
    lsn: int, reached: int, is_commit: bool, is_finished: bool, is_consistent: bool
) -> None:
    checkpoint = Checkpoint(Position(lsn, 0), 0, 0, is_commit, 0, reached, {})
    assert (checkpoint.is_finished, checkpoint.is_consistent) == (is_finished, is_consistent)
    assert checkpoint.reaching(3).reached_lsn == max(3, reached)


def test_a_target_that_is_mounted_through_a_loop_device_is_refused(directory: str, primary: Primary) -> None:
    with loop_mount(directory, 2 << 20):
        image = f"{directory}/mounted-disk.backing"
        before = read_bytes(image)
        with pytest.raises(LockedError, match="mounted or held through /dev/loop"):
            create(f"{directory}/M", primary.journal, {"a": image}, overwrite=True)
        assert read_bytes(image) == before
    create(f"{directory}/M", primary.journal, {"a": image}, overwrite=True)


def test_an_existing_target_is_not_written_while_it_is_mounted(directory: str) -> None:
    with loop_mount(directory, 2 << 20):
        with pytest.raises(LockedError, match="mounted or held through"):
            open_target(f"{directory}/mounted-disk.backing")
        with open_target(f"{directory}/mounted-disk.backing", write=False):
            pass


def test_a_container_is_overwritten_only_if_that_is_said(directory: str, primary: Primary) -> None:
    image = f"{directory}/image"
    for overwrite in (False, True):
        write_file(image, b"QFI\xfb" + bytes(8188))
        with pytest.raises(UnusableVolumeError, match="--raw"):
            create(f"{directory}/M", primary.journal, {"a": image}, overwrite=overwrite)
    with pytest.raises(UnusableVolumeError, match="holds data"):
        create(f"{directory}/M", primary.journal, {"a": image}, raw=True)
    create(f"{directory}/M", primary.journal, {"a": image}, overwrite=True, raw=True)
    assert not any(read_bytes(image))


def test_a_file_behind_a_loop_device_is_no_target_where_it_is_a_mirrors(directory: str, primary: Primary) -> None:
    mirror = primary.mirror()
    image = mirror.volume_path(mirror.kept[0])
    before = read_bytes(image)
    require_loops()
    device = call("losetup", "--find", "--show", image).strip()
    try:
        with pytest.raises(UnusableVolumeError, match="lies inside the mirror"):
            create(f"{directory}/M", primary.journal, {"a": device}, overwrite=True)
    finally:
        call("losetup", "--detach", device)
    assert read_bytes(image) == before
