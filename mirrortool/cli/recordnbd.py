"""`mirrortool record --nbd`: records live until it is told to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any
from urllib.parse import quote

import click

from mirrortool import files
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.progressdisplay import Display, Line, Tone
from mirrortool.cli.rates import Rates
from mirrortool.cli.servicestate import Service
from mirrortool.cli.text import counted, fitted_columns, format_bytes, format_latency, format_time, quoted, tell
from mirrortool.cli.workthread import Runner
from mirrortool.errors import NoSpaceError
from mirrortool.metrics import Sample
from mirrortool.nbd.server import Server
from mirrortool.nbd.statistics import ExportStatistics, ServerStatistics
from mirrortool.nbd.tls import server_context
from mirrortool.record.detach import WhenFull
from mirrortool.record.liverecording import LiveRecording
from mirrortool.record.recorder import Recorder, RecorderStatistics
from mirrortool.record.recordmetrics import live_samples, room_samples


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """The options of `record` that only live recording has; None stands for the default."""

    nbd: Sequence[str]
    socket_mode: int | None
    socket_group: str | None
    tls_certificates: str | None
    tls_anonymous: bool
    insecure: bool
    max_connections: int | None
    max_memory: int | None
    when_full: str | None
    reserve: int | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ServingOptions:
        """Those of a command line, which has others, too."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def are_given(self) -> bool:
        """Whether any of them was."""
        return any(value not in (None, False, ()) for value in asdict(self).values())


SOCKET_MODE_DEFAULT = 0o600
MAX_CONNECTIONS_DEFAULT = 64


def serve(
    journal: str, options: ServingOptions, *, take_over: bool, metrics_file: str | None, as_json: bool, quiet: bool
) -> None:
    """Record until a signal stops it, which ends cleanly.

    Raises:
        MirrortoolError: it could not begin, or cannot continue.
    """
    directory = options.tls_certificates
    tls = server_context(directory, anonymous=options.tls_anonymous) if directory else None
    when_full = WhenFull(options.when_full or WhenFull.STOP)
    with Display("record", quiet=quiet) as display:
        make_server = partial(
            Server,
            addresses=options.nbd,
            tls=tls,
            insecure=options.insecure,
            max_connections=options.max_connections or MAX_CONNECTIONS_DEFAULT,
            max_memory=options.max_memory,
            socket_mode=SOCKET_MODE_DEFAULT if options.socket_mode is None else options.socket_mode,
            socket_group=options.socket_group,
            on_event=display.warn,
        )

        def on_ready(addresses: Sequence[str]) -> None:
            _tell_ready(display, recorder, addresses, bool(tls))
            service.ready(_status(recording))

        recorder = Recorder(journal, take_over=take_over, when_full=when_full, reserve=options.reserve)
        with LiveRecording(recorder, make_server, display.warn, on_ready) as recording:
            _tell_recovery(display, recorder)
            watch = _Watch(display, recording)

            def look() -> None:
                watch.tick()
                service.tick(_status(recording))

            with Service(metrics_file, lambda serving: _samples(recording, serving), display.warn) as service:
                Runner(recording.run, service.before(recording.stop), watch.answer).run(look)
    _conclude(journal, recorder.statistics(), as_json, quiet)


def _tell_recovery(display: Display, recorder: Recorder) -> None:
    if recorder.torn:
        display.warn(f"a torn tail was moved to {recorder.torn}; nothing in it had been acknowledged as durable")
    if recorder.redone:
        display.note(
            f"after a crash, {counted(recorder.redone, 'frame was', 'frames were')} written to the volumes again"
        )


def _status(recording: LiveRecording) -> str:
    """For the service manager."""
    recorder, server = recording.statistics()
    names = ", ".join(export.name for export in server.exports)
    return recorder.problem or f"serving {names}; clients: {server.connections}, commit at LSN {recorder.commit_lsn}"


def _samples(recording: LiveRecording, serving: bool) -> list[Sample]:
    scan = recording.initial_scan.progress()
    journal = files.absolute(recording.recorder.journal.path)
    return [*live_samples(journal, *recording.statistics(), scan, serving=serving), *room_samples(journal)]


def _tell_ready(display: Display, recorder: Recorder, addresses: Sequence[str], has_tls: bool) -> None:
    for address in addresses:
        for volume in recorder.volumes:
            display.note(f"serving volume {volume.name} at {nbd_uri(address, volume.name, has_tls)}")


def nbd_uri(address: str, name: str, has_tls: bool) -> str:
    """The address of an export as NBD clients write it (the NBD project's uri.md)."""
    kind, _, place = address.partition(":")
    if kind == "unix":
        return f"nbd+unix:///{name}?socket={quote(files.path_bytes(place))}"
    return f"nbd{'s' * has_tls}://{place}/{name}"


class _Watch:
    """Shows the state of a recording, and tells once when changes are refused, and when they are accepted again."""

    def __init__(self, display: Display, recording: LiveRecording) -> None:
        self._display = display
        self._recording = recording
        self._problem = self._scan_problem = ""
        self._incomplete: Sequence[str] = tuple(recording.recorder.statistics().incomplete)
        self._rates = Rates()

    def tick(self) -> None:
        recorder, server = self._recording.statistics()
        if recorder.problem != self._problem:
            self._problem = recorder.problem
            self._display.warn(self._problem or "changes are accepted and journaled again")
        scan_problem = self._recording.initial_scan_problem
        if scan_problem != self._scan_problem:
            self._scan_problem = scan_problem
            self._display.warn(f"initial scan: {scan_problem or 'it continues'}")
        if self._incomplete and not recorder.incomplete:
            self._incomplete = ()
            self._display.note("the initial scan is complete: from now on commits are states of the volumes")
        self._display.show_lines([*self._table(server), *self._lines(recorder)])

    def answer(self) -> None:
        """Somebody asked (SIGUSR1)."""
        recorder, server = self._recording.statistics()
        self._display.answer(*self._table(server), *self._lines(recorder))

    def _table(self, now: ServerStatistics) -> list[str]:
        headings = ("export", "clients", "writes", "written", "flushes", "writes/s", "written/s")
        rows = [self._row(each) for each in now.exports]
        return fitted_columns(headings, rows, self._display.width, ("flushes", "writes", "clients", "written"))

    def _row(self, now: ExportStatistics) -> tuple[str, ...]:
        writes, written = self._rates.per_second(now.name, (now.writes, now.bytes_written))
        counted = str(now.clients), str(now.writes), format_bytes(now.bytes_written), str(now.flushes)
        return (now.name, *counted, f"{writes:.0f}", f"{format_bytes(written)}/s")

    def _lines(self, now: RecorderStatistics) -> list[str]:
        ratio = f", {now.bytes_journaled / now.bytes_written:.2f} of what was written" if now.bytes_written else ""
        operations, journaled = self._rates.per_second(None, (now.operations, now.bytes_journaled))
        synced = f"made durable in {format_latency(now.sync_seconds)}"
        lines = [
            f"{format_bytes(now.bytes_journaled)} journaled{ratio}; "
            f"{operations:.0f} operations/s, {format_bytes(journaled)}/s",
            f"{format_bytes(now.bytes_waiting)} not yet written to the volumes",
            f"commit at LSN {now.commit_lsn} of {format_time(now.commit_time_ns)}, {synced}"
            if now.commit_lsn
            else synced,
        ]
        if now.incomplete:
            done, total = self._recording.initial_scan.progress()
            problem = self._recording.initial_scan_problem
            tone = Tone.BAD if problem else Tone.WAITING
            lines.append(Line(f"initial scan: {100 * done // max(1, total)} % {problem}".rstrip(), tone))
        return [*lines, Line(now.problem, tone_of(now.problem_exit_code))] if now.problem else lines


def tone_of(problem_exit_code: int) -> Tone:
    """The colour of what keeps a recorder from its work: yellow while it waits for room, red for all else."""
    return Tone.WAITING if problem_exit_code == NoSpaceError.exit_code else Tone.BAD


def _conclude(journal: str, last: RecorderStatistics, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json({**asdict(last), "incomplete": list(last.incomplete)})
        return
    click.echo(
        f"commit at LSN {last.commit_lsn}  {counted(last.operations, 'operation')}, "
        f"{format_bytes(last.bytes_written)} written, {format_bytes(last.bytes_journaled)} journaled"
    )
    if not quiet:
        tell(f"next: mirrortool replay {quoted(journal)} MIRROR")
