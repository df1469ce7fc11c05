"""An audit reads all of a journal, and finds what reading alone does not."""

from __future__ import annotations

import pathlib

import pytest

from mirrortool.errors import CorruptJournalError, TornJournalError
from mirrortool.journal.audit import Audit, AuditCancelled
from mirrortool.operation import Batch
from mirrortool.replay.makebase import MakeBase
from tests.fakes.histories import make_history
from tests.journal.sample import (
    append,
    commit_batch,
    cut,
    last_file,
    make_journal,
    open_writer,
    write_batch,
)

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    writer = open_writer(make_journal(tmp_path / "journal"), file_bytes=300)
    for number in range(5):
        append(writer, write_batch(number, number, 2))
        append(writer, commit_batch(0))
    writer.sync()
    return writer.journal.path


def test_a_whole_journal_is_counted(path: str) -> None:
    audit = Audit(path)
    result = audit.run()
    assert (result.lsn, result.frames, result.operations, result.commits, result.pages) == (10, 10, 10, 5, 10)
    assert audit.statistics() == result


def test_a_page_without_its_sum_is_found(path: str) -> None:
    audit = Audit(path)
    batch = write_batch(9, 9)
    append(open_writer(audit.journal), Batch(batch.kinds, batch.pages, batch.counts, b"\1" * 8, batch.payload))
    with pytest.raises(CorruptJournalError, match="LSN 11 has not the sum"):
        audit.run()


def test_an_operation_outside_the_volumes_is_found(path: str) -> None:
    audit = Audit(path)
    append(open_writer(audit.journal), write_batch(64, 1))
    with pytest.raises(CorruptJournalError, match="outside the volumes"):
        audit.run()


def test_a_torn_tail_is_named_after_all_before_it_was_read(path: str) -> None:
    audit = Audit(path)
    cut(last_file(audit.journal), last_file(audit.journal).stat().st_size - 1)
    with pytest.raises(TornJournalError):
        audit.run()
    assert audit.statistics().lsn == 9


def test_an_audit_can_be_cancelled(path: str) -> None:
    audit = Audit(path)
    audit.cancel()
    with pytest.raises(AuditCancelled):
        audit.run()


def test_an_audit_can_be_cancelled_in_a_base(tmp_path: pathlib.Path) -> None:
    """Which may be as large as the volumes, and comes after all frames."""
    history = make_history(tmp_path / "journal", 3)
    with MakeBase(history.journal.path) as making:
        making.run()
    end = Audit(history.journal.path).run().lsn
    audit = Audit(
        history.journal.path, on_frame=lambda header, _: audit.cancel() if header.position.lsn == end else None
    )
    with pytest.raises(AuditCancelled):
        audit.run()
    assert (audit.statistics().lsn, audit.statistics().bases) == (end, 0)
