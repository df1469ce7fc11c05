"""Progress: live on a terminal, plain lines elsewhere, nothing when quiet. Everything here goes to stderr.

rich is loaded only for a terminal (richdisplay.py).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirrortool import clock
from mirrortool.cli.text import format_bytes, format_seconds, printable, tell
from mirrortool.replay.taskgroup import GroupStatistics

if TYPE_CHECKING:
    from mirrortool.cli.richdisplay import LiveView

PLAIN_SECONDS = 10.0
"""In a pipe a progress line comes this often."""


@dataclass(frozen=True, slots=True)
class View:
    """What is shown at one moment.

    Attributes:
        done, total: in whatever the work counts.
        bytes_done: for the rate.
        detail: a few words after the bar.
        groups: of a replay.
    """

    done: int
    total: int
    bytes_done: int
    detail: str = ""
    groups: Sequence[GroupStatistics] = ()


class Display:
    """Shows views of one piece of work; the terminal is used inside the `with` block only."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title = title
        self._quiet = quiet
        self._live: LiveView | None = None
        self._started = self._shown_at = clock.monotonic()

    def __enter__(self) -> Display:
        if not self._quiet and sys.stderr.isatty():
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

    def show(self, view: View) -> None:
        """Show a view; on a terminal at once, in a pipe a line now and then."""
        words = [self._rate(view), self._time_left(view), view.detail]
        if self._live:
            with contextlib.suppress(OSError):
                self._live.show(view.done, view.total, printable(" ".join(filter(None, words))), view.groups)
        elif not self._quiet and clock.monotonic() - self._shown_at >= PLAIN_SECONDS:
            self._shown_at = clock.monotonic()
            percent = f"{100 * view.done // view.total} %" if view.total else ""
            self.note(" ".join(filter(None, [self._title, percent, *words])))

    def show_lines(self, lines: Sequence[str]) -> None:
        """Show lines on a terminal; nothing in a pipe, where a service's log would fill with them."""
        if self._live:
            with contextlib.suppress(OSError):
                self._live.show_lines([printable(line) for line in lines])

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
