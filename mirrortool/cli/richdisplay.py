"""The only module that uses the library rich: a progress bar, lines under it, and lines in colour.

Colours are those of the terminal's own palette, so they can be read on dark and on light; text that says no state has
the terminal's own colour. NO_COLOR turns them off (rich does that).

Text reaches rich only as Text, or where its markup is off, and only after text.printable.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from mirrortool.cli.progressdisplay import Line, Tone, View

_BAR_WIDTH_MIN, _BAR_WIDTH_MAX = 10, 50
_BAR_COLOURS = {Tone.PLAIN: "default", Tone.GOOD: "green", Tone.WAITING: "yellow", Tone.BAD: "red"}
# Of words: on a ground of their own, as green and yellow letters can hardly be read on white.
_WORD_COLOURS = {
    Tone.PLAIN: "", Tone.GOOD: "black on green", Tone.WAITING: "black on yellow", Tone.BAD: "bold white on red"
}  # fmt: skip


class LiveView:
    """A part of the terminal that is drawn again and again, and gone when it is closed."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._bar = BarColumn(style="bright_black")
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            self._bar,
            TextColumn("{task.fields[percent]:>4}", markup=False),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task(title, total=None, percent="", detail="")
        self._live = Live(
            self._progress, console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
        )
        self._live.start()

    @property
    def width(self) -> int:
        """Of the terminal, in characters; it may change."""
        return self._console.width

    def show(self, view: View, detail: str) -> None:
        """Draw the bar again, as wide as there is room beside the detail."""
        beside = len(self._progress.tasks[0].description) + len("  100%  ")
        below = [Text(detail, overflow="fold")] if beside + _BAR_WIDTH_MIN + len(detail) > self.width else []
        detail = "" if below else detail
        beside += len(detail)
        self._bar.bar_width = max(_BAR_WIDTH_MIN, min(_BAR_WIDTH_MAX, self.width - beside))
        self._bar.complete_style = self._bar.finished_style = _BAR_COLOURS[view.tone]
        done = min(view.done, view.total)  # where the whole is not known, the bar is empty
        percent = f"{100 * done // view.total}%" if view.total else ""  # not 100 while anything is left
        self._progress.update(self._task, completed=done, total=max(view.total, 1), percent=percent, detail=detail)
        shown = [Text(line, no_wrap=True, overflow="crop") for line in view.below]
        self._live.update(Group(self._progress, *below, *shown), refresh=True)

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Draw lines in place of a progress bar; one that is longer than the terminal is wide is folded."""
        self._live.update(Group(*map(_coloured, lines)), refresh=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def _coloured(line: Line) -> Text:
    text = Text(line, overflow="fold")
    start = line.find(line.words)
    if start >= 0:
        end = start + len(line.words or line)
        text.stylize(_WORD_COLOURS[line.tone], start + len(line.words) - len(line.words.lstrip()), end)
    return text
