"""A journal's directory is made whole or not at all, and every small file in it is checked."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from mirrortool import files, hostinfo, jsonfile
from mirrortool.checksum import volume_term
from mirrortool.errors import AccessError, LockedError, NoSpaceError, NotAJournalError
from mirrortool.files import Identity
from mirrortool.journal import directory
from mirrortool.journal import format as layout
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.recordercheckpoint import RecorderCheckpoint, VolumeRecord
from tests.journal.sample import PAGE, VOLUMES, make_journal

pytestmark = pytest.mark.usefixtures("no_sync")

RECORD = VolumeRecord(12345, Identity(1, 2, False), 3, 4)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "journal"


def test_a_new_journal_is_read_back_as_it_was_made(path: pathlib.Path) -> None:
    made = directory.create(str(path), VOLUMES, {"disk": "/a", "log": "/b\udcff"}, {"disk": RECORD})
    journal = Journal(str(path))
    assert (journal.uuid, journal.lineage, journal.epoch) == (made.uuid, made.lineage, 0)
    assert (journal.page_size, journal.volumes, journal.clean_end) == (PAGE, VOLUMES, None)
    assert journal.volume_paths() == {"disk": "/a", "log": "/b\udcff"}
    assert journal.file_starts() == []
    checkpoint = journal.recorder_checkpoint()
    assert checkpoint
    assert checkpoint.position == journal.start == Position(0, layout.first_chain(journal.uuid))
    assert checkpoint.volumes == {"disk": RECORD}
    assert checkpoint.boot_id == hostinfo.boot_id()
    assert checkpoint.state_sum == journal.first_state_sum
    assert journal.first_state_sum == volume_term("disk", 64 * PAGE) ^ volume_term("log", 10 * PAGE + 100)


def test_journals_differ_in_uuid_and_lineage(tmp_path: pathlib.Path) -> None:
    one, other = make_journal(tmp_path / "one"), make_journal(tmp_path / "other")
    assert len({one.uuid, other.uuid, one.lineage, other.lineage}) == 4


@pytest.mark.parametrize("failing", range(1, 7))
def test_an_interrupted_creation_can_be_repeated(
    path: pathlib.Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Creation stops at each replacing of a small file: before it is written, and before it has its name."""
    calls = []
    real = {"pwrite": files.File.pwrite, "rename": files.rename}

    def stopping(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append(name)
            if len(calls) == failing:
                raise NoSpaceError("stopped")
            return real[name](*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(files.File, "pwrite", stopping("pwrite"))
        patch.setattr(files, "rename", stopping("rename"))
        with pytest.raises(NoSpaceError):
            make_journal(path)
    with pytest.raises(NotAJournalError):
        Journal(str(path))
    make_journal(path)
    assert Journal(str(path)).volumes == VOLUMES


def test_nothing_is_made_where_something_else_is(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    make_journal(path)
    with pytest.raises(AccessError, match="a journal is here already"):
        make_journal(path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "letters").write_text("dear")
    with pytest.raises(AccessError, match="not empty"):
        make_journal(other)
    with pytest.raises(AccessError):
        make_journal(other / "letters")


def test_an_empty_directory_may_be_there(path: pathlib.Path) -> None:
    path.mkdir()
    make_journal(path)


def test_where_no_journal_is_is_named(path: pathlib.Path) -> None:
    with pytest.raises(NotAJournalError, match="does not exist"):
        Journal(str(path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 2),
        ("format", "1"),
        ("uuid", "00"),
        ("uuid", None),
        ("lineage", "x" * 32),
        ("epoch", 1 << 32),
        ("epoch", -1),
        ("page_size", 0),
        ("page_size", 513),
        ("page_size", 1 << 20),
        ("volumes", []),
        ("volumes", [{"name": "../etc", "base": 0, "size": 1}]),
        ("volumes", [{"name": "a", "base": 1, "size": 1}]),
        ("volumes", [{"name": "a", "base": 0, "size": 1 << 63}]),
        ("volumes", [{"name": "a", "base": 0, "size": 1}] * 2),
        ("volumes", [{"name": "a", "base": 0}]),
        ("end", {"position": {"lsn": 1, "chain": "0" * 16}, "file": 1}),
        ("end", []),
    ],
    ids=str,
)
def test_a_journal_json_that_makes_no_sense_is_refused(path: pathlib.Path, name: str, value: object) -> None:
    make_journal(path)
    file = path / "journal.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(NotAJournalError):
        Journal(str(path))


def test_a_clean_end_is_noted_and_forgotten(path: pathlib.Path) -> None:
    journal = make_journal(path)
    end = FrameEnd(Position(7, 8), 5, 999)
    journal.save_clean_end(end)
    assert Journal(str(path)).clean_end == end
    Journal(str(path)).save_clean_end(None)
    assert Journal(str(path)).clean_end is None


@pytest.mark.parametrize("modified_ns", [0, -1, -(10**18), 2**62])
def test_a_recorder_checkpoint_survives(path: pathlib.Path, modified_ns: int) -> None:
    """Whatever the time of a volume's file: some are older than 1970."""
    journal = make_journal(path)
    records = {"disk": VolumeRecord(1, Identity(1 << 40, 5, False), modified_ns, modified_ns), "log": RECORD}
    checkpoint = RecorderCheckpoint(Position(3, 1 << 63), 5, 6, "boot", records)
    journal.save_recorder_checkpoint(checkpoint)
    assert Journal(str(path)).recorder_checkpoint() == checkpoint


@pytest.mark.parametrize("name", ["local.json", "recorder.json"])
def test_a_copy_without_the_files_of_the_primary_is_a_journal(path: pathlib.Path, name: str) -> None:
    make_journal(path)
    (path / name).unlink()
    journal = Journal(str(path))
    assert journal.volume_paths() == {}
    assert (journal.recorder_checkpoint() is None) == (name == "recorder.json")


@pytest.mark.parametrize("name", ["journal.json", "local.json", "recorder.json"])
def test_a_small_file_cut_short_is_named(path: pathlib.Path, name: str) -> None:
    make_journal(path)
    (path / name).write_text('{"volumes": {')

    def read_everything() -> None:
        journal = Journal(str(path))
        journal.volume_paths()
        journal.recorder_checkpoint()

    with pytest.raises(NotAJournalError, match="cut short"):
        read_everything()


def test_only_journal_files_are_listed(path: pathlib.Path) -> None:
    journal = make_journal(path)
    names = [layout.file_name(lsn) for lsn in (17, 1, 5)]
    for name in [*names, "-000000000000001.mj", "0000000000000005.mj.new", "0000000000000000.mj", ".nfs1", "README"]:
        (path / "files" / name).touch()
    assert journal.file_starts() == [1, 5, 17]
    assert [journal.file_holding(lsn) for lsn in (0, 1, 4, 5, 16, 17, 1 << 63)] == [None, 1, 1, 5, 5, 17, 17]


def test_one_recorder_at_a_time(path: pathlib.Path) -> None:
    journal = make_journal(path)
    with journal.lock():
        with pytest.raises(LockedError, match="the journal is in use"):
            Journal(str(path)).lock()
        assert Journal(str(path)).volumes == VOLUMES
    Journal(str(path)).lock().close()


def test_a_deep_or_huge_journal_json_is_refused(path: pathlib.Path) -> None:
    make_journal(path)
    for data in (b"[" * 50_000, b" " * (files.SMALL_FILE_BYTES_MAX + 1) + b"{}"):
        (path / "journal.json").write_bytes(data)
        with pytest.raises(NotAJournalError):
            Journal(str(path))
    assert jsonfile.load(str(path / "none"), NotAJournalError) is None


def test_an_epoch_or_end_that_could_not_be_noted_can_be_noted_again(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make_journal(path)
    before = journal.history, journal.clean_end
    after = journal.history.begun(journal.uuid, bytes(16)), FrameEnd(Position(5, 6), 1, 100)

    def no_room(*_: object) -> None:
        raise NoSpaceError("cannot write: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(jsonfile, "save", no_room)
        with pytest.raises(NoSpaceError):
            journal.save_history(*after)
        with pytest.raises(NoSpaceError):
            journal.save_clean_end(after[1])
    assert (journal.history, journal.clean_end) == before
    journal.save_history(*after)
    assert (Journal(str(path)).history, Journal(str(path)).clean_end) == after
