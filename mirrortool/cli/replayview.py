"""The progress of a replay that ends at a known commit, as values for the progress display: done, remaining, speed."""

from __future__ import annotations

from mirrortool.cli.progressdisplay import Tone, View
from mirrortool.journal.commits import Commit
from mirrortool.lsn import Lsn
from mirrortool.replay.session import ReplayStatistics


def view_of(now: ReplayStatistics, start_lsn: Lsn, goal: Commit, *, verbose: bool = False) -> View:
    """The way from an LSN to the goal, and how much of it is done; `verbose` with the task groups."""
    lsn, groups = now.progress.lsn, now.groups if verbose else ()
    tone = Tone.WAITING if now.waits_for else Tone.GOOD
    return View(lsn - start_lsn, goal.lsn - start_lsn, now.progress.payload_bytes, f"LSN {lsn}", groups, tone)
