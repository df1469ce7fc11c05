"""The plan changes between two windows, with everything drained, and the result is that of any other plan."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mirrortool.errors import ExhaustedError, NoSpaceError, UnusableVolumeError
from mirrortool.files import File
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.replay import tuner
from mirrortool.replay.engine import Plan, ReplayEngine
from mirrortool.replay.planner import Choice, Trial, Wanted
from mirrortool.replay.session import Replay
from mirrortool.replay.taskgroup import TaskGroup
from mirrortool.store.flat import FlatStore
from mirrortool.store.interface import WriteRun
from tests.fakes.journals import Commit, Op, Write, assert_is_commit, make_journal, verified

PAGE = 4096
PAGES = 4000


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Windows enough for every stage, some pages again and again, two volumes."""
    draw = random.Random(5)
    frames: list[Sequence[Op]] = []
    for _ in range(24):
        ops: list[Op] = [
            Write(draw.choice("ab"), draw.choice((draw.randrange(PAGES), 7)), draw.randbytes(PAGE)) for _ in range(128)
        ]
        frames.append([*ops, Commit()])
    return make_journal(tmp_path / "J", {"a": PAGES * PAGE, "b": PAGES * PAGE}, frames, page_size=PAGE)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """All that an engine was changed to, each while nothing was in flight."""
    changed: list[Plan] = []
    real = ReplayEngine.change

    def change(self: ReplayEngine, plan: Plan, *, timed: bool) -> None:
        assert self.statistics()[1].pending_units == 0
        changed.append(plan)
        real(self, plan, timed=timed)

    monkeypatch.setattr(ReplayEngine, "change", change)
    return changed


def script(monkeypatch: pytest.MonkeyPatch, *choices: Choice) -> list[Trial]:
    """Have these chosen one after the other, the last for good; returns the trials seen."""
    seen: list[Trial] = []

    def choose(_: Wanted, trials: Sequence[Trial], **__: bool) -> Choice:
        seen[:] = trials
        return choices[min(len(trials), len(choices) - 1)]

    monkeypatch.setattr(tuner, "choose", choose)
    return seen


def replay(journal: Journal, mirror: Path, wanted: Wanted | None = None, **options: Any) -> Replay:
    with Replay(journal.path, str(mirror), plan=wanted, **options) as opened:
        opened.run()
        return opened


def test_plan_changes_between_windows_and_every_byte_is_right(
    journal: Journal, tmp_path: Path, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [Plan(groups=2, tasks=1), Plan(groups=4, tasks=8, unit="op"), Plan("space", 1, 1), Plan("equal", 3, 2)]
    seen = script(monkeypatch, *(Choice(plan, "", is_final=plan is steps[-1]) for plan in steps))
    done = replay(journal, tmp_path / "M", window_bytes=1 << 20)
    assert plans == steps[1:]
    assert [trial.plan for trial in seen] == steps[:-1]
    assert all(trial.units and trial.payload_bytes for trial in seen)
    assert_is_commit(journal, tmp_path / "M")
    assert verified(tmp_path / "M").is_right
    groups = done.statistics().groups
    assert len(groups) == 3
    taken = sum(group.direct + group.waited + group.delegated - group.given_back for group in groups)
    assert taken == sum(group.units for group in groups), "what earlier groups did is counted too"


def test_ways_to_the_disk_may_change_between_windows(
    journal: Journal, tmp_path: Path, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [Plan(io=io) for io in ("buffered", "direct", "buffered", "direct")]
    script(monkeypatch, *(Choice(plan, "", is_final=plan is steps[-1]) for plan in steps))
    replay(journal, tmp_path / "M", window_bytes=1 << 20)
    assert [plan.io for plan in plans] == ["direct", "buffered", "direct"]
    assert_is_commit(journal, tmp_path / "M")
    assert verified(tmp_path / "M").is_right


def test_plan_that_is_given_whole_never_changes(journal: Journal, tmp_path: Path, plans: list[Plan]) -> None:
    with Replay(journal.path, str(tmp_path / "M"), plan=Plan(groups=1, tasks=2)) as opened:
        opened.run()
    assert not plans
    assert opened.statistics().choice.reason == "as given"


def test_journal_of_one_window_changes_nothing(tmp_path: Path, plans: list[Plan]) -> None:
    frames = [[Write("a", page, bytes([page + 1]) * PAGE) for page in range(40)], [Commit()]]
    journal = make_journal(tmp_path / "J", {"a": 40 * PAGE}, frames, page_size=PAGE)
    replay(journal, tmp_path / "M")
    assert not plans


def test_store_of_a_millisecond_gets_many_tasks_and_is_soon_done(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double that sleeps for each write call, as a network disk does."""
    real, lock = FlatStore.write, threading.Lock()
    calls = 0

    def write(self: FlatStore, runs: Sequence[WriteRun]) -> None:
        nonlocal calls
        with lock:
            calls += len(runs)
        for run in runs:
            time.sleep(0.001)
            real(self, [run])

    monkeypatch.setattr(FlatStore, "write", write)
    started = time.monotonic()
    choice = replay(journal, tmp_path / "M").statistics().choice
    assert choice.plan.threads >= 16
    assert "mostly waiting" in choice.reason
    assert time.monotonic() - started < calls * 0.001, "it waited for one write after the other"
    monkeypatch.undo()
    assert_is_commit(journal, tmp_path / "M")


def test_too_many_threads_leave_what_there_was(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, Choice(Plan(groups=2, tasks=1), "", False), Choice(Plan(groups=4, tasks=8), "waits", True))
    real = TaskGroup.start

    def start(self: TaskGroup) -> None:
        if self.statistics().tasks > 1:
            raise ExhaustedError("cannot start a thread")
        real(self)

    monkeypatch.setattr(TaskGroup, "start", start)
    choice = replay(journal, tmp_path / "M", window_bytes=1 << 20).statistics().choice
    assert (choice.plan.groups, choice.plan.tasks) == (2, 1)
    assert choice.reason == "waits, but the system has no more threads"
    assert_is_commit(journal, tmp_path / "M")


def test_direct_writes_that_cannot_be_had_are_refused_before_anything_is_written(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(File, "reopen_direct", lambda _: None)
    with pytest.raises(UnusableVolumeError, match="does not take O_DIRECT"):
        replay(journal, tmp_path / "M", Wanted(io="direct"))
    assert not any(path.read_bytes().strip(b"\0") for path in (tmp_path / "M" / "volumes").iterdir())
    choice = replay(journal, tmp_path / "M", Wanted(io=None)).statistics().choice
    assert choice.plan.io == "buffered"
    assert_is_commit(journal, tmp_path / "M")


def test_full_disk_that_shows_as_a_window_is_made_durable_leaves_no_checkpoint_of_it(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a network; the kernel tells once, and the next sync would succeed."""
    told = []
    real = FlatStore.sync

    def sync(self: FlatStore) -> None:
        if not told:
            told.append(True)
            raise NoSpaceError("no space")
        real(self)

    monkeypatch.setattr(FlatStore, "sync", sync)
    with pytest.raises(NoSpaceError):
        replay(journal, tmp_path / "M")
    assert Mirror(str(tmp_path / "M")).checkpoint.position.lsn == 0
    assert replay(journal, tmp_path / "M").mirror.checkpoint.is_consistent
    assert_is_commit(journal, tmp_path / "M")
