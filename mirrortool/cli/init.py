"""`mirrortool init`."""

from __future__ import annotations

from collections.abc import Callable

import click

from mirrortool.address import PAGE_SIZE_DEFAULT, format_address
from mirrortool.cli.jsonoutput import print_json, volume_to_json
from mirrortool.cli.options import (
    DIRECTORY,
    SIZE,
    Value,
    as_json,
    group,
    parse_address,
    parse_named_path,
    parse_size,
    quiet,
)
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.text import format_bytes, printable, quoted, tell
from mirrortool.journal.directory import Journal
from mirrortool.record.createjournal import NewVolume, init


def parse_new_volume(text: str) -> NewVolume:
    """NAME=PATH[:SIZE][@ADDRESS].

    A colon belongs to the path unless a size follows the last one, and an @ unless an address follows the last one, as
    in the paths of snapshots.
    """
    name, place = parse_named_path(text)
    sized, address = _cut_off(place, "@", parse_address)
    path, size = _cut_off(sized, ":", parse_size)
    if address is None and size is not None and _cut_off(path, "@", parse_address)[1] is not None:
        raise ValueError(f"{text!r} has the size after the address; write NAME=PATH:SIZE@ADDRESS")
    return NewVolume(name, path, size, address)


def _cut_off(text: str, separator: str, parse: Callable[[str], int]) -> tuple[str, int | None]:
    """What is before the last separator, and the value after it; all of the text and None if there is no value."""
    before, found, value = text.rpartition(separator)
    if not (found and before):
        return text, None
    try:
        return before, parse(value)
    except ValueError:
        return text, None


@click.command("init")
@click.argument("journal", type=DIRECTORY)
@click.argument(
    "volumes", nargs=-1, required=True, metavar="NAME=PATH[:SIZE][@ADDRESS]...", type=Value("volume", parse_new_volume)
)
@click.option(
    "--page-size", type=SIZE, default=str(PAGE_SIZE_DEFAULT), show_default=True, metavar="SIZE",
    help="Unit of journal, sums and repair: a power of two from 512 to 64K.",
)  # fmt: skip
@click.option("--raw", is_flag=True, help="Accept an image in a container format, such as qcow2, as raw bytes.")
@group
@as_json
@quiet
@writes_in("journal")
def command(
    journal: str,
    volumes: tuple[NewVolume, ...],
    page_size: int,
    raw: bool,
    group: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a journal for volumes: image files or block devices.

    Nothing is read yet: the first record journals everything. With a SIZE, a missing file is made, sparse; a file that
    exists must have that size. With an ADDRESS, the volume starts there, and else at the first that is free.
    """
    made = init(journal, volumes, page_size, raw=raw, group=group)
    if as_json:
        print_json(_to_json(journal, made))
    else:
        paths, are_placed = made.volume_paths(), any(volume.address is not None for volume in volumes)
        for volume in made.volumes:
            at = f"  at {format_address(volume.start)}" if are_placed else ""
            click.echo(f"{volume.name}  {format_bytes(volume.size)}  {printable(paths[volume.name])}{at}")
    if not quiet:
        tell(f"next: mirrortool record {quoted(journal)}")


def _to_json(path: str, made: Journal) -> dict[str, object]:
    paths = made.volume_paths()
    volumes = [{**volume_to_json(volume), "path": paths[volume.name]} for volume in made.volumes]
    return {"journal": path, "uuid": made.uuid.hex(), "page_size": made.page_size, "volumes": volumes}
