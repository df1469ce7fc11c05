"""A recorder acknowledges nothing that is in no journal any more, and overwrites nothing that others put there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mirrortool.errors import InputOutputError
from mirrortool.record import journalside
from mirrortool.record.recorder import Recorder
from mirrortool.record.scan import Scan
from tests.fakes.recorders import based, drop
from tests.fakes.volumes import Primary, make_primary, pattern

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def primary(directory: str) -> Primary:
    return based(make_primary(directory, {"a": pattern(1, 20 * 512)}))


def newest_file(primary: Primary) -> Path:
    journal = primary.journal
    return Path(journal.file_path(journal.file_starts()[-1]))


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_flush_fails_once_the_journal_was_deleted(primary: Primary, is_idle: bool) -> None:
    recorder = Recorder(primary.journal_path, background=False)
    recorder.write("a", 0, b"kept", fua=True)
    if not is_idle:
        recorder.write("a", 0, b"lost")
    shutil.rmtree(primary.journal_path)
    for _ in range(2):
        with pytest.raises(InputOutputError):
            recorder.flush()
    assert "deleted or replaced" in str(recorder.failure)
    assert recorder.ending.is_set()
    assert "changes are refused" in recorder.statistics().problem
    for act in (lambda: recorder.write("a", 0, b"more"), lambda: recorder.zero("a", 0, 512)):
        with pytest.raises(InputOutputError):
            act()
    recorder.close()
    assert not Path(primary.journal_path).exists()


def test_frames_of_another_recorder_stay_and_this_one_stops(primary: Primary) -> None:
    """As two have it that came by mounts which share no locks; each heartbeat would ask, too."""
    recorder = Recorder(primary.journal_path, background=False)
    recorder.write("a", 0, b"kept", fua=True)
    with newest_file(primary).open("ab") as file:
        file.write(b"what another recorder appended")
    others = newest_file(primary).read_bytes()
    with pytest.raises(InputOutputError, match="somebody else wrote to it"):
        recorder.write("a", 0, b"lost")
    assert "share no locks" in str(recorder.failure)
    with pytest.raises(InputOutputError):
        recorder.flush()
    recorder.close()
    assert newest_file(primary).read_bytes() == others


def test_an_idle_recorder_finds_out_at_its_next_heartbeat(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(primary.journal_path, background=False)
    recorder.write_back(checkpoint=True)
    with newest_file(primary).open("ab") as file:
        file.write(b"what another recorder appended")
    monkeypatch.setattr(journalside, "HEARTBEAT_SECONDS", 0)
    recorder._look_after()
    assert recorder.ending.is_set()
    drop(recorder)


def test_a_flush_that_had_nothing_to_do_is_no_figure(primary: Primary) -> None:
    with Recorder(primary.journal_path, background=False) as recorder:
        recorder.write("a", 0, b"kept", fua=True)
        took = recorder.statistics().sync_seconds
        recorder.flush()
        assert recorder.statistics().sync_seconds == took > 0


def test_a_scan_says_that_its_journal_was_deleted(primary: Primary) -> None:
    primary.write("a", 0, b"new")
    with Scan(primary.journal_path) as scan:
        shutil.rmtree(primary.journal.files_path)
        with pytest.raises(InputOutputError, match="deleted or replaced"):
            scan.run()
