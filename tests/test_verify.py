"""Verify finds every page that is not the primary's, names its writer, and calls nothing bad that is in flight."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool import clock, files
from mirrortool import verify as verify_module
from mirrortool.address import VOLUME_ALIGNMENT
from mirrortool.errors import (
    ChangedOutsideError,
    ForkedJournalError,
    LockedError,
    MirrortoolError,
    MissingFileError,
    NoSpaceError,
    NotAMirrorError,
    OtherJournalError,
)
from mirrortool.journal.commits import Until, commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.mirror import receipts
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import Kind
from mirrortool.record import scansources
from mirrortool.verify import LastWrite, Verify, VerifyCancelled, VerifyResult, to_json
from tests.fakes.descriptors import open_descriptors
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import (
    PAGE,
    Primary,
    adopt,
    fast_directory,
    loop_device,
    loop_mount,
    make_primary,
    pattern,
    small_journal_files,
)

BASE_B = VOLUME_ALIGNMENT // PAGE


@pytest.fixture
def directory() -> Iterator[str]:
    with fast_directory() as path:
        yield path


@pytest.fixture
def primary(directory: str, monkeypatch: pytest.MonkeyPatch) -> Primary:
    """Three scans in several files: a has 30 pages and 100 bytes, page 9 to 16 a hole; b 10 pages."""
    monkeypatch.setattr(scansources, "_TIMESTAMP_NS", 0)
    small_journal_files(monkeypatch, 6000)
    made = make_primary(directory, {"a": random.Random(1).randbytes(30 * PAGE + 100), "b": pattern(2, 10 * PAGE)})
    made.punch("a", 9 * PAGE, 8 * PAGE)
    made.scan()
    made.write("a", 3 * PAGE, pattern(3, 3 * PAGE))
    made.scan()
    made.write("a", 4 * PAGE, pattern(4, PAGE))
    made.write("b", 0, pattern(5, PAGE))
    made.write("a", 20 * PAGE, bytes(2 * PAGE))
    made.scan()
    return made


def verify(mirror: Mirror, **options: Any) -> VerifyResult:
    with Verify(mirror.path, **options) as running:
        return running.run()


def damage(mirror: Mirror, name: str, offset: int, data: bytes) -> None:
    """Write to a mirror's volume behind its back."""
    path = next(mirror.volume_path(kept) for kept in mirror.kept if kept.name == name)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def bad_pages(result: VerifyResult) -> set[tuple[str, int]]:
    return {(run.volume, run.first_page + i) for run in result.bad_runs for i in range(run.count)}


def writers(result: VerifyResult) -> dict[tuple[str, int], LastWrite | None]:
    return {(run.volume, run.first_page + i): run.last_write for run in result.bad_runs for i in range(run.count)}


def true_writers(journal: Journal, up_to: int | None = None) -> dict[tuple[str, int], LastWrite]:
    """What last touched each page, frame by frame, sizes ignored."""
    places = {volume.name: volume.start // journal.page_size for volume in journal.volumes}
    found: dict[tuple[str, int], LastWrite] = {}
    with JournalReader(journal, journal.start) as reader:
        while frame := reader.next_frame():
            path = os.path.basename(journal.file_path(frame.file_first_lsn))
            for operation in frame.batch.operations(frame.header.first_lsn):
                if operation.kind not in (Kind.WRITE, Kind.ZERO) or (up_to and operation.lsn > up_to):
                    continue
                name = max((n for n in places if places[n] <= operation.page), key=lambda n: places[n])
                for page in range(operation.page, operation.page + operation.count):
                    found[name, page - places[name]] = LastWrite(operation.lsn, frame.header.time_ns, path)
    return found


def test_a_right_mirror_is_called_right(primary: Primary) -> None:
    mirror = primary.mirror()
    for options in ({}, {"cached": True}, {"journal_path": primary.journal_path}):
        result = verify(mirror, **options)
        assert result.is_right
        assert (result.pages_checked, result.bad_pages, list(result.bad_runs)) == (41, 0, [])
        assert (result.table_is_right, result.journal_agrees, result.pages_in_flight) == (True, True, 0)
        assert result.checkpoint == mirror.checkpoint


def test_a_mirror_of_every_commit_is_right(primary: Primary) -> None:
    found = list(commits(primary.journal))
    assert len(found) == 3
    for commit in found:
        mirror = primary.mirror(f"m{commit.lsn}", until=Until(lsn=commit.lsn))
        assert verify(mirror, journal_path=primary.journal_path).is_right
        held = {kept.name: Path(mirror.volume_path(kept)).read_bytes() for kept in mirror.kept}
        assert held == volumes_at(primary.journal, commit.lsn)


# Damage: (volume, offset, data, the bad pages)
DAMAGE = {
    "a flipped bit": [("a", 7 * PAGE + 77, b"\xfe")],
    "a zeroed page": [("a", 7 * PAGE, bytes(PAGE))],
    "several zeroed pages": [("a", 3 * PAGE, bytes(4 * PAGE))],
    "data in a hole": [("a", 12 * PAGE + 1, b"x")],
    "data where zeros were written": [("a", 20 * PAGE, b"x")],
    "the last byte of a partial page": [("a", 30 * PAGE + 99, b"\xfe")],
    "the first page": [("a", 0, b"\xfe")],
    "pages of two volumes": [("a", 29 * PAGE, b"\xfe"), ("b", 9 * PAGE, b"\xfe")],
    "every page of a volume": [("b", 0, bytes(10 * PAGE))],
    "pages of different writers": [("a", 2 * PAGE, bytes(5 * PAGE))],
}


@pytest.mark.parametrize("options", [{}, {"cached": True}, {"journal": True}], ids=["", "cached", "journal"])
@pytest.mark.parametrize("name", DAMAGE)
def test_bad_pages_are_found_and_attributed(primary: Primary, name: str, options: dict[str, bool]) -> None:
    mirror = primary.mirror()
    expected = set()
    for volume, offset, data in DAMAGE[name]:
        damage(mirror, volume, offset, data)
        expected |= {(volume, page) for page in range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1)}
    given_journal = {"journal_path": primary.journal_path} if options.get("journal") else {}
    result = verify(mirror, cached=options.get("cached", False), **given_journal)
    assert bad_pages(result) == expected
    assert result.bad_pages == len(expected)
    assert not result.is_right
    assert (result.table_is_right, result.journal_agrees) == (True, True)
    assert result.pages_checked == 41
    truth = true_writers(primary.journal)
    assert writers(result) == {page: truth.get(page) for page in expected}


def test_adjacent_pages_of_one_writer_are_one_run_and_others_are_apart(primary: Primary) -> None:
    mirror = primary.mirror()
    damage(mirror, "a", 2 * PAGE, bytes(5 * PAGE))
    result = verify(mirror)
    runs = [(run.first_page, run.count) for run in result.bad_runs]
    assert runs == [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]
    lsns = [run.last_write.lsn for run in result.bad_runs if run.last_write]
    assert lsns[0] == lsns[4] < lsns[1] == lsns[3] < lsns[2]
    damage(mirror, "b", 3 * PAGE, bytes(4 * PAGE))
    assert [(run.first_page, run.count) for run in verify(mirror).bad_runs if run.volume == "b"] == [(3, 4)]


def test_swapped_pages_are_both_bad(primary: Primary) -> None:
    """A misplaced write has good sums, in the wrong place."""
    mirror = primary.mirror()
    held = volumes_at(primary.journal)["a"]
    damage(mirror, "a", 5 * PAGE, held[25 * PAGE : 26 * PAGE])
    damage(mirror, "a", 25 * PAGE, held[5 * PAGE : 6 * PAGE])
    assert bad_pages(verify(mirror)) == {("a", 5), ("a", 25)}


@pytest.mark.parametrize("size", [0, 30 * PAGE, 30 * PAGE + 101])
def test_a_volume_of_another_size_was_changed_outside(primary: Primary, size: int) -> None:
    mirror = primary.mirror()
    os.truncate(mirror.volume_path(mirror.kept[0]), size)
    with pytest.raises(ChangedOutsideError):
        Verify(mirror.path)


def flip(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1) or b"\0"
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("page", [0, 12, 30])
def test_a_damaged_table_is_found_by_its_state_sum(primary: Primary, page: int) -> None:
    mirror = primary.mirror()
    flip(f"{mirror.sums_path}/a.sums", page * 8)
    result = verify(mirror)
    assert result.table_is_right is False
    assert bad_pages(result) == {("a", page)}
    by_journal = verify(mirror, journal_path=primary.journal_path)
    assert by_journal.table_is_right is False
    assert not by_journal.bad_runs, "the pages are right, and the journal says so"
    assert not by_journal.is_right


def test_a_page_forged_with_its_sum_is_found_by_state_sum_and_by_journal(primary: Primary) -> None:
    mirror = primary.mirror()
    damage(mirror, "a", 0, bytes(PAGE))
    with open(f"{mirror.sums_path}/a.sums", "r+b") as file:
        file.write(bytes(8))
    result = verify(mirror)
    assert not result.bad_runs
    assert result.table_is_right is False
    assert not result.is_right
    assert bad_pages(verify(mirror, journal_path=primary.journal_path)) == {("a", 0)}


def test_damaged_segments_do_not_deceive(primary: Primary) -> None:
    mirror = primary.mirror()
    flip(f"{mirror.sums_path}/a.segments", 3)
    result = verify(mirror)
    assert not result.is_right
    assert (result.bad_pages, result.table_is_right, result.journal_agrees) == (0, True, True)
    assert result.wrong_sums == [f"{mirror.sums_path}/a.segments"]


def test_a_state_sum_that_the_primary_never_had_is_told(primary: Primary) -> None:
    mirror = primary.mirror()
    flip(f"{mirror.path}/checkpoint.json", Path(f"{mirror.path}/checkpoint.json").read_text().index('sum": "') + 7)
    result = verify(Mirror(mirror.path))
    assert result.journal_agrees is False
    assert result.table_is_right is False
    assert not result.is_right


def test_a_resize_is_the_last_write_of_what_it_cut_and_of_no_other_volume(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 20 * PAGE), "b": pattern(2, 5 * PAGE), "c": pattern(3, PAGE)})
    primary.scan()
    primary.resize("a", 4 * PAGE + 9)
    primary.scan()
    resized = primary.scan().commit.lsn
    primary.resize("a", 20 * PAGE)
    primary.scan()
    mirror = primary.mirror()
    damage(mirror, "a", 2 * PAGE, bytes(16 * PAGE))
    damage(mirror, "a", 10 * PAGE, b"x")
    damage(mirror, "b", 0, b"\xfe")
    damage(mirror, "c", 0, b"\xfe")
    result = verify(mirror)
    assert bad_pages(result) == {("a", 2), ("a", 3), ("a", 4), ("a", 10), ("b", 0), ("c", 0)}
    found = writers(result)
    assert found["a", 2] == found["a", 3]
    truth = true_writers(primary.journal)
    for page in [("a", 2), ("a", 4), ("b", 0), ("c", 0)]:
        assert found[page] == truth[page]
    assert found["a", 10].lsn < resized
    assert found["a", 10].lsn > found["a", 2].lsn


def test_without_a_journal_pages_are_compared_and_nobody_named(primary: Primary, directory: str) -> None:
    mirror = primary.mirror()
    os.rename(primary.journal_path, f"{directory}/elsewhere")
    assert verify(mirror).journal_agrees is None
    damage(mirror, "a", 0, b"\xfe")
    result = verify(mirror)
    assert writers(result) == {("a", 0): None}
    moved = verify(mirror, journal_path=f"{directory}/elsewhere")
    assert writers(moved)["a", 0] is not None


def test_a_damaged_journal_costs_the_names_but_not_the_pages(primary: Primary) -> None:
    mirror = primary.mirror()
    damage(mirror, "a", 0, b"\xfe")
    flip(primary.journal.file_path(1), 300)
    result = verify(mirror)
    assert writers(result) == {("a", 0): None}
    with pytest.raises(MirrortoolError):
        verify(mirror, journal_path=primary.journal_path)


def test_a_pruned_journal_cannot_give_the_sums(primary: Primary) -> None:
    mirror = primary.mirror()
    damage(mirror, "b", 0, b"\xfe")
    os.unlink(primary.journal.file_path(1))
    with pytest.raises(MissingFileError):
        verify(mirror, journal_path=primary.journal_path)
    assert writers(verify(mirror))["b", 0] == true_writer_of_b0(primary)


def true_writer_of_b0(primary: Primary) -> LastWrite:
    journal = primary.journal
    with JournalReader(journal) as reader:
        last = None
        while frame := reader.next_frame():
            for operation in frame.batch.operations(frame.header.first_lsn):
                if operation.kind == Kind.WRITE and operation.page <= BASE_B < operation.page + operation.count:
                    name = os.path.basename(journal.file_path(frame.file_first_lsn))
                    last = LastWrite(operation.lsn, frame.header.time_ns, name)
    assert last is not None
    return last


# In flight


@pytest.fixture
def behind(primary: Primary) -> tuple[Mirror, set[tuple[str, int]]]:
    """A mirror whose replay was killed while it wrote the next commit, and the pages of that commit."""
    mirror = primary.mirror()
    primary.write("a", 22 * PAGE, pattern(8, 3 * PAGE))
    primary.write("b", 4 * PAGE, pattern(9, PAGE))
    reached = primary.scan().commit.lsn
    mirror.save_checkpoint(mirror.checkpoint.reaching(reached))
    damage(mirror, "a", 22 * PAGE, pattern(8, 2 * PAGE))
    damage(mirror, "b", 4 * PAGE, pattern(9, 100))
    return mirror, {("a", 22), ("a", 23), ("b", 4)}


@pytest.mark.parametrize("with_journal", [False, True])
def test_pages_in_flight_are_neither_bad_nor_checked(
    primary: Primary, behind: tuple[Mirror, set[tuple[str, int]]], with_journal: bool
) -> None:
    mirror, in_flight = behind
    options = {"journal_path": primary.journal_path} if with_journal else {}
    result = verify(mirror, **options)
    assert not result.bad_runs
    assert result.pages_in_flight == len(in_flight)
    assert result.pages_checked == 41 - len(in_flight)
    assert result.table_is_right is None
    damage(mirror, "a", 25 * PAGE, b"\xfe")
    damage(mirror, "b", 3 * PAGE, b"\xfe")
    assert bad_pages(verify(mirror, **options)) == {("a", 25), ("b", 3)}


def test_without_a_journal_whatever_differs_may_be_in_flight(
    primary: Primary, directory: str, behind: tuple[Mirror, set[tuple[str, int]]]
) -> None:
    mirror, in_flight = behind
    os.rename(primary.journal_path, f"{directory}/elsewhere")
    result = verify(mirror)
    assert not result.bad_runs
    assert result.pages_in_flight == len(in_flight)
    assert result.journal_agrees is None


def test_a_finished_replay_leaves_nothing_in_flight(
    primary: Primary, behind: tuple[Mirror, set[tuple[str, int]]]
) -> None:
    result = verify(primary.mirror())
    assert result.is_right
    assert result.table_is_right
    assert result.pages_in_flight == 0
    assert behind[0].checkpoint.position != result.checkpoint.position


def test_a_resize_in_flight_excuses_only_its_own_volume(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, 20 * PAGE), "b": pattern(2, 5 * PAGE)})
    primary.scan()
    mirror = primary.mirror()
    primary.resize("a", 10 * PAGE)
    reached = primary.scan().commit.lsn
    mirror.save_checkpoint(mirror.checkpoint.reaching(reached))
    os.truncate(mirror.volume_path(mirror.kept[0]), 10 * PAGE)
    damage(mirror, "a", 9 * PAGE, b"\xfe")
    damage(mirror, "b", 0, b"\xfe")
    result = verify(mirror)
    assert bad_pages(result) == {("a", 9), ("b", 0)}
    assert result.pages_in_flight == 10


# Receipts


def test_receipts_are_kept_and_bounded(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "RECEIPTS_KEPT", 3)
    mirror = primary.mirror()
    now = 10**18
    monkeypatch.setattr(clock, "now_ns", lambda: now)
    for number in range(5):
        now += 10**9
        if number == 4:
            damage(mirror, "a", 0, b"\xfe")
        result = verify(mirror)
        assert result.started_ns == now
    names = sorted(os.listdir(mirror.receipts_path))
    assert names == [f"{10**18 + i * 10**9:020d}.json" for i in (3, 4, 5)]
    receipt = json.loads(Path(mirror.receipts_path, names[-1]).read_bytes())
    assert receipt == to_json(mirror, result)
    assert receipt["applied_lsn"] == mirror.checkpoint.position.lsn
    assert receipt["bad_page_count"] == 1
    [bad] = receipt["bad_pages"]
    write = true_writers(primary.journal)["a", 0]
    place = {"volume": "a", "first_page": 0, "count": 1}
    written = {"lsn": write.lsn, "time_ns": write.time_ns, "file": write.file}
    assert bad == {**place, **written, "is_missing": False}


@pytest.fixture
def mounted_mirror(tmp_path: Path) -> Iterator[tuple[Primary, Mirror, str]]:
    primary = make_primary(tmp_path, {"a": pattern(1, 30 * PAGE + 5)})
    primary.scan()
    with loop_mount(tmp_path, 2 << 20) as mounted:
        yield primary, primary.mirror("mounted/mirror"), mounted


def test_a_read_only_mirror_is_verified_without_a_receipt(mounted_mirror: tuple[Primary, Mirror, str]) -> None:
    _, mirror, mounted = mounted_mirror
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    result = verify(mirror)
    assert result.is_right
    assert result.pages_checked == 31
    assert os.listdir(mirror.receipts_path) == []


def test_a_full_mirror_is_verified_still(
    mounted_mirror: tuple[Primary, Mirror, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, mirror, _ = mounted_mirror

    def full(*_: object) -> None:
        raise NoSpaceError("full")

    monkeypatch.setattr(files, "replace_small", full)
    damage(mirror, "a", 0, b"\xfe")
    assert bad_pages(verify(mirror)) == {("a", 0)}


def test_pages_are_read_from_the_device_and_not_from_the_cache(tmp_path: Path) -> None:
    """Damage below a loop device is not in its cache."""
    primary = make_primary(tmp_path, {"a": pattern(1, 64 * 4096)}, 4096)
    primary.scan()
    with loop_device(tmp_path, 64 * 4096) as device:
        mirror = primary.mirror(targets={"a": device})
        Path(device).read_bytes()
        with open(tmp_path / "disk.backing", "r+b") as file:
            file.seek(5 * 4096)
            file.write(b"\xfe")
            file.flush()
            os.fsync(file.fileno())
        assert bad_pages(verify(mirror)) == {("a", 5)}


# Guards, cancelling, bounds


def test_a_mirror_at_work_is_not_verified(primary: Primary) -> None:
    mirror = primary.mirror()
    with mirror.lock(exclusive=True), pytest.raises(LockedError):
        Verify(mirror.path)
    with Verify(mirror.path), Verify(mirror.path) as second:
        assert second.run().is_right


def test_what_is_no_mirror_of_that_journal_is_refused(primary: Primary, directory: str) -> None:
    mirror = primary.mirror()
    with pytest.raises(NotAMirrorError):
        Verify(primary.journal_path)
    os.mkdir(f"{directory}/other")
    other = adopt(f"{directory}/other", primary.paths)
    other.scan()
    with pytest.raises(OtherJournalError):
        Verify(mirror.path, journal_path=other.journal_path)
    before = open_descriptors()
    with pytest.raises(OtherJournalError):
        Verify(mirror.path, journal_path=other.journal_path)
    assert open_descriptors() == before


def test_a_journal_that_ends_before_the_mirror_is_another_history(primary: Primary, directory: str) -> None:
    early = f"{directory}/early"
    subprocess.run(["cp", "-a", primary.journal_path, early], check=True)
    primary.write("a", 0, b"new")
    primary.scan()
    mirror = primary.mirror()
    with pytest.raises(ForkedJournalError):
        verify(mirror, journal_path=early)


def test_a_cancelled_verification_leaves_no_receipt(primary: Primary) -> None:
    mirror = primary.mirror()
    with Verify(mirror.path) as running:
        running.cancel()
        with pytest.raises(VerifyCancelled):
            running.run()
    assert os.listdir(mirror.receipts_path) == []
    assert verify(mirror).is_right


def test_progress_ends_at_the_total(primary: Primary) -> None:
    mirror = primary.mirror()
    damage(mirror, "a", 0, b"\xfe")
    with Verify(mirror.path) as running:
        running.run()
        now = running.statistics()
    assert (now.pages_total, now.pages_done, now.bad_pages) == (41, 41, 1)


def test_many_bad_runs_are_counted_and_some_listed(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "BAD_RUNS_MAX", 4)
    mirror = primary.mirror()
    for page in range(0, 30, 2):
        damage(mirror, "a", page * PAGE, b"\xfe\xfe")
    result = verify(mirror)
    assert result.bad_pages == 15
    assert [run.first_page for run in result.bad_runs] == [0, 2, 4, 6]


def test_of_very_many_bad_pages_the_first_are_attributed(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "ATTRIBUTED_PAGES_MAX", 4)
    mirror = primary.mirror()
    damage(mirror, "a", 2 * PAGE, bytes(7 * PAGE))
    damage(mirror, "b", 0, b"\xfe")
    result = verify(mirror)
    truth = true_writers(primary.journal)
    assert [(run.volume, run.first_page, run.count) for run in result.bad_runs] == [
        ("a", 2, 1), ("a", 3, 1), ("a", 4, 1), ("a", 5, 1), ("a", 6, 3), ("b", 0, 1)
    ]  # fmt: skip
    assert [run.last_write for run in result.bad_runs] == [*(truth["a", page] for page in (2, 3, 4, 5)), None, None]


def test_a_mirror_that_was_only_made_is_right(primary: Primary, directory: str) -> None:
    from mirrortool.mirror.newmirror import create

    mirror = create(f"{directory}/new", primary.journal)
    result = verify(mirror)
    assert result.is_right
    assert result.checkpoint.position.lsn == 0


def test_an_empty_volume_is_right(directory: str) -> None:
    primary = make_primary(directory, {"a": b"", "b": pattern(1, 5)})
    primary.scan()
    mirror = primary.mirror()
    assert verify(mirror, journal_path=primary.journal_path).is_right
    assert verify(primary.mirror()).pages_checked == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30 * PAGE), st.binary(min_size=1, max_size=PAGE))))
def test_exactly_the_pages_that_differ_are_bad(writes: list[tuple[str, int, bytes]]) -> None:
    with fast_directory() as path:
        contents = {"a": pattern(1, 20 * PAGE + 7), "b": 30 * PAGE}
        primary = make_primary(path, contents)
        primary.scan()
        mirror = primary.mirror()
        paths = {kept.name: mirror.volume_path(kept) for kept in mirror.kept}
        for name, offset, data in writes:
            size = os.path.getsize(paths[name])
            damage(mirror, name, offset, data[: max(0, size - offset)])
        expected = set()
        for name, held in primary.contents().items():
            found = Path(paths[name]).read_bytes()
            assert len(found) == len(held)
            expected |= {
                (name, i // PAGE) for i in range(0, len(held), PAGE) if held[i : i + PAGE] != found[i : i + PAGE]
            }
        result = verify(mirror)
        assert bad_pages(result) == expected
        assert result.bad_pages == len(expected)
        truth = true_writers(primary.journal)
        assert writers(result) == {page: truth.get(page) for page in expected}
