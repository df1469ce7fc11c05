"""A full journal disk shows: in status and its exit code while clients get ENOSPC, and so does what slots hold back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.cli.main import main
from mirrortool.errors import NoSpaceError
from mirrortool.journal.diskspace import FULL_BYTES, Room, room_of
from mirrortool.journal.position import Position
from mirrortool.journal.slots import Slot
from mirrortool.journal.writer import JournalWriter
from mirrortool.record import journalside
from mirrortool.record.recordmetrics import room_samples
from mirrortool.status import journal_status, problems_of
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write
from tests.fakes.recorders import quiet_recorder
from tests.fakes.volumes import Primary, make_scanned, pattern

SLOT = Slot("s", "00" * 16, "mirror", "/m", Position(0, 0), 0, 0)


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    return make_scanned(tmp_path, {"a": pattern(1, 5 * PAGE)})


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise NoSpaceError("cannot write: No space left on device", where="J")

    monkeypatch.setattr(JournalWriter, "append", full)


def test_a_recorder_knows_that_its_journal_is_full_until_a_change_finds_room(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_recorder(primary) as recorder:
        recorder.write("a", 0, b"x" * PAGE)
        assert (recorder.statistics().problem, recorder.statistics().problem_exit_code) == ("", 0)
        with monkeypatch.context() as patched:
            refuse(patched)
            with pytest.raises(NoSpaceError):
                recorder.write("a", 0, b"y" * 2 * PAGE)
        found = recorder.statistics()
        assert "the journal has no room, and clients get ENOSPC" in found.problem
        assert found.problem_exit_code == NoSpaceError.exit_code
        recorder.commit()
        assert recorder.statistics().problem, "what is smaller proves nothing"
        recorder.write("a", 0, b"z" * 2 * PAGE)
        assert not recorder.statistics().problem


def test_a_refusal_is_forgotten_where_there_is_room_again(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet_recorder(primary) as recorder:
        with monkeypatch.context() as patched:
            refuse(patched)
            with pytest.raises(NoSpaceError):
                recorder.write("a", 0, b"y" * PAGE)
        assert recorder.statistics().problem
        monkeypatch.setattr(journalside, "REFUSED_SECONDS", -1.0)
        assert not recorder.statistics().problem
        monkeypatch.setattr(files, "free_bytes", lambda _: 0)
        assert recorder.statistics().problem


@pytest.mark.parametrize(("code", "expected"), [(30, 30), (31, 31), (None, 39), ("x", 39)])
def test_what_a_recorder_says_is_wrong_is_the_exit_code(primary: Primary, code: object, expected: int) -> None:
    status = journal_status(primary.journal_path)
    assert not problems_of(status)
    trouble = replace(status, recorder={"problem": "changes are refused", "problem_exit_code": code})
    (problem,) = problems_of(trouble)
    assert (problem.exit_code, problem.what) == (expected, "changes are refused")


def test_a_full_disk_without_a_recorder_is_told(
    primary: Primary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: FULL_BYTES - 1)
    assert main(["status", primary.journal_path, "--json"]) == NoSpaceError.exit_code
    printed = capsys.readouterr()
    assert json.loads(printed.out)["free_bytes"] == FULL_BYTES - 1
    assert main(["status", primary.journal_path]) == NoSpaceError.exit_code
    again = capsys.readouterr()
    assert "nothing more" in again.err and "nothing more" not in again.out, "it is said once"
    assert "nothing more can be recorded" in printed.err and "mirrortool prune" in printed.err
    monkeypatch.setattr(files, "free_bytes", lambda _: FULL_BYTES)
    assert main(["status", primary.journal_path]) == 0
    assert "64.0 KiB free in its file system" in capsys.readouterr().out


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    made = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE}, file_bytes=1500)
    for number in range(12):
        made.frame(Write("a", number, random.Random(number).randbytes(PAGE)), Commit())
    yield made
    made.abandon()


def test_a_slot_holds_back_the_files_from_its_own_on(maker: JournalMaker) -> None:
    room = room_of(maker.journal)
    starts = maker.journal.file_starts()
    sizes = [Path(maker.journal.file_path(start)).stat().st_size for start in starts]
    assert list(room.file_bytes) == list(zip(starts, sizes, strict=True)) and len(sizes) > 3
    assert room.held_bytes(SLOT) == sum(sizes[:-1])
    assert room.held_bytes(replace(SLOT, position=Position(starts[2], 0))) == sum(sizes[2:-1])
    assert room.held_bytes(replace(SLOT, position=Position(starts[-1], 0))) == 0
    for gone in (replace(SLOT, is_lost=True), replace(SLOT, via="far")):
        assert room.held_bytes(gone) == 0
    assert Room().held_bytes(SLOT) == 0 and not Room().is_full


def test_metrics_tell_of_room(primary: Primary) -> None:
    primary.mirror()
    found = {sample.name: sample.value for sample in room_samples(primary.journal_path)}
    assert found.keys() <= {"record_journal_bytes", "record_bases_bytes", "record_free_bytes", "record_slot_held_bytes"}
    assert found["record_journal_bytes"] == journal_status(primary.journal_path).size
    assert room_samples(primary.directory + "/nothing") == []
