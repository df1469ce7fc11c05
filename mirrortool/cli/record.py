"""`mirrortool record`."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any

import click

from mirrortool import clock, files
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, DURATION, NAMED_PATH, SIZE, as_json, complete_volume, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.recordnbd import serve
from mirrortool.cli.serveroptions import ServerOptions, server_options
from mirrortool.cli.servicestate import Service, metrics_file
from mirrortool.cli.signals import QUESTION, Signals, answering, stopping
from mirrortool.cli.text import counted, format_bytes, format_seconds, format_time, printable, quoted, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import CommandFailedError, FuzzyCommitError, MirrortoolError, UsageError, host_error
from mirrortool.journal.directory import Journal
from mirrortool.journal.diskspace import adding_space_remedy
from mirrortool.operation import CommitKind
from mirrortool.record.detach import WhenFull
from mirrortool.record.recordmetrics import ScanCount, room_samples
from mirrortool.record.scan import Scan, ScanCancelled, ScanResult
from mirrortool.record.scanschedule import repeated_scans

_LOOK_SECONDS = 1.0
"""Between scans, the service manager is told this often that the command is alive."""


@click.command("record")
@click.argument("journal", type=DIRECTORY)
@click.option(
    "--scan", "take_over", is_flag=True, help="Also scan a volume that was replaced by another file or device."
)
@click.option(
    "--every",
    type=DURATION,
    metavar="DURATION",
    help="Scan again and again, each time this long after the last start.",
)
@click.option(
    "--source", "sources", multiple=True, type=NAMED_PATH, metavar="NAME=PATH", shell_complete=complete_volume,
    help="Read this snapshot instead of the volume.",
)  # fmt: skip
@click.option("--before", metavar="COMMAND", help="Run by the shell before each scan, such as to make a snapshot.")
@click.option("--after", metavar="COMMAND", help="Run by the shell after each scan, also one that failed.")
@click.option("--allow-fuzzy", is_flag=True, help="Exit 0 even if a volume changed while it was scanned.")
@click.option(
    "--nbd", multiple=True, metavar="URI",
    help="Serve the volumes at unix:PATH or tcp:HOST:PORT, and journal every write before it is acknowledged.",
)  # fmt: skip
@server_options
@click.option(
    "--when-full", type=click.Choice([each.value for each in WhenFull]),
    help=f"What to do with writes when the journal has no space.  [default: {WhenFull.STOP}]",
)  # fmt: skip
@click.option("--reserve", type=SIZE, metavar="SIZE", help="Space kept free for --when-full detach.  [default: 16M]")
@metrics_file
@as_json
@quiet
@writes_in("journal")
def command(
    journal: str,
    every: float | None,
    nbd: tuple[str, ...],
    metrics_file: str | None,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Journal what changed in the volumes since the last record, as one commit.

    The first time that is everything that is not zero. Each volume is read and compared with the sums that the journal
    keeps of it; holes cost nothing. If a volume is written meanwhile, the commit is fuzzy: not a state that the volume
    ever had. To avoid that, scan a snapshot, with --source, --before and --after.

    With --nbd nothing is scanned again: the volumes are served to NBD clients such as QEMU until SIGINT or SIGTERM, and
    each write is journaled before the client gets its answer.
    """
    check_options(click.get_current_context().params)
    if nbd:
        serve(
            journal,
            ServerOptions.of({"nbd": nbd, **values}),
            take_over=values["take_over"],
            when_full=WhenFull(values["when_full"] or WhenFull.STOP),
            reserve=values["reserve"],
            metrics_file=metrics_file,
            as_json=as_json,
            quiet=quiet,
        )
        return
    scanning = _ScanOptions(*(values[field.name] for field in fields(_ScanOptions)))
    count = ScanCount(files.absolute(journal))
    with Service(metrics_file, lambda _: [*count.samples(), *room_samples(journal)], _warn) as service:
        job = _ScanJob(journal, scanning, count, service, as_json=as_json, quiet=quiet)
        if every is None:
            job.run()
        else:
            with repeated_scans(journal):
                _repeat(job, every, service)


def check_options(values: Mapping[str, Any]) -> None:
    """Check that options which are each valid are valid together.

    Raises:
        UsageError: they do not.
    """
    scanning = [values[field.name] for field in fields(_ScanOptions) if field.name != "take_over"]
    if values["nbd"] and (values["every"] is not None or any(scanning)):
        raise UsageError("--every, --source, --before, --after and --allow-fuzzy are for scans, not for --nbd")
    serving = ServerOptions.of(values)
    is_serving = serving.are_given or values["when_full"] is not None or values["reserve"] is not None
    if is_serving and not values["nbd"]:
        raise UsageError("the options of a server need --nbd")
    if len(dict(values["sources"])) != len(values["sources"]):
        raise UsageError("a volume is named twice by --source")
    serving.check()


def _warn(text: str) -> None:
    tell(f"mirrortool: {printable(text)}")


@dataclass(frozen=True, slots=True)
class _ScanOptions:
    """The options that only scans have, and `take_over`, which live recording has, too."""

    take_over: bool
    sources: Sequence[tuple[str, str]]
    before: str | None
    after: str | None
    allow_fuzzy: bool


class _ScanJob:
    """One scan with everything around it."""

    def __init__(
        self, journal: str, options: _ScanOptions, count: ScanCount, service: Service, *, as_json: bool, quiet: bool
    ) -> None:
        self._journal, self._options = journal, options
        self._as_json, self._quiet = as_json, quiet
        self._count, self._service = count, service

    def run(self, *, every: float | None = None) -> None:
        """Scan and print the result.

        Args:
            every: seconds from the start of this scan to that of the next; None if this one is the last.
        Raises:
            FuzzyCommitError: a volume changed, and that is not allowed.
            Interrupted: by a signal.
        """
        self._count.begin()
        try:
            with self._around():
                result = self._scan(every)
        except MirrortoolError:
            self._count.fail()
            raise
        self._print(result, final=every is None)
        if result.kind == CommitKind.FUZZY and not self._options.allow_fuzzy:
            name, why = next(iter(result.changed.items()))
            raise FuzzyCommitError(
                f"the commit is fuzzy, not a state that volume {name} ever had: {why}",
                where=self._journal,
                remedy="scan a snapshot (--source, --before, --after), or give --allow-fuzzy",
            )

    @contextmanager
    def _around(self) -> Iterator[None]:
        """Run --before and --after; the latter always, and its failure never hides another error."""
        try:
            if self._options.before:
                _shell(self._options.before, "--before", self._options.before)
            yield
        except BaseException:
            with suppress(CommandFailedError):
                self._clean_up()
            raise
        self._clean_up()

    def _clean_up(self) -> None:
        """Run --after. A terminal that is closed sends SIGHUP to it, too: it must be done all the same."""
        if self._options.after:
            _shell(f"trap '' HUP\n{self._options.after}", "--after", self._options.after)

    def _scan(self, every: float | None) -> ScanResult:
        began_ns, began = clock.now_ns(), clock.monotonic()
        opened = Journal(self._journal)
        with (
            adding_space_remedy(opened),
            Scan(self._journal, sources=dict(self._options.sources), take_over=self._options.take_over) as scan,
        ):
            page_size = scan.page_size

            def view() -> View:
                now = scan.statistics()
                detail = f"{format_bytes(now.bytes_journaled)} journaled"
                return View(now.pages_done, now.pages_total, now.pages_done * page_size, detail)

            with Display("scan", quiet=self._quiet) as display:
                self._service.ready(f"scanning {self._journal}")
                if scan.torn:
                    display.warn(f"a torn tail was moved to {scan.torn}; nothing in it had been acknowledged")
                runner = Runner(scan.run, self._service.before(scan.cancel), lambda: display.answer(view()))

                def look() -> None:
                    display.show(view())
                    self._service.tick(f"scanning {self._journal}")

                try:
                    result = runner.run(look)
                    self._count.end(result)
                    next_ns = None if every is None else began_ns + round(every * 1e9)
                    scan.expect_next(next_ns, clock.monotonic() - began)
                    return result
                except ScanCancelled:
                    raise Interrupted(
                        runner.signal_number, "stopped without a commit; the next record resumes from here"
                    ) from None

    def _print(self, result: ScanResult, *, final: bool) -> None:
        statistics = result.statistics
        if self._as_json:
            print_json(_to_json(result))
            return
        kind = "fuzzy commit" if result.kind == CommitKind.FUZZY else "commit"
        click.echo(
            f"{kind} at LSN {result.commit.lsn}  {format_time(result.time_ns)}  "
            f"{counted(statistics.pages_written, 'page')} written, {statistics.pages_zeroed} zeroed, "
            f"{format_bytes(statistics.bytes_journaled)} journaled"
        )
        for name, why in result.changed.items():
            tell(f"mirrortool: WARNING: volume {name} changed while it was scanned: {why}")
        if final and not self._quiet:
            tell(f"next: mirrortool replay {quoted(self._journal)} MIRROR")


def _repeat(job: _ScanJob, every: float, service: Service) -> None:
    """Scan until a signal stops it; what is wrong with one scan does not end the next."""
    waiting = f"the next scan begins {format_seconds(every)} after the start of the one before"
    is_first = True
    with Signals() as signals:
        while not signals.number:
            started = clock.monotonic()
            try:
                with answering("a scan is about to begin, or has just ended"):
                    job.run(every=every)
            except Interrupted:
                return
            except MirrortoolError as error:
                if is_first and not isinstance(error, FuzzyCommitError):
                    raise
                tell(f"mirrortool: {printable(str(error))}")
            is_first = False
            while not signals.number and (left := started + every - clock.monotonic()) > 0:
                if signals.wait(min(left, _LOOK_SECONDS)) == QUESTION:
                    tell(f"mirrortool: the next scan begins in {format_seconds(left)}")
                service.tick(waiting)
        service.stopping()


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Signals that stop the program do nothing in here; yields those that came, for the caller to raise."""
    held: list[int] = []
    numbers = stopping()
    previous = [signal.signal(number, lambda number, _frame: held.append(number)) for number in numbers]
    try:
        yield held
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def _shell(command: str, option: str, given: str) -> None:
    """Run a command; `given` is the text that the user gave."""
    with answering(f"{option} is running: {given}"):
        with _signals_held() as held:  # else one that comes now would leave the command running
            try:
                process = subprocess.Popen(command, shell=True, stdin=subprocess.DEVNULL, stdout=2)
            except OSError as error:
                raise host_error(error, given, f"run {option}") from error
        try:
            for number in held:
                signal.raise_signal(number)
            code = process.wait()
        except BaseException:  # a signal
            process.wait()  # what it does must be over before --after undoes it; one more signal ends this, too
            raise
    if code:
        how = f"exited with {code}" if code > 0 else f"was killed by signal {-code}"
        raise CommandFailedError(f"{option} {how}", where=given, remedy="see what it printed")


def _to_json(result: ScanResult) -> dict[str, object]:
    statistics = result.statistics
    return {
        "lsn": result.commit.lsn,
        "chain": f"{result.commit.chain:016x}",
        "kind": result.kind.name.lower(),
        "time_ns": result.time_ns,
        "state_sum": f"{result.state_sum:016x}",
        "pages_scanned": statistics.pages_total,
        "pages_written": statistics.pages_written,
        "pages_zeroed": statistics.pages_zeroed,
        "bytes_journaled": statistics.bytes_journaled,
        "changed": dict(result.changed),
        "torn": result.torn,
    }
