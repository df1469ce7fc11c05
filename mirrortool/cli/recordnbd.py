"""`mirrortool record --nbd`: records live until it is told to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from mirrortool import files
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.progressdisplay import Display, Line, Tone
from mirrortool.cli.rates import Rates
from mirrortool.cli.serveroptions import ServerOptions, nbd_uri
from mirrortool.cli.servicestate import Service
from mirrortool.cli.text import counted, fitted_columns, format_bytes, format_latency, format_time, quoted, tell
from mirrortool.cli.workthread import Runner
from mirrortool.errors import NoSpaceError
from mirrortool.metrics import Sample
from mirrortool.nbd.statistics import ExportStatistics, ServerStatistics
from mirrortool.record.detach import WhenFull
from mirrortool.record.liverecording import LiveRecording
from mirrortool.record.recorder import Recorder, RecorderStatistics
from mirrortool.record.recordmetrics import live_samples, room_samples


def serve(
    journal: str,
    options: ServerOptions,
    *,
    take_over: bool,
    when_full: WhenFull,
    reserve: int | None,
    metrics_file: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Record until a signal stops it, which ends cleanly.

    Raises:
        MirrortoolError: it could not begin, or cannot continue.
    """
    with Display("record", quiet=quiet) as display:
        make_server = options.server_maker(display.warn)

        def on_ready(addresses: Sequence[str]) -> None:
            _tell_ready(display, recorder, addresses, options.has_tls)
            service.ready(_status(recording))

        recorder = Recorder(journal, take_over=take_over, when_full=when_full, reserve=reserve)
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
