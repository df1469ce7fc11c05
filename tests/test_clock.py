"""The clock is the host's, in the units that its names say."""

from __future__ import annotations

import time

import pytest

from mirrortool import clock


def test_now_is_the_hosts_time_in_nanoseconds() -> None:
    before = time.time_ns()
    assert before <= clock.now_ns() <= time.time_ns()


def test_monotonic_never_steps_back() -> None:
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


def test_sleep_takes_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    clock.sleep(0.25)
    assert slept == [0.25]


ZONES = [
    ("UTC", (2024, 7, 1, 12, 0, 0), 1719835200, 0),
    ("CET-1CEST,M3.5.0,M10.5.0/3", (2024, 7, 1, 12, 0, 0), 1719828000, 7200),
    ("CET-1CEST,M3.5.0,M10.5.0/3", (2024, 1, 1, 12, 0, 0), 1704106800, 3600),
    ("EST5EDT,M3.2.0,M11.1.0", (2024, 1, 1, 0, 0, 0), 1704085200, -18000),
]


@pytest.mark.parametrize(("zone", "wall", "seconds", "offset"), ZONES)
def test_local_times_are_those_of_the_hosts_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str, wall: tuple[int, int, int, int, int, int], seconds: int, offset: int
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert clock.local_seconds(*wall) == seconds
        assert clock.utc_offset_seconds(seconds) == offset
    finally:
        monkeypatch.undo()
        time.tzset()
