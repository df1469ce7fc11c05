"""Amounts, durations, counts and paths as people read them, in messages of every layer.

Not here: whether a text is safe to show (cli/text.py).
"""

from __future__ import annotations

import shlex

_MIB = 1 << 20
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(count: float) -> str:
    """Bytes in the largest unit that leaves a digit before the point."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def exact_bytes(count: int) -> str:
    """The same, with all digits after it unless it says exactly that: sizes that differ by a byte look different."""
    short = format_bytes(count)
    number, unit = short.split()
    is_exact = float(number) * 1024 ** _UNITS.index(unit) == count
    return short if is_exact else f"{short} ({counted(count, 'byte')})"


def byte_count(count: int) -> str:
    """A number of bytes with all digits, for errors; from 1 MiB on after the size as people read it."""
    digits = counted(count, "byte")
    return digits if count < _MIB else f"{format_bytes(count)} ({digits})"


def format_seconds(seconds: float) -> str:
    """A duration as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """A number of things: "1 file", "2 files"; `things` where the plural is not made with an s."""
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"


def quoted_word(text: str) -> str:
    """A path as a shell and our own command line take it: one that begins with a dash is not an option."""
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
