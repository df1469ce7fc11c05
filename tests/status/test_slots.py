"""What status says of slots: that one has everything is said only of a position that the journal contains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import clock
from mirrortool.cli.main import main
from mirrortool.cli.statustext import lines_of
from mirrortool.errors import ForkedJournalError
from mirrortool.journal.position import Position
from mirrortool.journal.slots import Slot, locked, save
from mirrortool.replay.session import Replay
from mirrortool.status import Watch, journal_status, lags_of, mirror_status, problems_of
from tests.fakes.journals import PAGE, START_NS, Commit, JournalMaker, Write


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[JournalMaker]:
    made = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    yield made
    made.abandon()


def keep_slot(maker: JournalMaker, name: str, position: Position) -> None:
    with locked(maker.journal):
        save(maker.journal, Slot(name, "00" * 16, "mirror", f"/mirrors/{name}", position, 1, 1))


def test_a_slot_of_another_history_is_a_fork_and_never_up_to_date(
    maker: JournalMaker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now_ns", lambda: START_NS + 10**9)
    end = maker.frame(Write("a", 0, b"a" * PAGE), Commit())
    keep_slot(maker, "right", end)
    with Watch() as watch:
        assert not problems_of(watch.look(maker.journal.path))
        keep_slot(maker, "apart", replace(end, chain=end.chain ^ 1))
        keep_slot(maker, "ahead", replace(end, lsn=end.lsn + 7))
        status = watch.look_at_journal(maker.journal.path)
    problems = problems_of(status)
    assert all(isinstance(problem, ForkedJournalError) for problem in problems)
    assert ["slot ahead:" in str(problems[0]), "slot apart:" in str(problems[1]), len(problems)] == [True, True, 2]
    assert dict(lags_of(status)) == {"slot right": 0.0, "slot apart": None, "slot ahead": None}
    text = "\n".join(lines_of(status))
    assert text.count("OF ANOTHER HISTORY") == 2
    assert text.count("up to date") == 1
    assert main(["status", maker.journal.path]) == 13
    assert "mirrortool slot drop" in capsys.readouterr().err


def test_while_nothing_is_committed_nobody_has_everything(maker: JournalMaker, tmp_path: Path) -> None:
    keep_slot(maker, "early", maker.journal.start)
    with Replay(maker.journal.path, str(tmp_path / "mirror"), follow=True) as replay:
        replay.cancel()
        replay.run()
    status = journal_status(maker.journal.path)
    assert lags_of(status) == [("slot early", None)]
    assert "nothing is committed yet" in "\n".join(lines_of(status))
    mirror = mirror_status(str(tmp_path / "mirror"))
    assert (mirror.lag_operations, mirror.lag_seconds) == (None, None)
    text = "\n".join(lines_of(mirror))
    assert "up to date" not in text
    assert "no commit yet" in text
