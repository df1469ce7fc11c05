"""A printed time is understood, and means that time; what a clock never showed, or showed twice, is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mirrortool import clock
from mirrortool.times import Moment, NotATimeError, format_time, parse_duration, parse_moment

S = 10**9
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
ZONES = ["UTC", BERLIN, "NST3:30NDT,M3.2.0,M11.1.0", "<+0545>-5:45", "LMT-0:19:32", "AEST-10AEDT,M10.1.0,M4.1.0/3"]
NOW = 1_764_343_696  # 2025-11-28 15:28:16 UTC

SetZone = Callable[[str], None]
examples = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def set_zone() -> Iterator[SetZone]:
    with pytest.MonkeyPatch.context() as patch:

        def to(zone: str) -> None:
            patch.setenv("TZ", zone)
            time.tzset()

        yield to
    time.tzset()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch, set_zone: SetZone) -> None:
    set_zone(BERLIN)
    monkeypatch.setattr(clock, "now_ns", lambda: NOW * S + 5)


@examples
@given(st.integers(0, (1 << 63) - 1) | st.integers(NOW * S, (NOW + 400 * 86400) * S), st.sampled_from(ZONES))
@example(1_792_888_245_123_456_789, BERLIN)  # in the hour that is there twice
def test_a_printed_time_means_the_millisecond_of_which_it_was_printed(
    set_zone: SetZone, time_ns: int, zone: str
) -> None:
    set_zone(zone)
    assert parse_moment(format_time(time_ns)) == Moment(time_ns // 10**6 * 10**6, 10**6)
    assert parse_moment(f"@{time_ns // S}.{time_ns % S:09d}") == Moment(time_ns)
    if time_ns > 10**10:
        assert parse_moment(f"@{time_ns}") == Moment(time_ns)


@examples
@given(st.integers(-400 * 24 * 60, 400 * 24 * 60), st.sampled_from(ZONES))
@example(87 * 24 * 60 + 150, BERLIN)  # left out
@example(297 * 24 * 60 + 150, BERLIN)  # twice
def test_a_local_time_is_the_one_at_which_the_clocks_show_it(set_zone: SetZone, minutes: int, zone: str) -> None:
    """Against every instant near it, one by one."""
    set_zone(zone)
    wall = datetime(2026, 1, 1) + timedelta(minutes=minutes)
    text = f"{wall:%Y-%m-%d %H:%M}"
    as_utc = int((wall - datetime(1970, 1, 1)).total_seconds())
    shown = [
        seconds
        for seconds in (as_utc - offset for offset in (*range(-12 * 3600, 13 * 3600, 900), -11852, 1172))
        if time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) == f"{text}:00"
    ]
    if len(shown) == 1:
        assert parse_moment(text) == Moment(shown[0] * S)
    else:
        with pytest.raises(ValueError, match="twice" if shown else "never there"):
            parse_moment(text)


FORMS = [
    ("2025-11-28", Moment(1764284400 * S)),
    ("2025-11-28 16:28:16", Moment(NOW * S)),
    ("2025-11-28T15:28:16Z", Moment(NOW * S)),
    ("2025-11-28t15:28:16z", Moment(NOW * S)),
    ("  2025-11-28 15:28:16 Z ", Moment(NOW * S)),
    ("2025-11-28 10:28:16-05:00", Moment(NOW * S)),
    ("2025-11-28 10:28:16-0500", Moment(NOW * S)),
    ("2025-11-28 15:47:48+00:19:32", Moment(NOW * S)),
    ("2025-11-28T15:28:16.5Z", Moment(NOW * S + 5 * 10**8, 10**8)),
    ("2025-11-28T15:28:16.123456789Z", Moment(NOW * S + 123456789)),
    ("14:30", Moment((NOW - 58 * 60 - 16 - 3600) * S)),
    ("9:05:01", Moment((NOW - 7 * 3600 - 23 * 60 - 15) * S)),
    ("today 16:28:16.25", Moment(NOW * S + 25 * 10**7, 10**7)),
    ("yesterday 16:28:16", Moment((NOW - 86400) * S)),
    ("Yesterday 15:28:16Z", Moment((NOW - 86400) * S)),
    ("00:10+09:00", Moment((NOW - 18 * 60 - 16) * S)),
    ("@0", Moment(0)),
    ("@1764343696", Moment(NOW * S)),
    ("@1764343696.1", Moment(NOW * S + 10**8, 10**8)),
    ("@1764343696000000001", Moment(NOW * S + 1)),
    ("-10m", Moment((NOW - 600) * S + 5)),
    ("-0s", Moment(NOW * S + 5)),
    ("-1.5h", Moment((NOW - 5400) * S + 5)),
]


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(("text", "moment"), FORMS)
def test_every_form_is_understood(text: str, moment: Moment) -> None:
    assert parse_moment(text) == moment


@pytest.mark.usefixtures("now")
def test_today_ends_at_midnight_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half past eleven in the evening in Greenwich it is tomorrow already."""
    monkeypatch.setattr(clock, "now_ns", lambda: (NOW + 8 * 3600) * S)
    assert format_time(parse_moment("00:10").time_ns) == "2025-11-29 00:10:00.000+0100"
    assert format_time(parse_moment("yesterday 23:00").time_ns) == "2025-11-28 23:00:00.000+0100"
    assert format_time(parse_moment("23:00Z").time_ns) == "2025-11-29 00:00:00.000+0100"


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-03-29 02:30", ["never there", "'2026-03-29 02:30:00+0100' or '2026-03-29 02:30:00+0200'"]),
        ("2026-10-25 02:30:07.25", ["twice", "'2026-10-25 02:30:07.25+0200' or '2026-10-25 02:30:07.25+0100'"]),
        ("2026-02-30", ["there is no time"]),
        ("2026-11-23 24:00", ["there is no time"]),
        ("25:00", ["there is no time"]),
        ("2026-11-23 10:00+10:60", ["there is no time"]),
        ("2026-11-23 10:00+24:00", ["there is no time"]),
        ("@9999999999999999999.5", ["later than any time"]),
        ("-9999999999w", ["hundred years"]),
    ],
)
def test_what_no_clock_shows_or_shows_twice_is_refused(text: str, said: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        parse_moment(text)
    assert not isinstance(caught.value, NotATimeError)
    assert all(each in str(caught.value) for each in said)


@pytest.mark.usefixtures("now")
def test_what_is_told_to_write_in_its_place_means_two_instants() -> None:
    for text in ("2026-03-29 02:30", "2026-10-25 02:30:07.25"):
        with pytest.raises(ValueError) as caught:
            parse_moment(text)
        first, second = (parse_moment(each).time_ns for each in str(caught.value).split("'")[-4::2])
        assert abs(first - second) == 3600 * S


@pytest.mark.parametrize(
    "text", ["", "x", "-", "-1", "@", "@x", "@-1", "@1.", "14", "14:3", "noon", "2026-11", "٢٠٢٦-01-01"]
)
def test_what_is_no_time_is_told_apart(text: str) -> None:
    with pytest.raises(NotATimeError):
        parse_moment(text)


def test_durations() -> None:
    assert [parse_duration(each) for each in ("30s", "1.5m", "2h", "7d", "1w")] == [30, 90, 7200, 604800, 604800]
    for text in ("", "1", "m", "-1s", "1y", "1 s"):
        with pytest.raises(ValueError):
            parse_duration(text)
