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
        done, total: in whatever the work counts; a total of 0 is not known.
        bytes_done: for the rate.
        detail: a few words after the bar.
        below: lines under the bar; on a terminal only.
        tone: of the bar.
    """

    done: int
    total: int
    bytes_done: int
    detail: str = ""
    below: Sequence[str] = ()
    tone: Tone = Tone.GOOD


class Estimate:
    """The rate and the time left of one piece of work, also where it gets on in steps, as a replay at its checkpoints.

    Both are averages from the first step to the newest one: what comes before the first, such as to open files, tells
    nothing of the steps. The time left runs down until the next step; but a step that takes longer than any before it
    makes the work slower from then on.
    """

    def __init__(self) -> None:
        self._begin(clock.monotonic(), 0, 0)

    def _begin(self, now: float, done: int, bytes_done: int) -> None:
        self._first: tuple[float, int, int] | None = None  # when the first step was, and what was done then
        self._step = done, bytes_done  # the newest
        self._stepped_at = now
        self._longest = 0.0  # seconds of a step

    def describe(self, view: View) -> tuple[str, str]:
        """The rate and the time left, as phrases; empty where they are not known yet."""
        now, done, bytes_done = clock.monotonic(), view.done, view.bytes_done
        if done < self._step[0]:  # another part of the work, which is counted anew
            self._begin(now, done, bytes_done)
        if (done, bytes_done) != self._step:
            self._first = self._first or (now, done, bytes_done)
            self._longest = max(self._longest, now - self._stepped_at)
            self._step, self._stepped_at = (done, bytes_done), now
        measured_at = max(self._stepped_at, now - self._longest)
        first_at, first_done, first_bytes = self._first or (now, done, bytes_done)
        elapsed = measured_at - first_at
        rate = f"{format_bytes((bytes_done - first_bytes) / max(elapsed, 0.001))}/s" if bytes_done > first_bytes else ""
        if not first_done < done < view.total or elapsed < 1:
            return rate, ""
        left = elapsed * (view.total - done) / (done - first_done) - (now - measured_at)
        return rate, f"{format_seconds(max(left, 0.0))} left"


class Display:
    """Shows views of one piece of work; the terminal is used inside the `with` block only."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title = title
        self._quiet = quiet
        self._live: LiveView | None = None
        self._estimate = Estimate()
        self._shown_at = clock.monotonic()

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
        """Of the terminal, in characters; elsewhere nothing has to be cut."""
        return self._live.width if self._live else sys.maxsize

    def show(self, view: View) -> None:
        """Show a view; on a terminal at once, in a pipe a line now and then."""
        words = self._words(view)
        if self._live:
            with contextlib.suppress(OSError):
                self._live.show(view, printable(words))
        elif not self._quiet and clock.monotonic() - self._shown_at >= PLAIN_SECONDS:
            self._shown_at = clock.monotonic()
            self.note(self._line(view, words))

    def show_lines(self, lines: Sequence[str]) -> None:
        """Show lines on a terminal, a Line in its colour; nothing in a pipe, where they would fill a service's log."""
        if self._live:
            with contextlib.suppress(OSError):
                self._live.show_lines([_printable_line(line) for line in lines])

    def answer(self, *state: View | str) -> None:
        """Print a state as lines, also when quiet: somebody asked (SIGUSR1)."""
        for each in state:
            lines = [self._line(each, self._words(each)), *each.below] if isinstance(each, View) else [each]
            for line in lines:
                tell(printable(line))

    def note(self, text: str) -> None:
        """A line for the person at the terminal; not part of the result."""
        if not self._quiet:
            tell(printable(text))

    def warn(self, text: str) -> None:
        """A line that is printed also when quiet."""
        tell(printable(f"mirrortool: {text}"))

    def _line(self, view: View, words: str) -> str:
        percent = f"{100 * view.done // view.total} %" if view.total else ""
        return " ".join(filter(None, [self._title, percent, words]))

    def _words(self, view: View) -> str:
        """What stands beside the bar; to be asked for at each look, as rates come from that."""
        return " ".join(filter(None, [*self._estimate.describe(view), view.detail]))


def _printable_line(line: str) -> Line:
    if isinstance(line, Line):
        return Line(printable(line), line.tone, line.words)
    return Line(printable(line))


def _can_be_drawn_on() -> bool:
    """Whether the terminal can move its cursor; otherwise plain lines are printed, as into a pipe."""
    return os.environ.get("TERM", "") not in ("", "dumb", "unknown")
