"""A hold counts while its process runs, and no longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirrortool.errors import AccessError, LockedError
from mirrortool.journal import holds, slots
from mirrortool.journal.directory import Journal
from mirrortool.lockholder import Worker
from tests.fakes.journals import PAGE, Commit, Write, make_journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return make_journal(tmp_path / "journal", {"a": 4 * PAGE}, [[Write("a", 0, b"a" * PAGE), Commit()]])


def files_of(journal: Journal) -> list[str]:
    return [name for name in os.listdir(slots.slots_path(journal)) if name.endswith(".hold")]


def test_a_hold_counts_until_it_is_closed(journal: Journal) -> None:
    assert holds.holds(journal) == []
    with slots.locked(journal):
        later, earlier = holds.hold(journal, 7, "serve"), holds.hold(journal, 0, "diff")
    found = holds.holds(journal)
    assert [(hold.lsn, hold.worker.doing, hold.worker.pid) for hold in found] == [
        (0, "diff", os.getpid()),
        (7, "serve", os.getpid()),
    ]
    assert found[1].why == f"process {os.getpid()} reads it (serve)"
    later.close()
    assert [hold.lsn for hold in holds.holds(journal)] == [0]
    earlier.close()
    assert holds.holds(journal) == []
    assert files_of(journal) == []
    assert slots.slots(journal) == []


def test_the_hold_of_a_killed_process_is_ignored_and_then_removed(journal: Journal) -> None:
    text = (
        "import os, signal, sys; from mirrortool.journal import directory, holds, slots\n"
        "journal = directory.Journal(sys.argv[1])\n"
        "with slots.locked(journal): hold = holds.hold(journal, 0, 'serve')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", text, journal.path], check=False)
    assert len(files_of(journal)) == 1
    assert holds.holds(journal) == []
    with slots.locked(journal):
        kept = holds.hold(journal, 3, "export")
        holds.remove_dead(journal)
    assert len(files_of(journal)) == 1
    assert [hold.lsn for hold in holds.holds(journal)] == [3]
    kept.close()


def test_files_that_are_held_may_not_go(journal: Journal) -> None:
    with slots.locked(journal):
        kept = holds.hold(journal, 5, "serve")
    holds.check_not_held(journal, 6, "take the place of older files")
    with pytest.raises(LockedError, match=r"cannot take the place of older files, because process \d+ reads it"):
        holds.check_not_held(journal, 7, "take the place of older files")
    kept.close()
    holds.check_not_held(journal, 7, "take the place of older files")


def test_a_hold_of_which_nobody_may_ask_counts(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    with slots.locked(journal):
        kept = holds.hold(journal, 5, "serve")

    def refuse(path: str) -> Worker | None:
        raise AccessError("not permitted", where=path)

    monkeypatch.setattr(holds.lockholder, "find_worker", refuse)
    assert [(hold.lsn, hold.why) for hold in holds.holds(journal)] == [(5, "a process reads it")]
    kept.close()
