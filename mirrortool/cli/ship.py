"""`mirrortool ship`."""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from mirrortool import files
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, DURATION, POINT, POINT_METAVAR, RATE, as_json, complete_point, quiet
from mirrortool.cli.otherusers import tell_root
from mirrortool.cli.progressdisplay import Display, Line, Tone, View
from mirrortool.cli.servicestate import Service, metrics_file
from mirrortool.cli.text import (
    counted,
    fitted_columns,
    format_bytes,
    format_clock,
    format_seconds,
    printable,
    quoted,
    tell,
)
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import MirrortoolError, UsageError
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.directory import Journal
from mirrortool.journal.pointlookup import position_after
from mirrortool.journal.slots import check_name
from mirrortool.journal.tail import OBSERVERS
from mirrortool.metrics import Sample, ship_samples
from mirrortool.ship.destination import parse_destination
from mirrortool.ship.remote import PROGRAM
from mirrortool.ship.sender import Shipping
from mirrortool.ship.shiplag import ShipLag, ShipLags
from mirrortool.ship.shipoptions import ShipOptions
from mirrortool.ship.shipprogress import ShipStatistics

SILENCE_SECONDS_MIN = 15.0
"""A receiver says every 10 seconds that it is alive."""
BEHIND_SECONDS = 5.0
"""A copy that is further behind is shown so."""
REASONS_MAX = 8
"""Of one outage at most this many reasons are printed, each once: attempts may fail in several ways by turns."""


@click.command("ship")
@click.argument("journal", type=DIRECTORY)
@click.argument("destinations", metavar="DEST...", nargs=-1, required=True)
@click.option(
    "--follow", is_flag=True, help="Keep running: send what is recorded, through every outage, until stopped."
)
@click.option("--bwlimit", type=RATE, metavar="RATE", help="Send at most this much a second to each DEST, such as 10M.")
@click.option("--slot", metavar="NAME", help="Name of the slot in the journal.  [default: made of DEST]")
@click.option("--no-slot", is_flag=True, help="Register no slot: the journal keeps nothing for the copy.")
@click.option("--replace-slot", is_flag=True, help="The copy that had the slot is gone for good: begin a new one.")
@click.option("--rsh", metavar="COMMAND", help="Run this instead of ssh, with the host and the remote command.")
@click.option(
    "--remote-path", default=PROGRAM, show_default=True, metavar="PROGRAM", help="The program on the other host."
)
@click.option(
    "--timeout", type=DURATION, default="30s", show_default=True, metavar="DURATION",
    help="A connection that is silent for longer is broken.",
)  # fmt: skip
@click.option(
    "--after", type=POINT, metavar=POINT_METAVAR, shell_complete=complete_point,
    help="Into a pipe: begin after this LSN or mark, or with the first frame of this time.",
)  # fmt: skip
@click.option("--from", "old_after", type=POINT, metavar=POINT_METAVAR, hidden=True, help="The old name of --after.")
@click.option(
    "--observer",
    type=click.Choice(OBSERVERS),
    default="auto",
    show_default=True,
    help="How to notice that the journal grows.",
)
@metrics_file
@as_json
@quiet
def command(
    journal: str,
    destinations: tuple[str, ...],
    follow: bool,
    metrics_file: str | None,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Send a journal to a directory, to another host through ssh, or into a pipe (-).

    DEST becomes a copy of the journal, byte for byte, for replay, log, status and verify. What the copy has already is
    not sent again.
    """
    check_options(click.get_current_context().params)
    parsed = [parse_destination(each) for each in destinations]
    if any(each.is_pipe for each in parsed) and sys.stdout.isatty():
        raise UsageError("standard output is a terminal; send it into a pipe or a file")
    tell_root(journal, *(each.directory for each in parsed if each.directory), quiet=quiet)
    opened = open_finished(journal)
    options = _ship_options(opened, follow, values)
    rsh, program = _split_rsh(values["rsh"]), values["remote_path"]
    shipping = Shipping.open(
        journal, destinations, options, rsh=rsh, remote_program=program, observer=values["observer"]
    )
    to_stderr = any(each.is_pipe for each in parsed)
    try:
        stopped_by = _run(shipping, opened, follow, metrics_file, quiet)
    except MirrortoolError:
        # The error comes after what was done, if anything was.
        made = [each for each in shipping.statistics() if as_json or each.connections]
        _print(journal, made, as_json, to_stderr=to_stderr)
        raise
    shipped = shipping.statistics()
    _print(journal, shipped, as_json, to_stderr=to_stderr)
    if stopped_by and not follow:
        raise Interrupted(stopped_by, "stopped; the next ship resumes from there")
    directory = parsed[0].directory
    has_some = shipped[0].acknowledged and shipped[0].acknowledged.lsn
    if directory and not quiet and has_some:
        tell(f"next: mirrortool replay {quoted(directory)} MIRROR")


def check_options(values: Mapping[str, Any]) -> None:
    """Check that destinations and options which are each valid are valid together.

    Raises:
        UsageError: they do not.
    """
    destinations = [parse_destination(each) for each in values["destinations"]]
    slot = values["slot"]
    pipes = [each for each in destinations if each.is_pipe]
    if len({each.text for each in destinations}) < len(destinations):
        raise UsageError("a destination is named twice")
    if slot is not None:
        if values["no_slot"] or len(destinations) > 1:
            raise UsageError("--slot names the slot of one destination; not with several, nor with --no-slot")
        check_name(slot)
    if values["timeout"] < SILENCE_SECONDS_MIN:
        raise UsageError(f"--timeout is at least {SILENCE_SECONDS_MIN:.0f}s: a receiver speaks every 10 seconds")
    if values["after"] and values["old_after"]:
        raise UsageError("--from is the old name of --after; give only that")
    if (values["after"] or values["old_after"]) and len(pipes) < len(destinations):
        raise UsageError("--after is for a pipe (-); other destinations say themselves what they have")
    if pipes and values["as_json"]:
        raise UsageError("--json and a pipe (-) would both use standard output")
    _split_rsh(values["rsh"])  # raises what is wrong with it


def _ship_options(journal: Journal, follow: bool, values: Mapping[str, Any]) -> ShipOptions:
    after = values["after"] or values["old_after"]
    return ShipOptions(
        follow=follow,
        bytes_per_second=values["bwlimit"],
        silence_seconds=values["timeout"],
        slot=values["slot"],
        has_slot=not values["no_slot"],
        replace_slot=values["replace_slot"],
        start=None if after is None else position_after(journal, after),
    )


def _split_rsh(text: str | None) -> list[str] | None:
    if text is None:
        return None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--rsh {text!r}: {error}") from None
    if not words:
        raise UsageError("--rsh is empty")
    return words


def _run(shipping: Shipping, journal: Journal, follow: bool, metrics_file: str | None, quiet: bool) -> int:
    """Ship with a display; returns the signal that ended it, or 0."""
    with (
        ShipLags(journal) as lags,
        Display("ship", quiet=quiet) as display,
        Service(metrics_file, lambda _: _samples(shipping, journal, lags), display.warn) as service,
    ):
        watch = _Watch(display, shipping, lags, follow)

        def work() -> None:
            service.ready("shipping")  # destinations that are away come later
            shipping.run()

        def tick() -> None:
            watch.tick()
            service.tick(lambda: _status(shipping, lags))

        runner = Runner(work, service.before(shipping.stop), watch.answer)
        try:
            runner.run(tick)
        except MirrortoolError:
            watch.tell_failures()
            raise
    return runner.signal_number


def _samples(shipping: Shipping, journal: Journal, lags: ShipLags) -> list[Sample]:
    found = shipping.statistics()
    pairs = zip(found, lags.measure(found), strict=True)
    return [
        sample
        for statistics, lag in pairs
        for sample in _samples_of(files.absolute(journal.path), statistics, lag, lags)
    ]


def _samples_of(journal: str, statistics: ShipStatistics, lag: ShipLag, lags: ShipLags) -> list[Sample]:
    return ship_samples(
        journal,
        statistics.destination,
        connected=statistics.state in ("sending", "up to date", "waiting"),
        connects=statistics.connections,
        sent_bytes=statistics.bytes_sent,
        acknowledged_lsn=statistics.acknowledged.lsn if statistics.acknowledged else None,
        head_lsn=max(lags.head_lsn, statistics.head_lsn),
        lag_operations=lag.operations,
        lag_bytes=lag.bytes,
        lag_seconds=lag.seconds,
    )


def _status(shipping: Shipping, lags: ShipLags) -> str:
    """A phrase for each destination."""
    found = shipping.statistics()
    pairs = zip(found, lags.measure(found), strict=True)
    return "; ".join(
        f"{printable(statistics.destination)}: {statistics.state}{_describe(lag)}" for statistics, lag in pairs
    )


def _describe(lag: ShipLag) -> str:
    if not lag.operations or lag.bytes is None:
        return ""
    age = "" if lag.seconds is None else f" and {format_seconds(lag.seconds)}"
    return f", {counted(lag.operations, 'operation')}, {format_bytes(lag.bytes)}{age} behind"


class _Watch:
    """Shows the state of shipments."""

    def __init__(self, display: Display, shipping: Shipping, lags: ShipLags, follow: bool) -> None:
        self._display, self._shipping, self._lags, self._follow = display, shipping, lags, follow
        self._outages = Outages(display.warn, follow)

    def tick(self) -> None:
        found = self._shipping.statistics()
        for each in found:
            self._outages.look(each)
        if self._follow or len(found) > 1:
            if self._display.is_live:
                self._display.show_lines(self._table(found))
            return
        (one,) = found
        total = one.bytes_sent + one.bytes_left
        tone = tone_of(one.state, None)
        self._display.show(View(one.bytes_sent, total, one.bytes_sent, f"LSN {one.sent_lsn}", tone=tone))

    def answer(self) -> None:
        """Somebody asked (SIGUSR1)."""
        self._display.answer(*self._table(self._shipping.statistics()))

    def _table(self, found: Sequence[ShipStatistics]) -> list[Line]:
        return table_of(found, self._lags.measure(found), self._display.width)

    def tell_failures(self) -> None:
        """The errors of shipments, but for the one that the command ends with."""
        final_error = str(max(self._shipping.errors, key=lambda error: getattr(error, "exit_code", 100)))
        for error in self._shipping.errors:
            if str(error) != final_error:
                self._display.warn(str(error))


class Outages:
    """Tells when and why a shipment is interrupted, when the reason changes, and when it is connected again."""

    def __init__(self, warn: Callable[[str], None], follow: bool) -> None:
        self._warn = warn
        self._again = "; retrying" if follow else ""
        # The reasons told of the outage that a destination has; empty while it has none.
        self._told: dict[str, set[str]] = defaultdict(set)

    def look(self, statistics: ShipStatistics) -> None:
        """Look at a shipment's state."""
        destination, problem = statistics.destination, statistics.problem
        told = self._told[destination]
        if statistics.state == "ended":
            return
        if not problem and told:
            told.clear()
            self._warn(f"{destination}: connected again")
        elif problem and problem not in told and len(told) < REASONS_MAX:
            told.add(problem)
            is_named = problem.startswith((f"{destination}: ", f"the copy {destination}: "))
            self._warn(f"{'' if is_named else f'{destination}: '}{problem}{self._again}")


def table_of(found: Sequence[ShipStatistics], lags: Sequence[ShipLag], width: int) -> list[Line]:
    """A line for each destination, and one more for each that is away."""
    rows = [
        (
            each.destination,
            each.state,
            "-" if lag.seconds is None else format_seconds(lag.seconds),
            f"{format_bytes(each.rate)}/s",
            format_bytes(each.bytes_left),
            format_seconds(each.bytes_left / each.rate) if each.bytes_left and each.rate else "-",
            format_bytes(each.bytes_sent),
            str(each.acknowledged.lsn if each.acknowledged else "-"),
            str(each.head_lsn),
        )
        for each, lag in zip(found, lags, strict=True)
    ]
    headings = ("DEST", "STATE", "BEHIND", "RATE", "TO SEND", "TIME LEFT", "SENT", "COPY LSN", "JOURNAL LSN")
    dropped_first = ("JOURNAL LSN", "COPY LSN", "SENT", "TIME LEFT", "TO SEND", "RATE")
    heading, *lines = fitted_columns(headings, rows, width, dropped_first)
    shown = [Line(heading)]
    for line, each, lag in zip(lines, found, lags, strict=True):
        shown.append(Line(line, tone_of(each.state, lag.seconds), f"  {each.state}"))
        if each.state == "away":
            retry = "" if each.retry_seconds is None else f", next try in {each.retry_seconds:.0f} s"
            shown.append(Line(f"  away since {format_clock(each.away_since_ns)}{retry}: {each.problem}"))
    return shown


def tone_of(state: str, lag_seconds: float | None) -> Tone:
    """The colour of a shipment: yellow while it waits for the other side or is behind, red while that is away."""
    if state == "away":
        return Tone.BAD
    is_waiting = state in ("connecting", "waiting") or (lag_seconds or 0.0) >= BEHIND_SECONDS
    return Tone.WAITING if is_waiting else Tone.GOOD


def _print(journal: str, found: Sequence[ShipStatistics], as_json: bool, *, to_stderr: bool) -> None:
    if as_json:
        print_json({"journal": journal, "destinations": [_to_json(each) for each in found]})
        return
    for each in found:
        lsn = each.acknowledged.lsn if each.acknowledged else 0
        reached = f"up to LSN {lsn}" if lsn else "nothing"
        amount = format_bytes(each.bytes_sent)
        if to_stderr:
            tell(f"{reached} is sent, {amount}")
        else:
            click.echo(f"{printable(each.destination)}  has {reached}, {amount} sent")


def _to_json(statistics: ShipStatistics) -> dict[str, object]:
    values = asdict(statistics)
    acknowledged = values.pop("acknowledged")
    for inner in ("acknowledged_at", "away_since_ns", "retry_seconds"):
        values.pop(inner)
    return {**values, "acknowledged_lsn": acknowledged["lsn"] if acknowledged else None}
