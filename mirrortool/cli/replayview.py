"""What a replay's progress is, for the progress display: of a replay that ends at a known commit the part that is done,
and of every replay, with -v, a line for each task group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mirrortool.cli.progressdisplay import WIDTH_DEFAULT, Tone, View
from mirrortool.cli.text import counted, fitted_columns, format_bytes
from mirrortool.journal.commits import Commit
from mirrortool.lsn import Lsn
from mirrortool.replay.session import ReplayStatistics
from mirrortool.replay.taskgroup import GroupStatistics

_GROUPS_SHOWN = 16


def view_of(
    now: ReplayStatistics, start_lsn: Lsn, goal: Commit, *, verbose: bool = False, width: int = WIDTH_DEFAULT
) -> View:
    """The way from an LSN to the goal, and how much of it is durable.

    Args:
        verbose: with what the engine does, in lines of at most this width.
    """
    lsn = now.progress.lsn
    below = engine_lines(now, width) if verbose else ()
    tone = Tone.WAITING if now.waits_for else Tone.GOOD
    return View(lsn - start_lsn, goal.lsn - start_lsn, now.progress.payload_bytes, f"LSN {lsn}", below, tone)


def engine_lines(now: ReplayStatistics, width: int) -> list[str]:
    """What the engine does: how far its tasks are ahead of what is durable, and each group."""
    return [f"given to the tasks up to LSN {now.handed_out_lsn}", *group_lines(now.groups, width)]


def group_lines(groups: Sequence[GroupStatistics], width: int) -> list[str]:
    """What each task group does, and how units came to their tasks (FIG. 9 to 11)."""
    headings = ("group", "busy", "main", "mini", "units", "written", "direct", "delegated", "waited", "given back")
    rows = [
        (
            str(group.number),
            f"{group.active}/{group.tasks}",
            str(group.main_queue),
            str(group.mini_queues),
            str(group.units),
            format_bytes(group.payload_bytes),
            str(group.direct),
            str(group.delegated),
            str(group.waited),
            str(group.given_back),
        )
        for group in groups[:_GROUPS_SHOWN]
    ]
    left = len(groups) - _GROUPS_SHOWN
    lines = fitted_columns(headings, rows, width, ("units", "given back", "waited", "direct", "written"))
    return [*lines, f"and {counted(left, 'more group')}"] if left > 0 else lines


def ways_of(groups: Sequence[GroupStatistics]) -> dict[str, int]:
    """How many units came to the tasks of these groups in each way; those given back are counted by the next, too."""
    return {
        "direct": sum(group.direct for group in groups),
        "mini-queue": sum(group.delegated for group in groups),
        "counter wait": sum(group.waited for group in groups),
        "give-back": sum(group.given_back for group in groups),
    }


def describe_ways(ways: Mapping[str, int]) -> str:
    """The same as words."""
    return (
        f"{ways['direct']} direct, {ways['mini-queue']} delegated to a mini queue, "
        f"{ways['counter wait']} waited for a counter, {ways['give-back']} given back"
    )
