"""Recovery: a damaged table of sums never makes the recorder journal a wrong state, nor does a size that is news."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool.errors import CorruptJournalError
from mirrortool.journal.audit import Audit
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.record.recovery import OpenJournal
from mirrortool.replay.makebase import MakeBase
from tests.conftest import FakeClock
from tests.fakes.disk import faulty, no_fault
from tests.fakes.journals import replay_all
from tests.fakes.recorders import based, check_everywhere, quiet_recorder
from tests.fakes.volumes import Primary, make_primary, pattern


@pytest.fixture
def crashed(tmp_path: Path) -> Primary:
    """A primary whose recorder did not stop cleanly."""
    primary = make_primary(tmp_path, {"disk": pattern(1, 64 << 10)})
    primary.scan()
    primary.journal.save_clean_end(None)
    return primary


def sums_file(primary: Primary) -> Path:
    return Path(primary.journal.sums_path) / "disk.sums"


def test_damaged_sums_are_made_anew_from_the_journal(crashed: Primary) -> None:
    true = sums_file(crashed).read_bytes()
    sums_file(crashed).write_bytes(bytes(16) + true[16:])
    with OpenJournal(crashed.journal_path) as opened:
        assert opened.sums.state_sum == opened.sums.compute_state_sum() == opened.writer.state_sum
    assert sums_file(crashed).read_bytes() == true
    crashed.write("disk", 0, b"changed")
    crashed.scan()
    crashed.check()


@pytest.mark.parametrize("what", ["disk.segments", "disk.sums"])
def test_what_was_made_anew_is_durable_before_a_clean_stop_says_so(crashed: Primary, what: str) -> None:
    """Nothing changed, so no checkpoint came since; a clean stop lets the next start trust all of the table."""
    damaged = Path(crashed.journal.sums_path) / what
    damaged.write_bytes(bytes(damaged.stat().st_size))
    with faulty(no_fault) as system:
        OpenJournal(crashed.journal_path).__exit__()
        assert crashed.journal.clean_end is not None
        system.disk.lose_all()
    with OpenJournal(crashed.journal_path) as opened:
        assert opened.sums.is_segment_right(0)
        assert opened.sums.state_sum == opened.sums.compute_state_sum() == opened.writer.state_sum


def test_damaged_sums_are_made_anew_from_a_base(tmp_path: Path, fake_clock: FakeClock) -> None:
    """Where the journal was pruned; and it is recorded to as before."""
    primary = make_primary(tmp_path, {"disk": pattern(1, 64 << 10)})
    for number in range(3):
        fake_clock.advance(7200)  # a file each
        primary.write("disk", number * 4096, b"x" * 4096)
        primary.scan()
    with MakeBase(primary.journal_path) as making:
        making.run()
    assert prune(primary.journal_path, Keep(size=0)).plan.files
    true = sums_file(primary).read_bytes()
    sums_file(primary).write_bytes(bytes(16) + true[16:])
    primary.journal.save_clean_end(None)
    with OpenJournal(primary.journal_path) as opened:
        assert opened.sums.state_sum == opened.sums.compute_state_sum() == opened.writer.state_sum
    assert sums_file(primary).read_bytes() == true
    primary.write("disk", 0, b"changed")
    primary.scan()
    assert Audit(primary.journal_path).run().bases == 1
    replay_all(primary.journal_path, tmp_path / "pruned-mirror")
    assert (tmp_path / "pruned-mirror/volumes/disk.img").read_bytes()[:7] == b"changed"


def test_without_the_journals_beginning_damaged_sums_are_an_error(crashed: Primary) -> None:
    sums_file(crashed).write_bytes(bytes(16))
    values = Path(crashed.journal_path, "journal.json").read_text()
    # Another size of the volume at LSN 1 gives another state sum, as a journal that was put together wrongly would.
    Path(crashed.journal_path, "journal.json").write_text(values.replace(str(64 << 10), str(128 << 10)))
    with pytest.raises(CorruptJournalError, match="state sum"), OpenJournal(crashed.journal_path):
        pass


def test_a_size_that_was_not_journaled_is_not_remembered(tmp_path: Path) -> None:
    """A device that grew is served with the size of before; only a scan journals a RESIZE, which it then must find."""
    primary = make_primary(tmp_path, {"disk": pattern(1, 64 << 10)})
    primary.scan()
    with OpenJournal(primary.journal_path) as opened:
        grown = replace(opened.checkpoint.volumes["disk"], size=128 << 10)
        opened.save_checkpoint({"disk": grown})
        assert opened.checkpoint.volumes["disk"].size == 64 << 10
    primary.resize("disk", 128 << 10)
    primary.scan()
    primary.check()
    assert primary.mirror().checkpoint.sizes == {"disk": 128 << 10}


def test_a_torn_tail_is_moved_away_and_the_rest_redone(tmp_path: Path) -> None:
    primary = based(make_primary(tmp_path, {"disk": pattern(1, 64 << 10)}))
    with quiet_recorder(primary) as recorder:
        recorder.write("disk", 5, b"kept", fua=True)
    newest = Path(primary.journal.file_path(primary.journal.file_starts()[-1]))
    with open(newest, "ab") as file:
        file.write(b"MJF1 torn")
    end = newest.stat().st_size - len(b"MJF1 torn")
    with quiet_recorder(primary) as recorder:
        assert recorder.redone == 1
        assert recorder.torn and Path(recorder.torn).read_bytes() == b"MJF1 torn"
        assert recorder.read("disk", 5, 4) == b"kept"
        recorder.write("disk", 9, b"more", fua=True)
        recorder.close()
    assert newest.stat().st_size == end, "a reader may hold bytes of what was there for durable"
    check_everywhere(primary, primary.contents())


def test_recovery_again_and_again_comes_to_the_same(tmp_path: Path) -> None:
    """Whatever is redone is redone whole, in order, from the checkpoint on."""
    primary = based(make_primary(tmp_path, {"disk": pattern(1, 64 << 10)}))
    with quiet_recorder(primary) as recorder:
        for number in range(20):
            recorder.write("disk", number * 300, b"%d" % number * 200)
            recorder.zero("disk", number * 2500, 1100)
        recorder.flush()
        expected = recorder.read("disk", 0, 64 << 10)
    saved = Path(primary.journal_path, "recorder.json").read_bytes()
    for _ in range(3):
        with quiet_recorder(primary) as recorder:
            assert recorder.redone
            assert recorder.read("disk", 0, 64 << 10) == expected
        Path(primary.journal_path, "recorder.json").write_bytes(saved)
    with quiet_recorder(primary) as recorder:
        recorder.close()
    check_everywhere(primary, {"disk": expected})


def test_a_crash_without_anything_to_redo_writes_to_no_volume(tmp_path: Path) -> None:
    primary = based(make_primary(tmp_path, {"disk": pattern(1, 64 << 10)}))
    with quiet_recorder(primary) as recorder:
        recorder.write("disk", 0, b"x")
        recorder.write_back(checkpoint=True)
    before = Path(primary.paths["disk"]).stat().st_mtime_ns
    with quiet_recorder(primary) as recorder:
        assert recorder.redone == 0
    assert Path(primary.paths["disk"]).stat().st_mtime_ns == before
