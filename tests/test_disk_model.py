"""The disk that other tests cut, fill and fail: what is synced survives, all else may not, and each way does occur."""

from __future__ import annotations

import ast
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool import files, openfile
from mirrortool.errors import HostError, InputOutputError, NoSpaceError
from tests.fakes.disk import (
    CHANGING,
    DROPPED,
    UNWRITTEN,
    Call,
    DiskOs,
    PowerCut,
    Short,
    Stuck,
    cut_at,
    fail_at,
    faulty,
    lose_at,
    no_fault,
    nth,
)
from tests.fakes.disknodes import JOURNALED, SECTOR, Reality
from tests.fakes.disktrees import make, outcomes, rename, sampled, sync, tree_of, write
from tests.fakes.volumes import fast_directory

HARMLESS = {
    *(
        "fstat",
        "stat",
        "lstat",
        "statvfs",
        "lseek",
        "listdir",
        "readlink",
        "walk",
        "close",
        "path",
        "geteuid",
        "fsencode",
    ),
    "dup",  # of files without a name, of which no crash leaves anything
    *("pread", "preadv", "open", "posix_fadvise", "getxattr", "strerror", "fsdecode"),
}
AT_ONCE = {"fchown", "fchmod", "chown", "chmod", "setxattr", "removexattr"}
"""Of which the model holds each to be durable at once."""


@pytest.fixture
def root() -> Iterator[Path]:
    with fast_directory() as path:
        (Path(path) / "root").mkdir()
        yield Path(path) / "root"


A, B, C, D = (letter * SECTOR for letter in (b"a", b"b", b"c", b"d"))


def test_sectors_of_one_write_are_lost_kept_or_torn_each_on_its_own(root: Path) -> None:
    (root / "f").write_bytes(A + B)
    with faulty(no_fault) as system:
        write(root / "f", C + D)
        assert {tree["f"] for tree in outcomes(system, root)} == {A + B, C + B, A + D, C + D}
        sync(root / "f")
        assert outcomes(system, root) == [{"f": C + D}]


def test_of_a_sector_any_version_survives_and_writes_in_any_order(root: Path) -> None:
    (root / "f").write_bytes(A + A)
    with faulty(no_fault) as system:
        write(root / "f", B)
        write(root / "f", C)
        write(root / "f", D[:7], SECTOR + 3)
        late = A[:3] + D[:7] + A[10:]
        assert {tree["f"] for tree in outcomes(system, root)} == {
            first + second for first in (A, B, C) for second in (A, late)
        }


def test_of_what_was_appended_any_length_survives_with_zeros_in_it(root: Path) -> None:
    (root / "f").write_bytes(A)
    with faulty(no_fault) as system:
        write(root / "f", B + C[:5], SECTOR)
        zeros = bytes(SECTOR)
        assert {tree["f"] for tree in outcomes(system, root)} == {
            A, A + B, A + zeros, *(A + second + third for second in (B, zeros) for third in (C[:5], bytes(5)))
        }  # fmt: skip
        sizes = {len(sampled(system, root, seed)["f"] or b"") for seed in range(200)}
        assert len(sizes) > 20 and min(sizes) == SECTOR and max(sizes) == 2 * SECTOR + 5


def test_a_resize_is_lost_as_a_whole_with_what_it_made_room_for(root: Path) -> None:
    (root / "f").write_bytes(A + B)
    with faulty(no_fault) as system:
        with files.open_file(str(root / "f"), write=True) as file:
            file.truncate(100)
            file.truncate(2 * SECTOR)
            file.pwrite(C, SECTOR)
        cut = A[:100]
        full = cut.ljust(SECTOR, b"\0")
        assert {tree["f"] for tree in outcomes(system, root)} == {A + B, cut, full + bytes(SECTOR), full + C}


def test_a_hole_is_lost_like_a_write(root: Path) -> None:
    (root / "f").write_bytes(A + B)
    with faulty(no_fault) as system:
        with files.open_file(str(root / "f"), write=True) as file:
            file.punch(0, SECTOR)
        assert {tree["f"] for tree in outcomes(system, root)} == {A + B, bytes(SECTOR) + B}


def test_direct_writes_are_lost_in_any_order_too(root: Path) -> None:
    page = openfile.ALIGNMENT
    (root / "f").write_bytes(bytes(2 * page))
    with faulty(no_fault) as system:
        with files.open_file(str(root / "f"), write=True) as file:
            direct = file.reopen_direct()
            if direct is None:
                pytest.skip("no O_DIRECT here")
            room = openfile.aligned_buffer(page)
            for number in (0, 1):
                room[:] = bytes([number + 1]) * page
                direct.pwrite(room, number * page)
            direct.close()
        found = {tuple((sampled(system, root, seed)["f"] or b"")[at] for at in (0, page)) for seed in range(100)}
        assert found == {(0, 0), (1, 0), (0, 2), (1, 2)}


# Names.


def test_a_synced_file_without_a_synced_name_is_lost_and_with_it_stays(root: Path) -> None:
    with faulty(no_fault) as system:
        make(root / "f", A)
        sync(root / "f")
        assert outcomes(system, root) == [{}, {"f": A}]
        files.sync_directory(str(root))
        assert outcomes(system, root) == [{"f": A}]


def test_a_name_without_synced_data_leads_to_an_empty_file(root: Path) -> None:
    with faulty(no_fault) as system:
        make(root / "f", A)
        files.sync_directory(str(root))
        assert outcomes(system, root) == [{"f": b""}, {"f": bytes(SECTOR)}, {"f": A}]


def test_a_rename_is_atomic_and_waits_for_no_data(root: Path) -> None:
    (root / "f").write_bytes(A)
    with faulty(no_fault) as system:
        make(root / "f.new", B)
        files.sync_directory(str(root))
        rename(root / "f.new", root / "f")
        found = outcomes(system, root)
        assert {"f": b""} in found and {"f": B} in found and {"f": A, "f.new": B} in found
        assert all(tree["f"] == A if "f.new" in tree else tree["f"] != A for tree in found)
        files.sync_directory(str(root))
        assert not any("f.new" in tree for tree in outcomes(system, root))


def test_a_removal_is_lost_with_what_was_in_it(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/f").write_bytes(A)
    with faulty(no_fault) as system:
        files.remove_tree(str(root / "d"))
        assert outcomes(system, root) == [{"d": None, "d/f": A}, {"d": None}, {}]
        files.sync_directory(str(root))
        assert outcomes(system, root) == [{}]


def test_what_lies_in_a_directory_that_is_lost_is_lost_though_synced(root: Path) -> None:
    with faulty(no_fault) as system:
        files._on_path(str(root / "d"), "make", files.os.mkdir)
        make(root / "d/f", A)
        sync(root / "d/f")
        files.sync_directory(str(root / "d"))
        assert outcomes(system, root) == [{}, {"d": None, "d/f": A}]


def test_names_survive_in_any_order_or_in_their_own_where_the_journal_keeps_it(root: Path) -> None:
    for reality, most in ((Reality(), 4), (JOURNALED, 3)):
        with faulty(no_fault, reality=reality) as system:
            make(root / "a")
            make(root / "b")
            found = outcomes(system, root)
            assert len(found) == most and ({"b": b""} in found) == (reality is not JOURNALED)
            system.disk.lose_all()


def test_a_sync_of_a_file_keeps_its_name_where_that_is_promised(root: Path) -> None:
    for reality in (JOURNALED, Reality(sync_keeps_name=True)):
        with faulty(no_fault, reality=reality) as system:
            make(root / "f", A)
            sync(root / "f")
            assert system.disk.state.name_count() == 0
        (root / "f").unlink()


def test_a_rename_to_another_directory_may_leave_both_names_without_a_journal(root: Path) -> None:
    (root / "d").mkdir()
    (root / "f").write_bytes(A)
    with faulty(no_fault, reality=Reality(split_renames=True)) as system:
        rename(root / "f", root / "d/f")
        files.sync_directory(str(root / "d"))
        assert outcomes(system, root) == [{"d": None, "d/f": A, "f": A}, {"d": None, "d/f": A}]
    with faulty(no_fault) as system:
        rename(root / "d/f", root / "f")
        files.sync_directory(str(root))
        assert outcomes(system, root) == [{"d": None, "f": A}]


def test_a_directory_that_is_removed_was_empty(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/f").write_bytes(A)
    with faulty(no_fault) as system:
        rename(root / "d/f", root / "f")
        files.remove_tree(str(root / "d"))
        assert outcomes(system, root) == [{"d": None, "d/f": A}, {"d": None, "f": A}, {"f": A}]


def test_a_removed_file_comes_back_with_what_it_had_and_a_directory_where_it_was(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/f").write_bytes(A)
    (root / "g").write_bytes(B)
    os.chmod(root / "g", 0o640)
    before = tree_of(root)
    inode = (root / "d/f").stat().st_ino
    with faulty(no_fault) as system:
        rename(root / "d", root / "e")
        rename(root / "e/f", root / "h")
        files.remove(str(root / "g"))
        make(root / "g", C)
        files._on_path(str(root / "d"), "make", files.os.mkdir)
        system.disk.lose_all()
    assert tree_of(root) == before
    assert (root / "d/f").stat().st_ino == inode and (root / "g").stat().st_mode & 0o777 == 0o640


# Faults.


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_the_kth_call_fails_and_changes_nothing(root: Path, code: int) -> None:
    (root / "f").write_bytes(A)
    with faulty(fail_at(2, code, lambda call: call.name == "pwrite")) as system:
        write(root / "f", B)
        with pytest.raises(HostError):
            write(root / "f", C)
        write(root / "f", D, SECTOR)
    assert (root / "f").read_bytes() == B + D and len(system.calls) == 3


def test_an_open_fails_when_descriptors_are_used_up(root: Path) -> None:
    (root / "f").write_bytes(A)
    opens = fail_at(2, errno.EMFILE, lambda call: call.name == "open")
    with faulty(no_fault, reads=opens):
        write(root / "f", B)
        with pytest.raises(HostError, match=r"[Tt]oo many open files"):
            write(root / "f", C)


def test_a_short_write_is_completed_by_the_next(root: Path) -> None:
    make(root / "f")
    with faulty(nth(1, lambda call: call.name == "pwrite", lambda: Short(5))) as system:
        write(root / "f", A)
        assert [call.name for call in system.calls] == ["pwrite", "pwrite"]
    assert (root / "f").read_bytes() == A


def test_a_stuck_call_lets_others_go_on(root: Path) -> None:
    make(root / "f")
    make(root / "g")
    stuck = Stuck(outcome=OSError(errno.EIO, "at last"))
    failed: list[HostError] = []

    def work() -> None:
        try:
            write(root / "f", A)
        except HostError as error:
            failed.append(error)

    with faulty(lambda call: stuck if call.path.endswith("/f") else None):
        thread = threading.Thread(target=work)
        thread.start()
        assert stuck.reached.wait(30)
        write(root / "g", B)
        stuck.released.set()
        thread.join()
    assert failed and (root / "f").read_bytes() == b"" and (root / "g").read_bytes() == B


def test_a_failed_sync_drops_what_it_could_not_write_and_the_next_succeeds(root: Path) -> None:
    (root / "f").write_bytes(A + B)
    with faulty(lose_at(1, lambda call: call.name == "fdatasync", share=1.0)) as system:
        write(root / "f", C)
        with pytest.raises(InputOutputError):
            sync(root / "f")
        sync(root / "f")
        assert (root / "f").read_bytes() == C + B, "the cache still has it"
        assert outcomes(system, root) == [{"f": A + B}]
        with files.open_file(str(root / "f")) as file:
            assert file.pread(SECTOR, 0) == C
            file.drop_cache()
            assert file.pread(SECTOR, 0) == A, "the medium never had it"


def test_what_is_written_again_after_a_failed_sync_gets_there(root: Path) -> None:
    (root / "f").write_bytes(A + B)
    with faulty(lose_at(1, lambda call: call.name == "fdatasync", share=1.0)) as system:
        write(root / "f", C + D)
        with pytest.raises(InputOutputError):
            sync(root / "f")
        write(root / "f", b"x", 3)
        sync(root / "f")
        system.disk.forget_cache()
    assert (root / "f").read_bytes() == C[:3] + b"x" + C[4:] + B


def test_a_direct_read_is_of_the_medium(root: Path) -> None:
    page = openfile.ALIGNMENT
    (root / "f").write_bytes(A * (page // SECTOR))
    fault = nth(1, lambda call: call.name == "pwrite", lambda: UNWRITTEN)
    with faulty(fault) as system, files.open_file(str(root / "f"), write=True) as file:
        file.pwrite(B, 0)
        file.fdatasync()
        assert file.pread(SECTOR, 0) == B
        assert system.disk.medium(root / "f")[:SECTOR] == A
        if (direct := file.reopen_direct()) is None:
            pytest.skip("no O_DIRECT here")
        room = openfile.aligned_buffer(page)
        direct.pread_into([room], 0)
        direct.close()
        assert bytes(room[:SECTOR]) == A


def test_a_sync_that_lies_makes_nothing_durable(root: Path) -> None:
    (root / "f").write_bytes(A)
    with faulty(nth(1, lambda call: call.name == "fdatasync", lambda: DROPPED)) as system:
        write(root / "f", B)
        sync(root / "f")
        assert {tree["f"] for tree in outcomes(system, root)} == {A, B}


def test_nothing_changes_after_a_power_cut(root: Path) -> None:
    (root / "f").write_bytes(A)
    with faulty(cut_at(2)) as system:
        write(root / "f", B)
        for act in _changing_acts(root):
            with pytest.raises(PowerCut):
                act()
        assert tree_of(root) == {"f": B} and len(system.calls) == 2


def test_of_two_hosts_each_loses_its_power_alone(root: Path) -> None:
    near, far = root / "near", root / "far"
    near.mkdir()
    far.mkdir()

    def fault(call: Call) -> None:
        if call.path == str(near / "g"):
            raise PowerCut

    with faulty(fault, hosts=[str(near), str(far)]) as system:
        for path in (near, far):
            make(path / "f", b"1")
        with pytest.raises(PowerCut):
            make(near / "g")
        write(far / "f", b"2")
        disk = system.disk_of(str(near / "f"))
        assert disk is not None
        disk.lose_all()
        assert tree_of(near) == {} and tree_of(far) == {"f": b"2"}
        assert str(far / "f") in system.disk_of(str(far / "f")).dirty()  # type: ignore[union-attr]


def test_another_machine_keeps_its_power_and_its_calls_are_not_counted(root: Path) -> None:
    (root / "far").mkdir()
    with faulty(cut_at(1), str(root / "far")) as system:
        make(root / "far/f", A)
        with pytest.raises(PowerCut):
            make(root / "near")
        make(root / "far/g", B)
        assert outcomes(system, root) == [{"far": None, "far/f": A, "far/g": B}]


def test_a_block_device_has_no_holes_and_its_size(root: Path) -> None:
    path = root / "device"
    path.write_bytes(A + bytes(4 * SECTOR))
    with faulty(no_fault, devices=[str(path)]) as system:
        with files.open_file(str(path), write=True) as file:
            assert file.facts().kind == "block device" and file.size() == 5 * SECTOR
            assert list(file.data_extents(0, 5 * SECTOR)) == [(0, 5 * SECTOR)]
            file.punch(0, SECTOR)
            with pytest.raises(NoSpaceError):
                file.pwrite(A + B, 4 * SECTOR)
            with pytest.raises(HostError):
                file.truncate(SECTOR)
        found = files.find_facts(str(path))
        assert found and found.identity.is_device
        assert "zero" in [call.name for call in system.calls]
        assert {(tree["device"] or b"")[:SECTOR] for tree in outcomes(system, root)} == {A, bytes(SECTOR)}


def _changing_acts(root: Path) -> list[Callable[[], object]]:
    path = str(root / "f")

    def opened(act: Callable[[files.File], object]) -> Callable[[], object]:
        def done() -> None:
            with files.open_file(path, write=True) as file:
                act(file)

        return done

    return [
        lambda: make(root / "g"),
        lambda: files.make_directory(str(root / "d")),
        lambda: files.remove(path),
        lambda: files.rename(path, path + "2"),
        lambda: files.make_link("f", str(root / "l")),
        lambda: files.sync_directory(str(root)),
        *map(
            opened,
            (
                lambda file: file.pwrite(A, 0),
                lambda file: file.pwritev([A, B], 0),
                lambda file: file.truncate(7),
                lambda file: file.punch(0, 5),
                lambda file: file.fdatasync(),
            ),
        ),
    ]


def test_the_model_knows_every_call_that_files_make() -> None:
    """A new way to write belongs in the model in the same change."""
    used = {
        node.attr
        for module in (files, openfile)
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    calls = {name for name in used if name.islower() and name not in ("stat_result", "path")}
    assert {"pwritev", "rename", "fsync"} <= calls
    assert calls - HARMLESS - AT_ONCE - set(vars(DiskOs)) == set()
    assert calls - HARMLESS - AT_ONCE - {"write"} <= set(CHANGING)
