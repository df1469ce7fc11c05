"""Amounts, counts and paths as people and shells read them."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.wording import counted, exact_bytes, format_bytes, format_seconds, quoted_word


@pytest.mark.parametrize(
    ("number", "short", "exact"),
    [
        (0, "0 B", "0 B"),
        (1023, "1023 B", "1023 B"),
        (1024, "1.0 KiB", "1.0 KiB"),
        (1536, "1.5 KiB", "1.5 KiB"),
        (1 << 30, "1.0 GiB", "1.0 GiB"),
        ((1 << 30) + 1, "1.0 GiB", "1.0 GiB (1073741825 bytes)"),
        (1 << 60, "1024.0 PiB", "1024.0 PiB"),
    ],
)
def test_bytes(number: int, short: str, exact: str) -> None:
    assert (format_bytes(number), exact_bytes(number)) == (short, exact)


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62))
def test_sizes_that_differ_look_different(one: int, other: int) -> None:
    assert (exact_bytes(one) == exact_bytes(other)) == (one == other)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (3600, "1 h 00 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_counts() -> None:
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert counted(2, "entry", "entries") == "2 entries"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_shell_and_our_command_line_take_a_path(path: str) -> None:
    (word,) = shlex.split(quoted_word(path))
    assert word in (path, f"./{path}") and not word.startswith("-")
