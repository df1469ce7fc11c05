"""What is drawn on a terminal: headings that stay at 60 columns, nothing lost, and colours that mean a state."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from mirrortool.cli.progressdisplay import Display, Estimate, Line, Tone, View
from mirrortool.cli.replayview import group_lines
from mirrortool.cli.richdisplay import LiveView
from mirrortool.cli.ship import table_of
from mirrortool.cli.text import fitted_columns, format_latency
from mirrortool.journal.position import Position
from mirrortool.replay.taskgroup import GroupStatistics
from mirrortool.ship.shiplag import ShipLag
from mirrortool.ship.shipprogress import FilePlace, ShipProgress, ShipStatistics
from tests.conftest import FakeClock

HEADINGS = ("export", "clients", "writes", "written", "flushes", "writes/s", "written/s")
ROW = ("disk", "1", "22812", "89.1 MiB", "2848", "4000", "15.6 MiB/s")
LEAST = ("flushes", "writes", "clients", "written")
REFUSED = "ssh: connect to host other.example.org port 22: No route to host"


def drawn(width: int, view: View | None = None, *lines: str, detail: str = "", colours: bool = False) -> str:
    """What a terminal of this width gets."""
    file = io.StringIO()
    system = "standard" if colours else None
    console = Console(file=file, width=width, force_terminal=True, color_system=system, legacy_windows=False)  # type: ignore[arg-type]
    live = LiveView("verify", console)
    file.truncate(file.seek(0))
    if view:
        live.show(view, detail)
    else:
        live.show_lines([line if isinstance(line, Line) else Line(line) for line in lines])
    text = file.getvalue()
    live.close()
    return text


def shipment(name: str, state: str, problem: str = "", retry: float | None = None) -> ShipStatistics:
    since = 1_764_361_234 * 10**9 if problem else 0
    return ShipStatistics(
        name,
        state,
        problem,
        "s",
        Position(7, 1),
        10**18,
        FilePlace(0, 0),
        7,
        9,
        1 << 30,
        3 << 20,
        float(1 << 20),
        1,
        since,
        retry,
    )


def table_at(width: int) -> list[Line]:
    found = [
        shipment("far:J", "sending"),
        shipment("backup@other.example.org:/srv/mirrors/J", "away", REFUSED, 12.4),
        shipment("/mnt/J", "up to date"),
    ]
    return table_of(found, [ShipLag(2, 7, 12.5), ShipLag(2, 7, 3600.0), ShipLag(0, 0, 0.0)], width)


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_table_keeps_its_headings_and_fits(width: int) -> None:
    table = fitted_columns(HEADINGS, [ROW], width, LEAST)
    assert max(map(len, table)) <= width
    assert {"export", "writes/s", "written/s"} <= set(table[0].split())
    assert len(table[0].split()) == len(table[1].replace(" MiB", "-MiB").split())


def test_a_wide_terminal_has_every_column() -> None:
    assert fitted_columns(HEADINGS, [ROW], 200, LEAST)[0].split() == list(HEADINGS)


@pytest.mark.parametrize("width", [60, 100, 200])
def test_ship_shows_the_lag_in_seconds_and_an_outage(width: int) -> None:
    heading, far, backup, away, local = table_at(width)
    assert max(map(len, (heading, far, backup, local))) <= width
    assert heading.split()[:3] == ["DEST", "STATE", "BEHIND"]
    assert (far.split()[:3], local.split()[1:4]) == (["far:J", "sending", "12.5"], ["up", "to", "date"])
    assert "away since 20:20:34, next try in 12 s: ssh: connect to host" in away
    assert [line.tone for line in (far, backup, local)] == [Tone.WAITING, Tone.BAD, Tone.GOOD]


@pytest.mark.parametrize("width", [60, 200])
def test_nothing_of_a_long_line_is_lost(width: int) -> None:
    line = f"  away since 20:20:34, next try in 12 s: {REFUSED}"
    text = drawn(width, None, line).replace("\n", " ").replace("\r", "")
    assert set(line.split()) <= set(text.split())


@pytest.mark.parametrize("width", [60, 200])
def test_nothing_beside_a_bar_is_lost(width: int) -> None:
    detail = "402.3 MiB/s 2.5 s left 1000000 pages differ"
    text = drawn(width, View(51, 100, 0), detail=detail)
    assert "51%" in text and detail in text


@pytest.mark.parametrize(("done", "percent"), [(0, "0%"), (995, "99%"), (999, "99%"), (1000, "100%")])
def test_a_bar_is_full_only_at_the_end(done: int, percent: str) -> None:
    assert f" {percent}" in drawn(60, View(done, 1000, 0))


def test_a_bar_of_which_the_whole_is_not_known_is_empty() -> None:
    text = drawn(60, View(7, 0, 0), detail="LSN 7", colours=True)
    assert "%" not in text and "\x1b[32m" not in text and "LSN 7" in text


def estimates(clock: FakeClock, *steps: tuple[float, int]) -> list[tuple[str, str]]:
    """What is told at each moment, in seconds, of work of 100 parts of 1 MiB of which that many are done."""
    estimate, told = Estimate(), []
    for clock.elapsed, done in steps:
        told.append(estimate.describe(View(done, 100, done << 20)))
    return told


def test_work_that_gets_on_in_steps_has_one_rate_from_step_to_step(fake_clock: FakeClock) -> None:
    """The time left runs down between two checkpoints, and is not known before the second."""
    assert estimates(fake_clock, (0, 0), (2, 0), (3, 1), (5, 1), (7, 21), (9, 21), (10.5, 21), (11, 41)) == [
        *[("", "")] * 4,
        ("5.0 MiB/s", "15.8 s left"),
        ("5.0 MiB/s", "13.8 s left"),
        ("5.0 MiB/s", "12.3 s left"),
        ("5.0 MiB/s", "11.8 s left"),
    ]


def test_a_step_that_takes_longer_than_any_before_makes_the_work_slower(fake_clock: FakeClock) -> None:
    told = estimates(fake_clock, (1, 10), (2, 20), (3, 20), (6, 20), (11, 20), (12, 100))
    assert told[1:5] == [
        ("10.0 MiB/s", "8.0 s left"),
        ("10.0 MiB/s", "7.0 s left"),
        ("2.5 MiB/s", "31.0 s left"),
        ("1.1 MiB/s", "1 min 11 s left"),
    ]
    assert told[5] == ("8.2 MiB/s", "")


def test_the_time_left_is_never_less_than_none(fake_clock: FakeClock) -> None:
    assert estimates(fake_clock, (1, 9), (6, 99), (7, 99))[2] == ("18.0 MiB/s", "0.0 s left")


def test_another_part_of_the_work_is_counted_anew(fake_clock: FakeClock) -> None:
    told = estimates(fake_clock, (1, 10), (9, 90), (10, 0), (11, 5), (13, 15))
    assert told[2:] == [("", ""), ("", ""), ("5.0 MiB/s", "17.0 s left")]


GROUP = GroupStatistics(
    number=0,
    tasks=8,
    active=3,
    parked=5,
    main_queue=12,
    mini_queues=4,
    units=1234,
    payload_bytes=5 << 20,
    direct=1000,
    delegated=200,
    waited=30,
    given_back=7,
)


def test_a_single_group_has_a_line_too() -> None:
    heading, line = group_lines([GROUP], 200)
    counts = ["direct", "delegated", "waited", "given", "back"]
    assert heading.split() == ["group", "busy", "main", "mini", "units", "written", *counts]
    assert line.split() == ["0", "3/8", "12", "4", "1234", "5.0", "MiB", "1000", "200", "30", "7"]


@pytest.mark.parametrize("width", [60, 80])
def test_the_lines_of_groups_fit(width: int) -> None:
    lines = group_lines([replace(GROUP, number=n, payload_bytes=n << 30) for n in range(4)], width)
    assert len(lines) == 5 and max(map(len, lines)) <= width
    assert {"group", "busy", "main", "mini", "delegated"} <= set(lines[0].split())


def test_groups_that_are_not_shown_are_counted() -> None:
    lines = group_lines([replace(GROUP, number=n) for n in range(20)], 80)
    assert len(lines) == 18 and lines[-1] == "and 4 more groups"


@pytest.mark.parametrize("width", [60, 200])
def test_lines_of_groups_stand_under_the_bar(width: int) -> None:
    lines = group_lines([GROUP], width)
    text = drawn(width, View(51, 100, 0, below=lines), detail="LSN 7")
    assert text.index("51%") < text.index(lines[0]) < text.index(lines[1])


@pytest.mark.parametrize(
    ("tone", "code"), [(Tone.GOOD, "\x1b[32m"), (Tone.WAITING, "\x1b[33m"), (Tone.BAD, "\x1b[31m")]
)
def test_a_bar_has_the_colour_of_its_state(tone: Tone, code: str) -> None:
    assert code in drawn(100, View(51, 100, 0, tone=tone), colours=True)


@pytest.mark.parametrize(("tone", "code"), [(Tone.GOOD, "30;42"), (Tone.WAITING, "30;43"), (Tone.BAD, "1;37;41")])
def test_words_of_a_state_have_a_ground_of_its_colour(tone: Tone, code: str) -> None:
    text = drawn(100, None, Line("far:J  away  1 s", tone, "  away"), colours=True)
    assert f"\x1b[{code}maway\x1b[0m" in text
    assert "\x1b[" not in drawn(100, None, Line("far:J", Tone.PLAIN), colours=True).split("far:J")[0][-1:]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("term", "is_live"), [("dumb", False), ("unknown", False), ("", False), ("xterm", True)])
def test_a_terminal_that_cannot_be_drawn_on_gets_plain_lines(
    term: str, is_live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr", Terminal())
    with Display("replay", quiet=False) as display:
        assert display.is_live == is_live


def test_who_asks_gets_a_line_also_of_a_quiet_display(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("scan", quiet=True) as display:
        display.show(View(51, 100, 0))
        display.answer(View(51, 100, 0, "LSN 7"), "a\tb")
    assert capsys.readouterr().err == "scan 51 % LSN 7\na\\tb\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = drawn(100, None, Line("away", Tone.BAD), colours=True)
    assert "41m" not in text and "37" not in text


@pytest.mark.parametrize(("seconds", "text"), [(0.0004, "0.4 ms"), (0.0123, "12 ms"), (0.5, "500 ms"), (2.5, "2.5 s")])
def test_what_is_short_is_told_in_milliseconds(seconds: float, text: str) -> None:
    assert format_latency(seconds) == text


def test_an_outage_has_one_beginning_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10**18]
    monkeypatch.setattr("mirrortool.ship.shipprogress.clock.now_ns", lambda: now[0])
    progress = ShipProgress("far:J")
    progress.away("refused")
    now[0] += 10**9
    progress.away("no route")
    progress.retries_in(4.0)
    shown = progress.statistics()
    assert (shown.away_since_ns, shown.problem) == (10**18, "no route")
    assert shown.retry_seconds is not None and 3.0 < shown.retry_seconds <= 4.0
    progress.connected()
    assert (progress.statistics().away_since_ns, progress.statistics().retry_seconds) == (0, None)
