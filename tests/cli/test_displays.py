"""What is drawn on a terminal: headings that stay at 60 columns, nothing lost, and colours that mean a state."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mirrortool.cli.progressdisplay import Display, Line, Tone, View
from mirrortool.cli.richdisplay import LiveView
from mirrortool.cli.ship import table_of
from mirrortool.cli.text import fitted_columns, format_latency
from mirrortool.journal.position import Position
from mirrortool.ship.shiplag import ShipLag
from mirrortool.ship.shipprogress import FilePlace, ShipProgress, ShipStatistics

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
