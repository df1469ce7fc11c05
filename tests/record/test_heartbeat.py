"""Heartbeats: an idle recorder says that it is running; that costs nothing, and it says nothing that is not so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mirrortool.change import Change
from mirrortool.cli.main import main
from mirrortool.errors import NoSpaceError
from mirrortool.files import File
from mirrortool.journal.commits import Until, commits, find_commit, newest_commits
from mirrortool.journal.overdue import HEARTBEAT_SECONDS
from mirrortool.journal.writer import JournalWriter
from mirrortool.operation import CommitKind
from mirrortool.record.mark import mark
from mirrortool.record.recorder import Recorder
from tests.conftest import FakeClock
from tests.fakes.recorders import based, check_everywhere, drop, quiet_recorder
from tests.fakes.volumes import PAGE, Primary, fast_directory, make_primary, pattern


@pytest.fixture
def primary() -> Iterator[Primary]:
    with fast_directory() as directory:
        yield based(make_primary(directory, {"a": pattern(1, 40 * PAGE)}))


def kinds(primary: Primary) -> list[CommitKind]:
    return [commit.kind for commit in commits(primary.journal)]


def idle(recorder: Recorder, clock: FakeClock, seconds: int) -> None:
    """What the recorder's thread does every second."""
    for _ in range(seconds):
        clock.advance(1)
        recorder.write_back()
        recorder._look_after()


def test_an_idle_recorder_beats_every_ten_seconds(primary: Primary, fake_clock: FakeClock) -> None:
    with quiet_recorder(primary) as recorder:
        before = len(kinds(primary))
        idle(recorder, fake_clock, 35)
        assert kinds(primary)[before:] == [CommitKind.HEARTBEAT] * 3
        recorder.change("a", [Change(0, PAGE, b"x" * PAGE)])
        recorder.flush()
        idle(recorder, fake_clock, int(HEARTBEAT_SECONDS) - 1)
        assert kinds(primary)[-1] == CommitKind.FLUSH
        idle(recorder, fake_clock, 1)
        assert kinds(primary)[-1] == CommitKind.HEARTBEAT
        state_sums = {commit.state_sum for commit in newest_commits(primary.journal, 2)}
        assert len(state_sums) == 1, "it repeats the commit before it"
        recorder.close()
    check_everywhere(primary, primary.contents())


def test_a_heartbeat_syncs_nothing_and_is_no_checkpoint(
    primary: Primary, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_recorder(primary) as recorder:
        idle(recorder, fake_clock, 15)
        checkpoint = primary.journal.recorder_checkpoint()
        monkeypatch.setattr(File, "fdatasync", lambda _: pytest.fail("it was made durable"))
        idle(recorder, fake_clock, 60)
        monkeypatch.undo()
        assert primary.journal.recorder_checkpoint() == checkpoint
        assert kinds(primary)[-6:] == [CommitKind.HEARTBEAT] * 6


def test_after_a_clean_stop_heartbeats_leave_nothing_to_recover(primary: Primary, fake_clock: FakeClock) -> None:
    with quiet_recorder(primary) as recorder:
        idle(recorder, fake_clock, 25)
        recorder.close()
    end = primary.journal.clean_end
    assert end and end.position == newest_commits(primary.journal, 1)[0].position
    with quiet_recorder(primary) as recorder:
        assert not recorder.redone


def test_after_a_crash_heartbeats_are_redone_as_nothing(primary: Primary, fake_clock: FakeClock) -> None:
    with quiet_recorder(primary) as recorder:
        recorder.write("a", 100, b"hello")
        recorder.write_back()
        idle(recorder, fake_clock, 25)
        drop(recorder)
    with quiet_recorder(primary) as recorder:
        assert recorder.read("a", 100, 5) == b"hello"
        idle(recorder, fake_clock, 12)
        recorder.close()
    check_everywhere(primary, primary.contents())


def test_none_while_something_is_not_committed(primary: Primary, fake_clock: FakeClock) -> None:
    with quiet_recorder(primary) as recorder:
        recorder.write("a", 0, b"x")
        fake_clock.advance(60)
        recorder._journal.beat()
        assert CommitKind.HEARTBEAT not in kinds(primary)


def test_none_while_a_base_is_incomplete(fake_clock: FakeClock) -> None:
    with fast_directory() as directory:
        fresh = make_primary(directory, {"a": pattern(1, 40 * PAGE)})
        with quiet_recorder(fresh) as recorder:
            recorder.write("a", 0, b"x")
            recorder.write_back()
            idle(recorder, fake_clock, 40)
            assert set(kinds(fresh)) == {CommitKind.INCOMPLETE}


@pytest.mark.parametrize("what", ["may_commit", "fuzzy"])
def test_none_where_the_newest_commit_is_no_state_of_the_volumes(
    primary: Primary, fake_clock: FakeClock, what: str
) -> None:
    with quiet_recorder(primary) as recorder:
        if what == "may_commit":
            recorder._journal.may_commit = False
        else:
            with recorder._journal.lock:
                recorder._journal.commit(CommitKind.FUZZY)
        fake_clock.advance(60)
        recorder._journal.beat()
        assert CommitKind.HEARTBEAT not in kinds(primary)


def test_a_full_journal_has_no_heartbeats_and_goes_on(
    primary: Primary, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_recorder(primary) as recorder:
        tries: list[float] = []

        def full(*_args: object, **_kwargs: object) -> None:
            tries.append(fake_clock.elapsed)
            raise NoSpaceError("full", where="here")

        with monkeypatch.context() as patch:
            patch.setattr(JournalWriter, "append", full)
            idle(recorder, fake_clock, 30)
        assert len(tries) == 3
        assert recorder.failure is None
        idle(recorder, fake_clock, 10)
        assert kinds(primary)[-1] == CommitKind.HEARTBEAT


def test_people_see_heartbeats_only_if_they_ask(
    primary: Primary, fake_clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    with quiet_recorder(primary) as recorder:
        recorder.commit("here")
        idle(recorder, fake_clock, 45)
        recorder.close()
    beat = newest_commits(primary.journal, 1)[0]
    assert beat.is_heartbeat
    assert find_commit(primary.journal, Until(time_ns=beat.time_ns)) == beat
    for arguments in ([], ["-n", "3"], ["--since", "2000-01-01"], ["--all"]):
        assert main(["log", primary.journal_path, *arguments]) == 0
        out = capsys.readouterr().out
        assert ("heartbeat" in out) == (arguments == ["--all"])
        assert "here" in out
    assert [commit.name for commit in newest_commits(primary.journal, 1, heartbeats=False)] == ["here"]


def test_a_mark_after_a_heartbeat_is_a_commit_like_others(primary: Primary, fake_clock: FakeClock) -> None:
    with quiet_recorder(primary) as recorder:
        idle(recorder, fake_clock, 15)
        recorder.close()
    mark(primary.journal_path, "later")
    (found,) = newest_commits(primary.journal, 1)
    assert (found.name, found.kind) == ("later", CommitKind.INTERVAL)
