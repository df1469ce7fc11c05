"""All of rich: progress on a terminal, plain lines elsewhere, nothing when quiet. Everything here goes to stderr.

Untrusted text (names, marks, paths) reaches rich only as Text, after text.printable.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from mirrortool import clock
from mirrortool.cli.text import format_bytes, format_seconds, printable
from mirrortool.replay.group import GroupStatistics

PLAIN_SECONDS = 10.0
"""In a pipe a progress line comes this often."""


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show at one moment.

    Attributes:
        done, total: in whatever the work counts.
        bytes_done: for the rate.
        detail: a few words behind the bar.
        groups: of a replay.
    """

    done: int
    total: int
    bytes_done: int
    detail: str = ""
    groups: Sequence[GroupStatistics] = ()


class Display:
    """Shows views of one piece of work; `with` takes the terminal and gives it back."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title = title
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._quiet = quiet
        self._live: Live | None = None
        self._started = self._shown_at = clock.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task(title, total=None, detail="")

    def __enter__(self) -> Display:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(
                self._progress, console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, view: View) -> None:
        """Show a view; on a terminal at once, in a pipe a line now and then."""
        if self._live:
            self._live.update(self._drawn(view), refresh=True)
        elif not self._quiet and clock.monotonic() - self._shown_at >= PLAIN_SECONDS:
            self._shown_at = clock.monotonic()
            percent = f"{100 * view.done // view.total} %" if view.total else ""
            self._line(f"{self._title} {percent} {self._rate(view)} {view.detail}")

    def note(self, text: str) -> None:
        """A line for the person who watches; not part of the result."""
        if not self._quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        """A line that is printed also when quiet."""
        sys.stderr.write(f"mirrortool: {printable(text)}\n")
        sys.stderr.flush()

    def _line(self, text: str) -> None:
        sys.stderr.write(f"{printable(' '.join(text.split()))}\n")
        sys.stderr.flush()

    def _drawn(self, view: View) -> RenderableType:
        detail = printable(f"{self._rate(view)} {self._eta(view)} {view.detail}".strip())
        self._progress.update(self._task, completed=view.done, total=max(view.total, 1), detail=detail)
        return Group(self._progress, _group_table(view.groups)) if len(view.groups) > 1 else self._progress

    def _rate(self, view: View) -> str:
        elapsed = max(clock.monotonic() - self._started, 0.001)
        return f"{format_bytes(view.bytes_done / elapsed)}/s"

    def _eta(self, view: View) -> str:
        elapsed = clock.monotonic() - self._started
        if not view.done or view.done >= view.total or elapsed < 1:
            return ""
        return f"{format_seconds(elapsed * (view.total - view.done) / view.done)} left"


def _group_table(groups: Sequence[GroupStatistics]) -> Table:
    """A line a group: who works, what waits, and how units came to their tasks (FIG. 9 to 11)."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("group", "active", "queued", "units", "written", "direct", "mini-queue", "waited", "given back"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group in groups[:16]:
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
