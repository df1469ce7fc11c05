"""`mirrortool serve`: shows a state to NBD clients until it is told to stop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import click

from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.openstate import open_with_display
from mirrortool.cli.options import DIRECTORY, POINT, POINT_METAVAR, SIZE, as_json, complete_point, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display
from mirrortool.cli.rates import Rates
from mirrortool.cli.serveroptions import ServerOptions, nbd_uri, server_options
from mirrortool.cli.servicestate import Service
from mirrortool.cli.text import counted, fitted_columns, format_bytes, format_time, quoted
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import UsageError
from mirrortool.journal.point import Until
from mirrortool.nbd.statistics import ExportStatistics, ServerStatistics
from mirrortool.serve.scratch import Scratch
from mirrortool.serve.serving import Serving, open_scratch
from mirrortool.serve.state import ShownState

SCRATCH_DEFAULT = "/var/tmp"
"""Where TMPDIR is not set. /tmp is in memory on many hosts."""


@click.command("serve")
@click.argument("path", metavar="JOURNAL|MIRROR", type=DIRECTORY)
@click.option(
    "--nbd", multiple=True, required=True, metavar="URI",
    help="Serve the volumes at unix:PATH or tcp:HOST:PORT, each as an NBD export.",
)  # fmt: skip
@click.option(
    "--until", type=POINT, metavar=POINT_METAVAR, shell_complete=complete_point,
    help="Of a journal: the last commit at or before this.  [default: the newest]",
)  # fmt: skip
@click.option("--writable", is_flag=True, help="Let clients write; what they write is gone at the end.")
@click.option(
    "--scratch", type=DIRECTORY, metavar="DIRECTORY",
    help="Where what clients write takes its space.  [default: TMPDIR, or /var/tmp]",
)  # fmt: skip
@click.option(
    "--scratch-size", type=SIZE, metavar="SIZE",
    help="The space that it may take.  [default: half of what is free there]",
)  # fmt: skip
@click.option("--allow-fuzzy", is_flag=True, help="Also serve a fuzzy commit: a volume changed while it was scanned.")
@server_options
@as_json
@quiet
@writes_in("path")
def command(path: str, until: Until | None, allow_fuzzy: bool, as_json: bool, quiet: bool, **values: Any) -> None:
    """Serve the volumes as they were at a commit of a journal, or as they are in a mirror, to NBD clients.

    Nothing of journal or mirror changes. A journal can be recorded, shipped, followed and pruned meanwhile; into a
    mirror nothing is replayed. With --writable clients can change what they see, such as to start a database or a guest
    on it: what they write goes to a file without a name, and is gone at the end.
    """
    check_options(click.get_current_context().params)
    with ExitStack() as opened:
        try:
            state = open_with_display(path, until, allow_fuzzy=allow_fuzzy, doing="serve", quiet=quiet)
        except Interrupted:
            return  # told to stop before it had begun
        opened.enter_context(state)
        scratch = _open_scratch(state, values) if values["writable"] else None
        if scratch:
            opened.callback(scratch.close)
        display = opened.enter_context(Display("serve", quiet=quiet))
        last = _serve(state, scratch, ServerOptions.of(values), display)
        _conclude(state, scratch, last, as_json)


def check_options(values: dict[str, Any]) -> None:
    """Check that options which are each valid are valid together.

    Raises:
        UsageError: they do not.
    """
    if not values["writable"] and (values["scratch"] is not None or values["scratch_size"] is not None):
        raise UsageError("--scratch and --scratch-size are for --writable")
    ServerOptions.of(values).check()


def _open_scratch(state: ShownState, values: dict[str, Any]) -> Scratch:
    named: str | None = values["scratch"]
    directory = named if named is not None else os.environ.get("TMPDIR") or SCRATCH_DEFAULT
    return open_scratch(state, directory, values["scratch_size"], is_named=named is not None)


def _serve(state: ShownState, scratch: Scratch | None, options: ServerOptions, display: Display) -> ServerStatistics:
    """Until a signal stops it; what was done."""
    make_server = options.server_maker(display.warn)

    def on_ready(addresses: Sequence[str]) -> None:
        _tell_ready(state, scratch, [(address, options.has_tls) for address in addresses], display)
        service.ready(_status(state, serving.statistics()))

    serving = Serving(state, scratch, make_server, on_ready)
    watch = _Watch(state, scratch, serving, display)

    def look() -> None:
        watch.tick()
        service.tick(lambda: _status(state, serving.statistics()))

    with Service(None, lambda _: (), display.warn) as service:
        Runner(serving.run, service.before(serving.stop), watch.answer).run(look)
    return serving.statistics()


def _tell_ready(
    state: ShownState, scratch: Scratch | None, addresses: Sequence[tuple[str, bool]], display: Display
) -> None:
    how = "read-only"
    if scratch:
        room = format_bytes(scratch.bytes_max)
        how = f"writable, at most {room} in {scratch.directory}, and that is gone at the end"
    uris = [
        (volume.name, nbd_uri(address, volume.name, has_tls))
        for address, has_tls in addresses
        for volume in state.reader.volumes
    ]
    for name, uri in uris:
        display.note(f"serving volume {name} at {uri}, as of {_moment(state)}; {how}")
    name, uri = uris[0]
    display.note(f"next: nbdcopy {quoted(uri)} {name}.img, or nbdfuse, qemu-nbd or a guest at that address")


def _moment(state: ShownState) -> str:
    mark = f" {state.mark}" if state.mark else ""
    return f"LSN {state.lsn}{mark} of {format_time(state.time_ns)}"


def _status(state: ShownState, now: ServerStatistics) -> str:
    """For the service manager."""
    names = ", ".join(export.name for export in now.exports)
    return f"serving {names} as of LSN {state.lsn}; clients: {now.connections}"


class _Watch:
    """Shows what clients do."""

    def __init__(self, state: ShownState, scratch: Scratch | None, serving: Serving, display: Display) -> None:
        self._state, self._scratch, self._serving, self._display = state, scratch, serving, display
        self._rates = Rates()

    def tick(self) -> None:
        self._display.show_lines(self._lines())

    def answer(self) -> None:
        """Somebody asked (SIGUSR1)."""
        self._display.answer(*self._lines())

    def _lines(self) -> list[str]:
        headings = ("export", "clients", "reads", "read", "writes", "written", "reads/s", "read/s")
        rows = [self._row(each) for each in self._serving.statistics().exports]
        table = fitted_columns(headings, rows, self._display.width, ("writes", "reads", "written", "clients"))
        lines = [*table, f"as of {_moment(self._state)}"]
        if self._scratch:
            used, most = format_bytes(self._scratch.bytes_used), format_bytes(self._scratch.bytes_max)
            lines.append(f"{used} of {most} in the scratch file")
        return lines

    def _row(self, now: ExportStatistics) -> tuple[str, ...]:
        reads, read = self._rates.per_second(now.name, (now.reads, now.bytes_read))
        done = str(now.reads), format_bytes(now.bytes_read), str(now.writes), format_bytes(now.bytes_written)
        return (now.name, str(now.clients), *done, f"{reads:.0f}", f"{format_bytes(read)}/s")


def _conclude(state: ShownState, scratch: Scratch | None, last: ServerStatistics, as_json: bool) -> None:
    read = sum(export.bytes_read for export in last.exports)
    written = sum(export.bytes_written for export in last.exports)
    if as_json:
        values = {
            "path": state.path,
            "lsn": state.lsn,
            "time_ns": state.time_ns,
            "mark": state.mark,
            "is_fuzzy": state.is_fuzzy,
            "is_writable": scratch is not None,
            "connections_total": last.connections_total,
            "bytes_read": read,
            "bytes_written": written,
            "scratch_bytes": scratch.bytes_used if scratch else 0,
        }
        print_json(values)
        return
    gone = f", {format_bytes(written)} written and gone now" if scratch else ""
    click.echo(
        f"LSN {state.lsn} was served to {counted(last.connections_total, 'client')}: {format_bytes(read)} read{gone}"
    )
