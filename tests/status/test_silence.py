"""Where news is due and did not come, every lag is at least the silence; where none is due, idleness is no lag."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from mirrortool import clock
from mirrortool.cli.main import main
from mirrortool.cli.statustext import lines_of
from mirrortool.cli.text import format_time
from mirrortool.journal.description import NextScan
from mirrortool.journal.directory import Journal
from mirrortool.journal.slots import Slot, locked, save
from mirrortool.metrics import exposition, replay_samples
from mirrortool.operation import CommitKind
from mirrortool.replay.session import Replay
from mirrortool.status import journal_status, lags_of, mirror_status
from tests.fakes.journals import PAGE, START_NS, Commit, JournalMaker, Write

MANUAL = Path(__file__).parents[2] / "man/man5/mirrortool-metrics.5"
SECOND = 10**9


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JournalMaker]:
    """A journal that is being recorded, and a mirror M that has all of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clock, "now_ns", lambda: START_NS)
    made = JournalMaker(tmp_path / "journal", {"a": 40 * PAGE})
    made.frame(Write("a", 0, b"a" * PAGE), Commit())
    with Replay("journal", "M") as replay:
        replay.run()
    yield made
    made.abandon()


def later(monkeypatch: pytest.MonkeyPatch, maker: JournalMaker, seconds: float) -> None:
    heard_ns = maker.writer.time_ns
    monkeypatch.setattr(clock, "now_ns", lambda: heard_ns + round(seconds * SECOND))


HOLDERS: dict[str, Callable[[Journal], AbstractContextManager[object]]] = {
    "the recorder, the shipper or the follower is dead": lambda _: nullcontext(),
    "the link is cut, and a receiver waits": lambda journal: journal.lock("receive"),
    "the recorder is stopped": lambda journal: journal.lock("record"),
}


@pytest.mark.parametrize("cause", HOLDERS)
def test_a_mirror_is_as_far_behind_as_its_journal_is_silent(
    maker: JournalMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cause: str
) -> None:
    with HOLDERS[cause](maker.journal):
        later(monkeypatch, maker, 25)
        assert lags_of(mirror_status("M")) == [("M", 0.0)]
        assert main(["status", "M", "--max-lag", "5s"]) == 0
        later(monkeypatch, maker, 72)
        capsys.readouterr()
        assert main(["status", "M", "--max-lag", "1m", "--json"]) == 50
        found = json.loads(capsys.readouterr().out)
        assert (found["lag"], found["silent_seconds"]) == ({"operations": 0, "seconds": 72.0}, 72.0)


def test_slots_are_as_far_behind_too(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(maker.journal):
        save(maker.journal, Slot("far", "00" * 16, "mirror", "/m", maker.writer.position, START_NS, 0, via="copy"))
    later(monkeypatch, maker, 72)
    assert lags_of(journal_status("journal")) == [("slot far", 72.0)]


def test_heartbeats_are_no_lag_of_a_mirror_nor_of_a_far_slot(
    maker: JournalMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(maker.journal):
        save(maker.journal, Slot("far", "00" * 16, "mirror", "/m", maker.writer.position, START_NS, 0, via="copy"))
    for _ in range(5):
        maker.frame(Commit(kind=CommitKind.HEARTBEAT))
    later(monkeypatch, maker, 25)
    assert main(["status", "M", "journal", "--max-lag", "5s"]) == 0
    assert mirror_status("M").lag_operations == 0
    maker.frame(Write("a", 1, b"b" * PAGE), Commit())
    assert mirror_status("M").lag_operations == 7
    maker.frame(Commit(kind=CommitKind.HEARTBEAT))
    assert mirror_status("M").lag_operations == 7
    assert main(["status", "M", "--max-lag", "5s"]) == 50


def rules() -> list[tuple[str, float]]:
    """The alerts of the manual that compare one metric with one number."""
    return [(name, float(limit)) for name, limit in re.findall(r"^(mirrortool_\w+) > (\d+)$", MANUAL.read_text(), re.M)]


def test_the_alerts_of_the_manual_fire(maker: JournalMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"mirrortool_replay_lag_seconds", "mirrortool_replay_silent_seconds"}
    assert expected <= {name for name, _ in rules()}
    with Replay("journal", "M", follow=True) as replay:
        for seconds, fired in ((20, set()), (72, expected)):
            later(monkeypatch, maker, seconds)
            lag = replay.statistics().lag
            text = exposition(
                replay_samples(
                    "/M",
                    following=True,
                    consistent=True,
                    applied_lsn=2,
                    applied_time_ns=START_NS,
                    head_lsn=lag.head_lsn,
                    replayed_bytes=0,
                    lag_operations=lag.operations,
                    lag_bytes=lag.bytes,
                    lag_seconds=lag.seconds,
                    heard_time_ns=lag.head_time_ns,
                    silent_seconds=lag.silent_seconds,
                )
            )
            values = {name: float(value) for name, value in re.findall(r"^(\w+)\{.*\} (\S+)$", text, re.M)}
            assert {name for name, limit in rules() if values.get(name, 0.0) > limit} == fired


def test_a_scan_that_did_not_begin_when_promised_is_not_said_to_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a copy that is being received, while the primary's recorder is dead."""
    made = JournalMaker(tmp_path / "journal", {"a": PAGE})
    made.frame(Commit())
    journal = Journal(made.close().path)
    journal.next_scan = NextScan(START_NS + 60 * SECOND, START_NS + 70 * SECOND)
    journal.save_clean_end(journal.clean_end)
    with journal.lock("receive"):
        for seconds, told in ((59, "; the next scan begins at "), (61, "; the next scan was to begin at ")):
            monkeypatch.setattr(clock, "now_ns", lambda seconds=seconds: START_NS + seconds * SECOND)
            text = "\n".join(lines_of(journal_status(journal.path)))
            assert f"{told}{format_time(START_NS + 60 * SECOND)}" in text
