"""News of a journal is overdue by what the journal says itself; no lock but a scan's makes silence right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.journal.commits import kind_of, may_rest, newest_change
from mirrortool.journal.description import NextScan
from mirrortool.journal.directory import Journal
from mirrortool.journal.overdue import SILENT_SECONDS, UNCOMMITTED_SECONDS, Heard, SilenceMeter, silent_seconds
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import CommitKind
from mirrortool.record.recorder import Recorder
from mirrortool.record.scan import Scan
from mirrortool.record.scanschedule import repeated_scans
from tests.fakes.journals import PAGE, START_NS, Commit, JournalMaker, Write
from tests.fakes.volumes import Primary, make_scanned, pattern

SECOND = 10**9
HEARD = Heard(1, START_NS, may_rest=True)


def after(seconds: float) -> int:
    return START_NS + round(seconds * SECOND)


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    made = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    made.frame(Commit())
    yield made
    made.abandon()


def end_cleanly(journal: Journal, next_scan: NextScan | None = None) -> None:
    end = journal.clean_end
    journal.next_scan = next_scan
    journal.save_clean_end(end)


def test_a_recorder_that_is_gone_is_silent_since_its_newest_frame(maker: JournalMaker) -> None:
    journal = maker.journal
    assert silent_seconds(journal, HEARD, after(SILENT_SECONDS)) is None
    assert silent_seconds(journal, HEARD, after(SILENT_SECONDS + 5)) == SILENT_SECONDS + 5
    assert silent_seconds(journal, HEARD, after(-100)) is None
    assert silent_seconds(journal, Heard(0, 0, may_rest=False), after(1e6)) is None, "nothing was ever heard"


def test_what_has_no_heartbeats_may_be_silent_for_longer(maker: JournalMaker) -> None:
    heard = replace(HEARD, may_rest=False)
    assert silent_seconds(maker.journal, heard, after(UNCOMMITTED_SECONDS)) is None
    assert silent_seconds(maker.journal, heard, after(UNCOMMITTED_SECONDS + 1)) == UNCOMMITTED_SECONDS + 1


@pytest.mark.parametrize(
    ("doing", "is_silent"), [("record", True), ("receive", True), ("scan", False), ("mark", False)]
)
def test_only_the_lock_of_a_scan_excuses_silence(maker: JournalMaker, doing: str, is_silent: bool) -> None:
    """A receiver holds that of a copy whether anything arrives or not; a recorder that was stopped holds its own."""
    with maker.journal.lock(doing):
        assert (silent_seconds(maker.journal, HEARD, after(1000)) is not None) == is_silent


def test_the_lock_of_a_process_that_says_nothing_excuses_nothing(maker: JournalMaker) -> None:
    with files.open_locked(f"{maker.journal.path}/lock", "the journal"):
        assert silent_seconds(maker.journal, HEARD, after(1000)) == 1000


@pytest.fixture
def primary(tmp_path: Path) -> Primary:
    return make_scanned(tmp_path, {"a": pattern(1, 5 * PAGE)})


def heard_of(journal: Journal) -> Heard:
    assert journal.clean_end is not None
    return replace(HEARD, lsn=journal.clean_end.position.lsn)


def test_who_ended_cleanly_owes_nothing(primary: Primary) -> None:
    journal = primary.journal
    assert silent_seconds(journal, heard_of(journal), after(1e8)) is None
    older = replace(HEARD, lsn=heard_of(journal).lsn - 1)  # as a copy has it that does not have everything yet
    assert silent_seconds(journal, older, after(1000)) == 1000


def test_the_next_scan_is_due_when_it_was_promised(primary: Primary) -> None:
    journal = primary.journal
    end_cleanly(journal, NextScan(after(600), after(700)))
    journal = Journal(journal.path)
    heard = heard_of(journal)
    assert silent_seconds(journal, heard, after(700 + SILENT_SECONDS)) is None
    assert silent_seconds(journal, heard, after(701 + SILENT_SECONDS)) == 701 + SILENT_SECONDS
    with journal.lock("scan"):
        assert silent_seconds(journal, heard, after(690)) is None
        assert silent_seconds(journal, heard, after(1000)) == 1000, "also one that is at it for too long"


def test_a_listener_learns_of_a_clean_end_and_of_its_end(primary: Primary) -> None:
    journal = primary.journal
    heard = heard_of(journal)
    listener = SilenceMeter(Journal(journal.path))
    assert listener.silent_seconds(heard, after(1000)) is None
    journal.save_clean_end(None)
    assert listener.silent_seconds(heard, after(1000)) == 1000
    Path(journal.path, "journal.json").unlink()
    assert listener.silent_seconds(heard, after(2000)) == 2000, "it goes by what it knew"


def test_scans_that_follow_each_other_are_promised_and_taken_back(primary: Primary) -> None:
    with repeated_scans(primary.journal_path):
        with Scan(primary.journal_path) as scan:
            scan.run()
            scan.expect_next(after(60), 5.0)
        assert Journal(primary.journal_path).next_scan == NextScan(after(60), after(70))
        with Scan(primary.journal_path) as scan:
            assert Journal(primary.journal_path).next_scan == NextScan(after(60), after(70)), "while it runs, too"
            scan.run()
            scan.expect_next(after(120), 5.0)
    journal = Journal(primary.journal_path)
    assert journal.next_scan is None
    assert journal.clean_end is not None


def test_a_recorder_that_serves_promises_no_scan(primary: Primary) -> None:
    end_cleanly(primary.journal, NextScan(after(60), after(70)))
    with Recorder(primary.journal_path, background=False):
        assert Journal(primary.journal_path).next_scan is None


def test_version_0_1_0_ignores_the_next_scan(primary: Primary) -> None:
    """It reads the fields that it knows by name; and what it writes then has none of ours."""
    end_cleanly(primary.journal, NextScan(after(60), after(70)))
    text = Path(primary.journal_path, "journal.json").read_text()
    assert '"format": 1' in text and '"next_scan"' in text
    assert Journal(primary.journal_path).description.identity().keys() <= {
        "format", "uuid", "lineage", "epoch", "history", "page_size", "volumes",
    }  # fmt: skip


def test_the_newest_change_is_looked_for_no_further_back_than_asked(tmp_path: Path) -> None:
    maker = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE}, file_bytes=400)
    changed = maker.frame(Write("a", 0, b"a" * PAGE), Commit())
    beats = [maker.frame(Commit(kind=CommitKind.HEARTBEAT)) for _ in range(20)]
    assert len(maker.journal.file_starts()) > 3
    found = newest_change(maker.journal, changed.lsn - 1)
    assert found is not None
    assert found.lsn == changed.lsn
    assert newest_change(maker.journal, changed.lsn) is None
    Path(maker.journal.file_path(maker.journal.file_starts()[0])).unlink()
    assert newest_change(maker.journal, beats[3].lsn) is None
    assert newest_change(maker.journal, 0) is None, "it is gone"
    maker.abandon()


def test_kinds_are_those_of_single_commits(maker: JournalMaker) -> None:
    maker.frame(Write("a", 0, b"a" * PAGE))
    maker.frame(Commit(kind=CommitKind.FUZZY))
    maker.frame(Write("a", 0, b"b" * PAGE), Commit(kind=CommitKind.FUZZY))
    with JournalReader(maker.journal) as reader:
        found = []
        while header := reader.next_header():
            kind = kind_of(reader, header)
            found.append((kind, may_rest(header, kind)))
    assert found == [(CommitKind.FLUSH, True), (None, False), (CommitKind.FUZZY, False), (None, True)]
