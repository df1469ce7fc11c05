"""Text for people: safe to show, times and amounts as they read them, columns."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from mirrortool import times
from mirrortool.wording import counted as counted
from mirrortool.wording import format_bytes as format_bytes
from mirrortool.wording import format_seconds as format_seconds
from mirrortool.wording import quoted_word

_NAME_CHARACTERS_MIN = 12


def printable(text: str) -> str:
    """Text in one line that no terminal obeys: control characters and bytes that are not UTF-8 are escaped."""
    with contextlib.suppress(UnicodeEncodeError):  # JSON can hold a surrogate that stands for no byte
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(path: str) -> str:
    """A path as it is written in a shell, in one line."""
    return printable(quoted_word(path))


def tell(text: str) -> None:
    """A line on standard error for the person at the terminal. A failure to print it must not stop the work."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # the last: a signal came while a line was written
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def format_time(time_ns: int) -> str:
    """A time as people read it; 0 stands for none, as of a mirror into which nothing was replayed yet."""
    return times.format_time(time_ns) if time_ns else "no time"


def format_clock(time_ns: int) -> str:
    """The time of day."""
    return format_time(time_ns)[11:19]


def describe_silence(heard_ns: int, silent: float | None) -> str:
    """When a primary was last heard of, if that is long ago, as a phrase."""
    if silent is None:
        return ""
    return f"the last word of the primary is of {format_time(heard_ns)}: silent for {format_seconds(silent)}"


def describe_ahead(heard_ns: int, ahead: float | None) -> str:
    """That a journal's times are ahead of this host's clock, if they are, as a phrase."""
    if ahead is None:
        return ""
    return (
        f"its times are ahead of this host's clock by {format_seconds(ahead)}, and stay at "
        f"{format_time(heard_ns)} until this clock has reached that: a clock was set wrong"
    )


def format_latency(seconds: float) -> str:
    """How long something that should be short took."""
    if seconds >= 1:
        return format_seconds(seconds)
    return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"


def fitted_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, dropped_first: Sequence[str]
) -> list[str]:
    """A table for a terminal of this width: columns are left out, by their headings in the order of `dropped_first`.

    If that is not enough, the first column keeps the ends of its cells.
    """
    kept, left_out = list(range(len(headings))), list(dropped_first)
    while True:
        table = columns([headings[i] for i in kept], [[row[i] for i in kept] for row in rows])
        excess = max(map(len, table)) - width
        if excess <= 0:
            return table
        if not left_out:
            break
        kept.remove(headings.index(left_out.pop(0)))
    names = [printable(row[0]) for row in rows]
    longest = max(_NAME_CHARACTERS_MIN, max(map(len, names)) - excess)
    short = [name if len(name) <= longest else f"…{name[1 - longest :]}" for name in names]
    cut = [[name, *(row[i] for i in kept[1:])] for name, row in zip(short, rows, strict=True)]
    return columns([headings[i] for i in kept], cut)


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, as wide as they need to be, so that a pipe or a narrow terminal loses nothing."""
    cells = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
