"""A journal is proved by its operations: each frame's state sum follows from them, and so does the recorder's table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.errors import CorruptJournalError, NoSpaceError
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.mirror.verifyjournal import JournalProof, VerifyJournal
from mirrortool.operation import BatchBuilder, CommitKind
from mirrortool.replay.makebase import MakeBase
from mirrortool.store.pagesums import PageSums
from tests.fakes.histories import History, make_history
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, memory_directory
from tests.fakes.volumes import Primary, fast_directory, make_primary, pattern

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def history() -> Iterator[History]:
    with memory_directory() as path:
        yield make_history(path / "journal", 3)


@pytest.fixture
def primary() -> Iterator[Primary]:
    with fast_directory() as path:
        made = make_primary(path, {"a": pattern(1, 10 * PAGE + 3), "b": pattern(2, 4 * PAGE)})
        made.scan()
        yield made


def proved(path: str) -> JournalProof:
    return VerifyJournal(path).run()


def make_base(journal: Journal, lsn: int) -> None:
    with MakeBase(journal.path, Until(lsn=lsn)) as making:
        making.run()


def test_a_random_history_is_proved_from_its_start_and_from_a_base(history: History) -> None:
    journal, commits = history.journal, history.commits
    proof = proved(journal.path)
    assert (proof.proved_after, proof.why_not, proof.is_table_proved) == (0, "", False)
    make_base(journal, commits[5])
    make_base(journal, commits[20])
    prune(journal.path, Keep(size=1))
    assert journal.file_starts()[0] > 1
    proof = proved(journal.path)
    assert proof.proved_after == commits[20]
    assert proof.audit.lsn == commits[-1]


def test_a_state_sum_that_its_operations_do_not_give_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maker = JournalMaker(tmp_path / "J", {"a": 40 * PAGE})
    end = maker.frame(Write("a", 0, b"a" * PAGE), Commit())
    builder = BatchBuilder(PAGE)
    builder.commit(CommitKind.FLUSH, maker.writer.durable.lsn, None)
    maker.append(builder.build(), state_sum=7)
    maker.close()
    with pytest.raises(CorruptJournalError, match=f"LSN {end.lsn + 1} is not what its operations give"):
        proved(maker.journal.path)
    assert main(["verify", maker.journal.path]) == 11
    assert f"--until {end.lsn}" in capsys.readouterr().err


def test_without_room_for_a_table_the_first_line_says_that_nothing_was_proved(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise NoSpaceError("cannot write: no space", where="/tmp/table")

    monkeypatch.setattr(PageSums, "apply_batch", refuse)
    assert main(["verify", history.journal.path]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "STATE SUMS NOT PROVED: /tmp/table: cannot write: no space" in first
    assert main(["verify", history.journal.path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state_sums_proved_after"] is None


def test_the_first_line_says_what_was_proved(primary: Primary, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", primary.journal_path]) == 0
    assert capsys.readouterr().out.endswith("; state sums proved, and the recorder's sums\n")


@pytest.mark.parametrize(("name", "offset"), [("a.sums", 9), ("a.segments", 3), ("b.sums", 0)])
def test_rot_in_the_recorders_table_is_found_and_named(primary: Primary, name: str, offset: int) -> None:
    path = Path(primary.journal.sums_path, name)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptJournalError, match="the journal's frames are right") as caught:
        proved(primary.journal_path)
    assert caught.value.where == str(path)


def test_a_table_that_a_recorder_works_with_is_not_judged(primary: Primary) -> None:
    path = Path(primary.journal.sums_path, "a.sums")
    path.write_bytes(b"\1" * path.stat().st_size)
    with primary.journal.lock():
        assert not proved(primary.journal_path).is_table_proved


def test_a_journal_may_be_pruned_meanwhile(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that come next go, and a base with them; what is left is proved."""
    journal, commits = history.journal, history.commits
    make_base(journal, commits[5])
    verify = VerifyJournal(journal.path)
    take, taken = verify._check_frame, 0

    def take_and_prune(*frame: object) -> None:
        nonlocal taken
        take(*frame)
        taken += 1
        if taken == 3:
            make_base(journal, commits[30])
            prune(journal.path, Keep(size=1))

    monkeypatch.setattr(verify._audit, "_on_frame", take_and_prune)
    proof = verify.run()
    assert (proof.audit.lsn, proof.proved_after, proof.audit.bases) == (commits[-1], commits[30], 1)


def test_a_base_that_is_pruned_before_it_is_read_is_left_out(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, commits = history.journal, history.commits
    make_base(journal, commits[5])
    make_base(journal, commits[-1])
    verify = VerifyJournal(journal.path)

    def prune_at_end(*_frame: object) -> None:
        if verify.statistics().lsn == commits[-2]:
            prune(journal.path, Keep(size=1))

    monkeypatch.setattr(verify._audit, "_on_frame", prune_at_end)
    assert verify.run().audit.bases == 1
