"""`mirrortool mark`."""

from __future__ import annotations

import click

from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, Value, as_json, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.text import quoted, tell
from mirrortool.errors import UsageError
from mirrortool.journal.point import MARK_NAMES, is_mark_name
from mirrortool.record.mark import mark


def parse_mark(text: str) -> str:
    """A mark's name."""
    if not is_mark_name(text):
        raise ValueError(f"{text!r} is not a mark: {MARK_NAMES}")
    return text


class _Mark(click.Command):
    """`mark JOURNAL`, without a name, is told what is missing, and where the marks are listed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter as error:
            journal = ctx.params.get("journal")
            if journal is None or error.param is None or error.param.name != "name":
                raise
            path = quoted(journal)
            raise UsageError(
                "the name of the mark is missing",
                remedy=f"mirrortool mark {path} NAME makes one, mirrortool log {path} lists them",
            ) from None


@click.command("mark", cls=_Mark)
@click.argument("journal", type=DIRECTORY)
@click.argument("name", type=Value("mark", parse_mark))
@as_json
@quiet
@writes_in("journal")
def command(journal: str, name: str, as_json: bool, quiet: bool) -> None:
    """Give the newest state of a journal a name, for replay --until.

    That is what a running recorder has acknowledged, or the newest commit if none is running. A name that was given
    before means the newest commit with it from now on.
    """
    position = mark(journal, name)
    if as_json:
        print_json({"journal": journal, "mark": name, "lsn": position.lsn, "chain": f"{position.chain:016x}"})
    else:
        click.echo(f"mark {name} at LSN {position.lsn}")
    if not quiet:
        tell(f"next: mirrortool replay {quoted(journal)} MIRROR --until {name}")
