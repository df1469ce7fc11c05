"""Progress: live on a terminal, plain lines elsewhere, nothing when quiet. Everything here goes to stderr.

rich is loaded only for a terminal (richdisplay.py).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from mirrortool import clock
from mirrortool.cli.text import format_bytes, format_seconds, printable, tell
from mirrortool.replay.taskgroup import GroupStatistics

if TYPE_CHECKING:
    from mirrortool.cli.richdisplay import LiveView

PLAIN_SECONDS = 10.0
"""In a pipe a progress line comes this often."""
WIDTH_DEFAULT = 80


class Tone(Enum):
    """What a colour says; PLAIN has none."""

    PLAIN = "plain"
    GOOD = "good"
    WAITING = "waiting"
    BAD = "bad"


class Line(str):
    """A line to show, with the colour of its tone.

    Attributes:
        words: the part of it that is in colour; empty for all of it.
    """

    tone: Tone
    words: str

    def __new__(cls, text: str, tone: Tone = Tone.PLAIN, words: str = "") -> Line:
        line = super().__new__(cls, text)
        line.tone, line.words = tone, words
        return line


@dataclass(frozen=True, slots=True)
class View:
    """What is shown at one moment.

    Attributes:
        done, total: in whatever the work counts.
        bytes_done: for the rate.
        detail: a few words after the bar.
        groups: of a replay, if they are to be shown.
        tone: of the bar.
    """

    done: int
    total: int
    bytes_done: int
    detail: str = ""
    groups: Sequence[GroupStatistics] = ()
    tone: Tone = Tone.GOOD


class Display:
    """Shows views of one piece of work; the terminal is used inside the `with` block only."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title = title
        self._quiet = quiet
        self._live: LiveView | None = None
        self._started = self._shown_at = clock.monotonic()

    def __enter__(self) -> Display:
        if not self._quiet and sys.stderr.isatty() and _can_be_drawn_on():
            from mirrortool.cli.richdisplay import LiveView

            with contextlib.suppress(OSError):  # the terminal has gone; the work continues
                self._live = LiveView(self._title)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            with contextlib.suppress(OSError):
                self._live.close()

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self._live is not None

    @property
    def width(self) -> int:
        """Of the terminal, in characters."""
        return self._live.width if self._live else WIDTH_DEFAULT

    def show(self, view: View) -> None:
        """Show a view; on a terminal at once, in a pipe a line now and then."""
        words = [self._rate(view), self._time_left(view), view.detail]
        if self._live:
            with contextlib.suppress(OSError):
                self._live.show(view, printable(" ".join(filter(None, words))))
        elif not self._quiet and clock.monotonic() - self._shown_at >= PLAIN_SECONDS:
            self._shown_at = clock.monotonic()
            percent = f"{100 * view.done // view.total} %" if view.total else ""
            self.note(" ".join(filter(None, [self._title, percent, *words])))

    def show_lines(self, lines: Sequence[str]) -> None:
        """Show lines on a terminal, a Line in its colour; nothing in a pipe, where they would fill a service's log."""
        if self._live:
            with contextlib.suppress(OSError):
                self._live.show_lines([_printable_line(line) for line in lines])

    def note(self, text: str) -> None:
        """A line for the person at the terminal; not part of the result."""
        if not self._quiet:
            tell(printable(text))

    def warn(self, text: str) -> None:
        """A line that is printed also when quiet."""
        tell(printable(f"mirrortool: {text}"))

    def _rate(self, view: View) -> str:
        elapsed = max(clock.monotonic() - self._started, 0.001)
        return f"{format_bytes(view.bytes_done / elapsed)}/s"

    def _time_left(self, view: View) -> str:
        elapsed = clock.monotonic() - self._started
        if not view.done or view.done >= view.total or elapsed < 1:
            return ""
        return f"{format_seconds(elapsed * (view.total - view.done) / view.done)} left"


def _printable_line(line: str) -> Line:
    if isinstance(line, Line):
        return Line(printable(line), line.tone, line.words)
    return Line(printable(line))


def _can_be_drawn_on() -> bool:
    """Whether the terminal can move its cursor; otherwise plain lines are printed, as into a pipe."""
    return os.environ.get("TERM", "") not in ("", "dumb", "unknown")
