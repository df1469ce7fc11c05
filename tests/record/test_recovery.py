"""Recovery: a damaged table of sums never makes the recorder journal a wrong state."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirrortool.errors import CorruptJournalError
from mirrortool.record.recovery import OpenJournal
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


def test_without_the_journals_beginning_damaged_sums_are_an_error(crashed: Primary) -> None:
    sums_file(crashed).write_bytes(bytes(16))
    values = Path(crashed.journal_path, "journal.json").read_text()
    # Another size of the volume at LSN 1 gives another state sum, as a journal that was put together wrongly would.
    Path(crashed.journal_path, "journal.json").write_text(values.replace(str(64 << 10), str(128 << 10)))
    with pytest.raises(CorruptJournalError, match="state sum"), OpenJournal(crashed.journal_path):
        pass
