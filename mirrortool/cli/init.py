"""`mirrortool init`."""

from __future__ import annotations

import click

from mirrortool.address import PAGE_SIZE_DEFAULT
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, SIZE, Value, as_json, group, parse_named_path, parse_size, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.text import format_bytes, printable, quoted, tell
from mirrortool.journal.directory import Journal
from mirrortool.record.createjournal import NewVolume, init


def parse_new_volume(text: str) -> NewVolume:
    """NAME=PATH or NAME=PATH:SIZE; a colon belongs to the path unless a size follows the last one."""
    name, place = parse_named_path(text)
    path, colon, size = place.rpartition(":")
    if colon and path:
        try:
            return NewVolume(name, path, parse_size(size))
        except ValueError:
            pass
    return NewVolume(name, place)


@click.command("init")
@click.argument("journal", type=DIRECTORY)
@click.argument(
    "volumes", nargs=-1, required=True, metavar="NAME=PATH[:SIZE]...", type=Value("volume", parse_new_volume)
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
    exists must have that size.
    """
    made = init(journal, volumes, page_size, raw=raw, group=group)
    if as_json:
        print_json(_to_json(journal, made))
    else:
        for volume in made.volumes:
            click.echo(f"{volume.name}  {format_bytes(volume.size)}  {printable(made.volume_paths()[volume.name])}")
    if not quiet:
        tell(f"next: mirrortool record {quoted(journal)}")


def _to_json(path: str, made: Journal) -> dict[str, object]:
    paths = made.volume_paths()
    volumes = [{"name": volume.name, "size": volume.size, "path": paths[volume.name]} for volume in made.volumes]
    return {"journal": path, "uuid": made.uuid.hex(), "page_size": made.page_size, "volumes": volumes}
