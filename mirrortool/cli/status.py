"""`mirrortool status`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from mirrortool import clock
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, DURATION, as_json, verbose
from mirrortool.cli.signals import QUESTION, Signals
from mirrortool.cli.statusjson import to_json
from mirrortool.cli.statustext import lines_of
from mirrortool.cli.text import format_seconds, format_time, tell
from mirrortool.errors import LagError, MirrortoolError, UsageError
from mirrortool.status import Found, Unseen, Watch, lags_of, problems_of, worst

WATCH_SECONDS = 2.0


@click.command("status")
@click.argument("paths", metavar="PATH...", type=DIRECTORY, nargs=-1, required=True)
@click.option("--watch", "is_watching", is_flag=True, help="Show it again every two seconds, until a signal.")
@click.option(
    "--max-lag",
    type=DURATION,
    metavar="DURATION",
    help="Exit 50 if a mirror or copy is further behind, or its lag is not known.",
)
@as_json
@verbose
def command(paths: tuple[str, ...], is_watching: bool, max_lag: float | None, as_json: bool, verbose: bool) -> None:
    """Show the state of journals and mirrors, and of a running recorder.

    If something is wrong, everything is printed, and the exit code is that of the worst: first journals, then volumes
    and hosts, then lags.
    """
    with Watch() as watch:
        if is_watching:
            _watch(watch, paths, max_lag, as_json, verbose)
            return
        found = watch.look_at_all(paths)
    problem = worst([*(each for status in found for each in problems_of(status)), *_lag_problems(found, max_lag)])
    _show(found, as_json, problem, verbose)
    if problem:
        raise problem


def _watch(watch: Watch, paths: Sequence[str], max_lag: float | None, as_json: bool, verbose: bool) -> None:
    """Show everything again and again, until a signal stops it; damage does not end it.

    Raises:
        MirrortoolError: a path cannot be shown any more, or a lag is too large.
    """
    with Signals() as signals:
        while not signals.number:
            found = watch.look_at_all(paths)
            if not as_json:
                click.clear()
                click.echo(format_time(clock.now_ns()))
            unseen = [status.error for status in found if isinstance(status, Unseen)]
            problem = worst([*unseen, *_lag_problems(found, max_lag)])
            _show(found, as_json, problem, verbose)
            sys.stdout.flush()
            if problem:
                raise problem
            if signals.wait(WATCH_SECONDS) == QUESTION:
                _answer(found, verbose)


def _answer(found: Sequence[Found], verbose: bool) -> None:
    """Print the last look on standard error, where the answers of all commands go; it may be watched as JSON."""
    tell(format_time(clock.now_ns()))
    for each in found:
        for line in lines_of(each, None, verbose=verbose):
            tell(line)


def _lag_problems(found: Sequence[Found], max_lag: float | None) -> list[MirrortoolError]:
    """A LagError for each mirror and copy that is further behind, or whose lag is not known."""
    if max_lag is None:
        return []
    lags = [each for status in found for each in lags_of(status)]
    if not lags:
        return [UsageError("--max-lag needs a mirror among the paths, or a journal with slots")]
    return [error for name, seconds in lags if (error := _lag_error(name, seconds, max_lag))]


def _lag_error(name: str, seconds: float | None, max_lag: float) -> LagError | None:
    if seconds is None:
        return LagError("its lag is not known", where=name, remedy="mirrortool status of its journal says why")
    if seconds > max_lag:
        return LagError(f"{format_seconds(seconds)} behind, more than {format_seconds(max_lag)}", where=name)
    return None


def _show(found: Sequence[Found], as_json: bool, ends_with: MirrortoolError | None, verbose: bool) -> None:
    if as_json:
        values = [to_json(each) for each in found]
        print_json({**(values[0] if len(values) == 1 else {}), "paths": values})  # 0.1.0 had no paths for one
        return
    if len(found) == 1 and isinstance(found[0], Unseen):
        return  # the error says all
    for each in found:
        for line in lines_of(each, ends_with, verbose=verbose):
            click.echo(line)
