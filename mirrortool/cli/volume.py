"""`mirrortool volume`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import click

from mirrortool import files
from mirrortool.address import format_address
from mirrortool.cli.jsonoutput import print_json, volume_to_json
from mirrortool.cli.options import (
    DIRECTORY,
    NAMED_PATH,
    SIZE,
    as_json,
    complete_volume,
    complete_volume_name,
    quiet,
)
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.text import columns, format_bytes, printable, quoted, tell
from mirrortool.errors import NotAJournalError, UsageError
from mirrortool.journal.directory import Journal
from mirrortool.journal.pathkind import PathKind, kind_of, neither
from mirrortool.mirror.directory import Mirror
from mirrortool.record.relocate import set_volume_paths
from mirrortool.record.resize import Resized, resize_volume
from mirrortool.volume import Volume
from mirrortool.wording import exact_bytes


@click.group("volume", invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the volumes of a journal or mirror, resize one, or tell a journal where they are now."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("list")
@click.argument("path", metavar="JOURNAL|MIRROR", type=DIRECTORY)
@as_json
def list_volumes(path: str, as_json: bool) -> None:
    """List the volumes of a journal or mirror: size, address, and where each is.

    The sizes are those that the recorder last saw, or those of the mirror's checkpoint.
    """
    kind = kind_of(path)
    if kind == PathKind.MIRROR:
        page_size, listed = _of_mirror(Mirror(path))
    elif kind in (PathKind.JOURNAL, PathKind.COPY):
        page_size, listed = _of_journal(Journal(path))
    else:
        raise neither(path)
    if as_json:
        values = [{**volume_to_json(volume), "kind": kind, "path": place} for volume, kind, place in listed]
        print_json({"path": path, "page_size": page_size, "volumes": values})
        return
    rows = [
        (volume.name, format_bytes(volume.size), format_address(volume.start), kind or "-", place or "-")
        for volume, kind, place in listed
    ]
    for line in columns(["name", "size", "address", "kind", "path"], rows):
        click.echo(line)
    click.echo(f"pages of {format_bytes(page_size)}")


Listed = tuple[Volume, str | None, str | None]
"""A volume, in what kind of storage it is, and where; None where that is not known."""


def _of_journal(journal: Journal) -> tuple[int, list[Listed]]:
    paths: dict[str, str] = {}
    with suppress(NotAJournalError):  # status says so
        paths = journal.volume_paths()
    return journal.page_size, [
        (volume, "path" if volume.name in paths else None, paths.get(volume.name))
        for volume in journal.current_volumes()
    ]


def _of_mirror(mirror: Mirror) -> tuple[int, list[Listed]]:
    here, both = files.absolute(mirror.path), zip(mirror.volumes, mirror.kept, strict=True)
    return mirror.page_size, [
        (volume, kept.place.kind, kept.place.describe(here) if kept.is_held else None) for volume, kept in both
    ]


@command.command("resize")
@click.argument("journal", type=DIRECTORY)
@click.argument("name", shell_complete=complete_volume_name)
@click.argument("size", type=SIZE)
@click.option("--shrink", is_flag=True, help="Allow a smaller size: what is after it is lost, in the mirrors, too.")
@as_json
@quiet
@writes_in("journal")
def resize(journal: str, name: str, size: int, shrink: bool, as_json: bool, quiet: bool) -> None:
    """Give a volume another size, and journal that. The journal is not being recorded meanwhile.

    The file of the volume gets that size; a device must have it, or more, already. Mirrors follow with the next replay.
    NBD clients must connect again: an export has one size as long as a client is connected.
    """
    resized = resize_volume(journal, name, size, may_shrink=shrink)
    if as_json:
        commit = resized.commit.lsn if resized.commit else None
        print_json({"journal": journal, "volume": name, "size": size, "was": resized.before, "commit_lsn": commit})
    else:
        click.echo(_describe(name, resized))
    if not quiet:
        for line in _next_steps(journal, resized):
            tell(line)


def _describe(name: str, resized: Resized) -> str:
    if resized.commit is None:
        return f"volume {name} has {exact_bytes(resized.size)} already; nothing was changed"
    return (
        f"volume {name} has {exact_bytes(resized.size)} now, had {exact_bytes(resized.before)}; "
        f"committed at LSN {resized.commit.lsn}"
    )


def _next_steps(journal: str, resized: Resized) -> Iterator[str]:
    if resized.commit is None:
        return
    if resized.size > resized.before:
        yield "a file system inside is as large as before, until its own tool makes it larger"
        yield "a mirror's device must have that size, too, before the next replay; a file grows by itself"
    yield f"next: mirrortool record {quoted(journal)}; NBD clients must connect again to see the new size"


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
