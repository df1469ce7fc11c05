"""`mirrortool diff`."""

from __future__ import annotations

from contextlib import ExitStack

import click

from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.openstate import open_view_with_display
from mirrortool.cli.options import DIRECTORY, POINT, as_json, complete_point, complete_volume_name, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.text import counted, format_bytes, format_time, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.point import Until
from mirrortool.points.diff import Diff, DiffCancelled, DiffRange
from mirrortool.wording import exact_bytes


@click.command("diff")
@click.argument("journal", type=DIRECTORY)
@click.argument("volume", shell_complete=complete_volume_name)
@click.argument("first", metavar="FROM", type=POINT, shell_complete=complete_point)
@click.argument("second", metavar="TO", type=POINT, shell_complete=complete_point)
@click.option("--touched", is_flag=True, help="Print also what was written with the content that it had before.")
@click.option("--allow-fuzzy", is_flag=True, help="Also compare a fuzzy commit: a volume changed while it was scanned.")
@as_json
@quiet
@writes_in("journal")
def command(
    journal: str,
    volume: str,
    first: Until,
    second: Until,
    touched: bool,
    allow_fuzzy: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print which bytes of a volume differ between two commits of a journal.

    FROM and TO are LSNs, times or marks, as for replay --until; either may be the earlier one. Each line has an offset
    and a length in bytes, and whether that is data or zeros at TO.
    """
    opened = open_finished(journal)
    with ExitStack() as opening:
        old, new = (
            opening.enter_context(
                open_view_with_display(opened, point, allow_fuzzy=allow_fuzzy, doing="diff", quiet=quiet)
            )
            for point in (first, second)
        )
        diff = Diff(opened, old, new, volume, touched=touched)
        found = _run(diff, quiet)
        if as_json:
            print_json(_to_json(journal, diff, found))
            return
    for each in found:
        click.echo(f"{each.offset:<15} {each.length:<15} {'zero' if each.is_zero else 'data'}")
    if not quiet:
        _tell(diff, found)


def _run(diff: Diff, quiet: bool) -> list[DiffRange]:
    def view() -> View:
        now = diff.progress()
        if now.pages_total:
            return View(now.pages, now.pages_total, 0, counted(now.pages, "page") + " compared")
        return View(now.lsn, diff.last_lsn, 0, f"LSN {now.lsn}")

    with Display("diff", quiet=quiet) as display:
        runner = Runner(diff.run, diff.cancel, lambda: display.answer(view()))
        try:
            return runner.run(lambda: display.show(view()))
        except DiffCancelled:
            raise Interrupted(runner.signal_number, "stopped; nothing was printed") from None


def _tell(diff: Diff, found: list[DiffRange]) -> None:
    data, zero = (format_bytes(_bytes(found, is_zero)) for is_zero in (False, True))
    commits = " to ".join(
        f"LSN {view.commit.lsn} of {format_time(view.commit.time_ns)}" for view in (diff.first, diff.second)
    )
    tell(f"{commits}: {counted(len(found), 'range')}, {data} of data and {zero} of zeros")
    if diff.old.size != diff.new.size:
        tell(f"the size of the volume is {exact_bytes(diff.new.size)} there, in place of {exact_bytes(diff.old.size)}")


def _bytes(found: list[DiffRange], is_zero: bool) -> int:
    return sum(each.length for each in found if each.is_zero == is_zero)


def _to_json(journal: str, diff: Diff, found: list[DiffRange]) -> dict[str, object]:
    return {
        "journal": journal,
        "volume": diff.new.name,
        "from_lsn": diff.first.commit.lsn,
        "from_time_ns": diff.first.commit.time_ns,
        "from_size": diff.old.size,
        "to_lsn": diff.second.commit.lsn,
        "to_time_ns": diff.second.commit.time_ns,
        "to_size": diff.new.size,
        "data_bytes": _bytes(found, is_zero=False),
        "zero_bytes": _bytes(found, is_zero=True),
        "ranges": [{"offset": each.offset, "length": each.length, "is_zero": each.is_zero} for each in found],
    }
