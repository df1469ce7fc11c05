"""`mirrortool volume`."""

from __future__ import annotations

import click

from mirrortool import files
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, NAMED_PATH, as_json, complete_volume, quiet
from mirrortool.cli.text import printable, quoted, tell
from mirrortool.errors import UsageError
from mirrortool.record.relocate import set_volume_paths


@click.group("volume", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Tell a journal where its volumes are now."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("set")
@click.argument("journal", type=DIRECTORY)
@click.argument(
    "volumes", metavar="NAME=PATH...", nargs=-1, required=True, type=NAMED_PATH, shell_complete=complete_volume
)
@as_json
@quiet
def set_path(journal: str, volumes: tuple[tuple[str, str], ...], as_json: bool, quiet: bool) -> None:
    """Tell the journal that a volume was moved: the next record looks for it there.

    Nothing is recorded. Record checks that it is the volume, and not another file or device.
    """
    paths = dict(volumes)
    if len(paths) < len(volumes):
        raise UsageError("a volume is named twice")
    before = set_volume_paths(journal, paths)
    if as_json:
        values = [{"name": name, "path": files.absolute(path), "was": before.get(name)} for name, path in paths.items()]
        print_json({"journal": journal, "volumes": values})
    else:
        for name, path in paths.items():
            was = f", was at {printable(before[name])}" if name in before else ""
            click.echo(f"volume {name} is at {printable(files.absolute(path))}{was}")
    if not quiet:
        tell(f"next: mirrortool record {quoted(journal)}")
