"""Rates of counters, and the display of a live recording that shows them; with a clock that a test sets."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mirrortool import clock
from mirrortool.cli.rates import SPAN_SECONDS, Rates
from mirrortool.cli.recordnbd import _Watch
from mirrortool.nbd.statistics import ExportStatistics, ServerStatistics
from mirrortool.record.recorder import RecorderStatistics

MIB = 1 << 20


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(clock, "monotonic", lambda: self.now)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.usefixtures("at")
def test_a_first_reading_tells_no_rate() -> None:
    rates = Rates()
    assert rates.per_second("a", (5, 7)) == [0, 0]
    assert rates.per_second("a", (6, 9)) == [0, 0]  # at the same moment


def test_until_the_span_is_over_a_rate_is_that_since_the_first_reading(at: Clock) -> None:
    rates = Rates()
    rates.per_second("a", (100, 0))
    for second in range(1, int(SPAN_SECONDS) + 1):
        at.now += 1
        assert rates.per_second("a", (100 + 10 * second, 3 * second)) == [10, 3]


def test_a_burst_is_in_the_rate_for_the_span_and_then_gone(at: Clock) -> None:
    rates = Rates()
    seen = []
    for number in range(62):
        at.now += 0.25
        seen += rates.per_second("a", (1000 if number >= 40 else 0,))
    assert seen == [*[0] * 40, *[1000 / SPAN_SECONDS] * int(4 * SPAN_SECONDS), 0, 0]


def test_keys_are_apart(at: Clock) -> None:
    rates = Rates()
    rates.per_second("a", (0,))
    at.now += 2
    assert rates.per_second("b", (50,)) == [0]
    assert rates.per_second("a", (50,)) == [25]


def test_only_readings_of_the_span_are_kept(at: Clock) -> None:
    rates = Rates()
    for number in range(1000):
        at.now += 0.25
        rates.per_second("a", (number,))
    assert len(rates._readings["a"]) <= 4 * SPAN_SECONDS + 2


class Shown:
    """A display that keeps what it was shown last."""

    width = 100

    def __init__(self) -> None:
        self.lines: Sequence[str] = ()

    def show_lines(self, lines: Sequence[str]) -> None:
        self.lines = lines


def recorder_at(operations: int, journaled: int) -> RecorderStatistics:
    return RecorderStatistics(9, 9, 9, 9, 10**18, operations, 2 * journaled, journaled, 0, 0.0, "", ())


def server_at(writes: int, written: int) -> ServerStatistics:
    return ServerStatistics(1, 1, 0, (ExportStatistics("disk", 1, 0, writes, 0, written, 0, 0),), 0, 0, 0, 0)


def test_a_live_recording_shows_how_fast_clients_write_and_the_journal_grows(at: Clock) -> None:
    now = recorder_at(1000, 40 * MIB), server_at(900, 80 * MIB)
    recording = SimpleNamespace(
        recorder=SimpleNamespace(statistics=lambda: now[0]), statistics=lambda: now, initial_scan_problem=""
    )
    display = Shown()
    watch = _Watch(cast(Any, display), cast(Any, recording))
    watch.tick()
    at.now += 2
    now = recorder_at(1200, 45 * MIB), server_at(1000, 90 * MIB)
    watch.tick()
    headings, disk, journal = display.lines[:3]
    assert headings.split()[-2:] == ["writes/s", "written/s"]
    assert disk.split() == ["disk", "1", "1000", "90.0", "MiB", "0", "50", "5.0", "MiB/s"]
    assert journal == "45.0 MiB journaled, 0.50 of what was written; 100 operations/s, 2.5 MiB/s"
