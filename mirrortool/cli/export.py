"""`mirrortool export`."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import click

from mirrortool.cli.jsonoutput import json_line, print_json
from mirrortool.cli.openstate import open_with_display
from mirrortool.cli.options import (
    DIRECTORY,
    FILE,
    POINT,
    POINT_METAVAR,
    as_json,
    complete_point,
    complete_volume_name,
    quiet,
)
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.text import format_bytes, format_time, printable, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import UsageError
from mirrortool.journal.point import Until
from mirrortool.mirror.targetvolume import Primaries
from mirrortool.serve.exportfile import ExportStream, ExportTarget, open_export_target
from mirrortool.serve.exportvolume import ExportCancelled, ExportProgress, ExportVolume
from mirrortool.serve.state import ShownState
from mirrortool.volume import Volume

STANDARD_OUTPUT = "-"


@click.command("export")
@click.argument("path", metavar="JOURNAL|MIRROR", type=DIRECTORY)
@click.argument("name", metavar="VOLUME", shell_complete=complete_volume_name)
@click.argument("file", metavar="FILE|-", type=FILE)
@click.option(
    "--until", type=POINT, metavar=POINT_METAVAR, shell_complete=complete_point,
    help="Of a journal: the last commit at or before this.  [default: the newest]",
)  # fmt: skip
@click.option("--allow-fuzzy", is_flag=True, help="Also export a fuzzy commit: a volume changed while it was scanned.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists; what a device holds may be lost.")
@as_json
@quiet
@writes_in("path")
def command(
    path: str,
    name: str,
    file: str,
    until: Until | None,
    allow_fuzzy: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a volume as it was at a commit of a journal, or as it is in a mirror, to a file or to standard output.

    The file is a raw image, and sparse. Every page is compared with its sum. A file gets its name when it is whole;
    until then nothing of that name is changed. A block device can stand for FILE, too.
    """
    is_stream = file == STANDARD_OUTPUT
    if is_stream and sys.stdout.isatty():
        raise UsageError("standard output is a terminal; send it into a pipe or a file")
    if is_stream and overwrite:
        raise UsageError("--overwrite is for a file, not for standard output")
    with ExitStack() as opened:
        state = opened.enter_context(
            open_with_display(path, until, allow_fuzzy=allow_fuzzy, doing="export", quiet=quiet)
        )
        volume = state.volume(name)
        if is_stream:
            target: ExportTarget = ExportStream(sys.stdout.fileno(), volume.size)
        else:
            target = open_export_target(file, volume, Primaries(state.recorded), overwrite=overwrite)
        opened.callback(target.abandon)
        done = _export(state, volume, target, quiet)
    _conclude(state, volume, file, done, as_json=as_json)


def _export(state: ShownState, volume: Volume, target: ExportTarget, quiet: bool) -> ExportProgress:
    export = ExportVolume(state, volume, target)

    def view() -> View:
        now = export.progress()
        doing = ", making it durable" if now.is_finishing else ""
        return View(now.done, now.total, now.written, f"{format_bytes(now.written)} written{doing}")

    with Display("export", quiet=quiet) as display:
        runner = Runner(export.run, export.cancel, lambda: display.answer(view()))
        try:
            return runner.run(lambda: display.show(view()))
        except ExportCancelled:
            raise Interrupted(runner.signal_number, f"stopped; {target.left_behind}") from None


def _conclude(state: ShownState, volume: Volume, file: str, done: ExportProgress, *, as_json: bool) -> None:
    """Of a stream on standard error, as its bytes are on standard output."""
    is_stream = file == STANDARD_OUTPUT
    if as_json:
        values = {
            "path": state.path,
            "volume": volume.name,
            "file": None if is_stream else file,
            "lsn": state.lsn,
            "time_ns": state.time_ns,
            "mark": state.mark,
            "is_fuzzy": state.is_fuzzy,
            "size": volume.size,
            "data_bytes": done.written,
        }
        tell(json_line(values)) if is_stream else print_json(values)
        return
    where = "" if is_stream else f" in {printable(file)}"
    line = (
        f"volume {volume.name} as of LSN {state.lsn} of {format_time(state.time_ns)}{where}: "
        f"{format_bytes(volume.size)}, {format_bytes(done.written)} of them not zeros"
    )
    tell(line) if is_stream else click.echo(line)
