"""`mirrortool backing`."""

from __future__ import annotations

import click

from mirrortool import files
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import BACK, DIRECTORY, as_json, group, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.text import columns, counted, format_bytes, printable, quoted, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.keptbacking import BackTarget
from mirrortool.mirror.managebackings import BackingUse, DrainBacking, add_backing, list_backings, remove_backing


@click.group("backing", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List what the volumes of a mirror lie on, add to it, and take away from it.

    A backing is a file or block device that replay --back named. What is written to a mirror lies there in extents.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("list")
@click.argument("mirror", type=DIRECTORY)
@as_json
def list_all(mirror: str, as_json: bool) -> None:
    """List the backings of a mirror: how large each is, how much of it is used, and whether it is there."""
    opened = Mirror(mirror)
    listed = list_backings(opened)
    assert opened.backings is not None
    extent = opened.backings.extent_bytes
    if as_json:
        print_json({"mirror": mirror, "extent": extent, "backings": [_to_json(each, extent) for each in listed]})
        return
    rows = [_row(each, extent) for each in listed]
    for line in columns(["uuid", "size", "used", "free", "state", "path"], rows):
        click.echo(line)
    click.echo(f"extents of {format_bytes(extent)}")


@command.command("add")
@click.argument("mirror", type=DIRECTORY)
@click.argument("target", type=BACK)
@click.option("--overwrite", is_flag=True, help="Allow it to overwrite what is there.")
@click.option("--raw", is_flag=True, help="With --overwrite: also an image in a container format, such as qcow2.")
@group
@as_json
@quiet
@writes_in("mirror")
def add(
    mirror: str, target: BackTarget, overwrite: bool, raw: bool, group: int | None, as_json: bool, quiet: bool
) -> None:
    """Give a mirror one more backing: TARGET is PATH, or PATH:SIZE. No replay may be running."""
    opened = Mirror(mirror)
    added = add_backing(opened, target, overwrite=overwrite, raw=raw, group=group)
    assert opened.backings is not None
    if as_json:
        print_json(_to_json(added, opened.backings.extent_bytes))
    else:
        click.echo(f"added backing {_describe(added, opened.backings.extent_bytes)}")
    if not quiet:
        tell(f"next: mirrortool replay {quoted(opened.journal_path)} {quoted(mirror)}")


@command.command("drain")
@click.argument("mirror", type=DIRECTORY)
@click.argument("backing", metavar="UUID|PATH")
@as_json
@quiet
@writes_in("mirror")
def drain(mirror: str, backing: str, as_json: bool, quiet: bool) -> None:
    """Move all that lies on a backing to the others, so that it can be removed. No replay may be running.

    It gets nothing more from then on. What is interrupted is continued by the same command.
    """
    opened = Mirror(mirror)
    with DrainBacking(opened, backing) as draining, Display("drain", quiet=quiet) as display:
        assert opened.backings is not None
        extent, total = opened.backings.extent_bytes, draining.total

        def view() -> View:
            done = total - draining.left
            return View(done, total, done * extent, f"{counted(done, 'extent')} moved")

        runner = Runner(draining.run, draining.cancel, lambda: display.answer(view()))
        left = runner.run(lambda: display.show(view()))
        short = draining.kept.short
    if as_json:
        print_json({"mirror": mirror, "uuid": draining.kept.uuid.hex(), "moved": total - left, "left": left})
    else:
        click.echo(f"moved {counted(total - left, 'extent')} from backing {short} to the others")
    if left:
        raise Interrupted(
            runner.signal_number, f"stopped with {counted(left, 'extent')} left; the same command continues"
        )
    if not quiet:
        tell(f"next: mirrortool backing remove {quoted(mirror)} {short}")


@command.command("remove")
@click.argument("mirror", type=DIRECTORY)
@click.argument("backing", metavar="UUID|PATH")
@as_json
@quiet
@writes_in("mirror")
def remove(mirror: str, backing: str, as_json: bool, quiet: bool) -> None:
    """Take a backing away on which nothing lies. No replay may be running."""
    removed = remove_backing(Mirror(mirror), backing)
    if as_json:
        print_json({"mirror": mirror, "uuid": removed.uuid.hex(), "path": removed.path})
    else:
        click.echo(f"removed backing {removed.short}")
    facts = None if quiet else files.find_facts(removed.path)
    if facts:
        tell(f"{printable(removed.path)} is free to be used for something else, or to be removed")


def _row(use: BackingUse, extent: int) -> tuple[str, ...]:
    header, kept = use.found.header, use.found.kept
    size = format_bytes(header.size) if header else "-"
    used, free = ("-" if each is None else format_bytes(each * extent) for each in (use.used, use.free))
    return kept.short, size, used, free, use.state, printable(kept.path)


def _describe(use: BackingUse, extent: int) -> str:
    short, size, _, free, _, path = _row(use, extent)
    return f"{short}: {size}, {free} free, {path}"


def _to_json(use: BackingUse, extent: int) -> dict[str, object]:
    header, kept = use.found.header, use.found.kept
    used, free = (None if each is None else each * extent for each in (use.used, use.free))
    return {
        "uuid": kept.uuid.hex(),
        "path": kept.path,
        "size": header.size if header else None,
        "used": used,
        "free": free,
        "state": use.state,
        "problem": use.found.problem.what if use.found.problem else None,
    }
