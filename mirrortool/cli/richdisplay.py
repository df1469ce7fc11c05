"""All of rich: a progress bar, and a line for each task group of a replay.

Text reaches rich only as Text, or where its markup is off, and only after text.printable.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from mirrortool.cli.text import format_bytes
from mirrortool.replay.taskgroup import GroupStatistics

_GROUPS_SHOWN = 16


class LiveView:
    """A part of the terminal that is drawn again and again, and gone when it is closed."""

    def __init__(self, title: str) -> None:
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task(title, total=None, detail="")
        self._live = Live(self._progress, console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._live.start()

    def show(self, done: int, total: int, detail: str, groups: Sequence[GroupStatistics]) -> None:
        """Draw it anew."""
        self._progress.update(self._task, completed=done, total=max(total, 1), detail=detail)
        drawn = Group(self._progress, _table_of(groups)) if len(groups) > 1 else self._progress
        self._live.update(drawn, refresh=True)

    def show_lines(self, lines: Sequence[str]) -> None:
        """Draw lines in place of a progress bar."""
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def _table_of(groups: Sequence[GroupStatistics]) -> Table:
    """Who works, what waits, and how units came to their tasks (FIG. 9 to 11)."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("group", "active", "queued", "units", "written", "direct", "mini-queue", "waited", "given back"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group in groups[:_GROUPS_SHOWN]:
        cells = (
            str(group.number),
            f"{group.active}/{group.tasks}",
            str(group.main_queue + group.mini_queues),
            str(group.units),
            format_bytes(group.payload_bytes),
            str(group.direct),
            str(group.delegated),
            str(group.waited),
            str(group.given_back),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table
