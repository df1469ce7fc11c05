"""`mirrortool base`."""

from __future__ import annotations

import click

from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, POINT, POINT_METAVAR, SIZE, as_json, complete_point, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.text import counted, format_bytes, format_time, quoted, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import UsageError
from mirrortool.journal.point import Until
from mirrortool.replay.makebase import BaseCancelled, MakeBase


@click.command("base")
@click.argument("journal", type=DIRECTORY)
@click.option(
    "--until", type=POINT, metavar=POINT_METAVAR, shell_complete=complete_point,
    help="Of the last commit at or before this.  [default: the newest]",
)  # fmt: skip
@click.option(
    "--at", "old_until", type=POINT, metavar=POINT_METAVAR, shell_complete=complete_point, hidden=True,
    help="The old name of --until.",
)  # fmt: skip
@click.option(
    "--max-size", type=SIZE, default="16T", show_default=True, metavar="SIZE",
    help="Refuse a journal if its volumes together are larger.",
)  # fmt: skip
@click.option(
    "--to", metavar="DIRECTORY", type=DIRECTORY,
    help="Make it in this directory, on another disk; the journal keeps a link.",
)  # fmt: skip
@as_json
@quiet
@writes_in("journal")
def command(
    journal: str,
    until: Until | None,
    old_until: Until | None,
    max_size: int,
    to: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a whole committed state of a journal into one file, so that older journal files can be removed.

    It is made from the journal alone, by replaying an older base and the journal after it. Recorders and readers may
    run meanwhile; no volume is read. While it is made, it needs about twice the space of what the volumes hold.
    """
    if until and old_until:
        raise UsageError("--at is the old name of --until; give only that")
    with (
        MakeBase(journal, until or old_until, max_bytes=max_size, to=to) as making,
        Display("base", quiet=quiet) as display,
    ):
        commit = making.commit
        display.note(f"base of the commit at LSN {commit.lsn} of {format_time(commit.time_ns)}")

        def view() -> View:
            now = making.statistics()
            done = now.replayed_bytes + now.pages * making.journal.page_size
            if now.pages_total:
                return View(now.pages, now.pages_total, done, counted(now.pages, "page") + " written")
            return View(now.lsn, commit.lsn, done, f"LSN {now.lsn}")

        runner = Runner(making.run, making.cancel, lambda: display.answer(view()))
        try:
            size = runner.run(lambda: display.show(view()))
        except BaseCancelled:
            raise Interrupted(runner.signal_number, "stopped; no base was made") from None
    if as_json:
        values = {"journal": journal, "lsn": commit.lsn, "time_ns": commit.time_ns, "bytes": size}
        print_json(values | {"state_sum": f"{commit.state_sum:016x}", "is_new": not making.exists})
    else:
        made = "commit at LSN {} already has a base" if making.exists else "base of the commit at LSN {}"
        click.echo(f"{made.format(commit.lsn)}  {format_time(commit.time_ns)}  {format_bytes(size)}")
    if not quiet:
        tell(f"next: mirrortool prune {quoted(journal)} --keep 7d")
