"""`mirrortool import`. No module can be called `import`."""

from __future__ import annotations

import click

from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, FILE, Value, as_json, complete_volume_name, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.text import counted, format_bytes, printable, quoted, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import UsageError
from mirrortool.record.importers.importloop import RENAMED_MAX, Import, ImportCancelled, ImportResult
from mirrortool.record.importers.logstep import Log
from mirrortool.record.importers.openlog import LogFormat, open_log, open_log_file
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder

SEED_DEFAULT = 0


def parse_mapped(text: str) -> tuple[str, str]:
    """FILE=VOLUME; FILE may have `=` in it."""
    file, equals, volume = text.rpartition("=")
    if not (file and equals and volume):
        raise ValueError(f"{text!r} is not FILE=VOLUME")
    return file, volume


@click.command("import")
@click.argument("journal", type=DIRECTORY)
@click.argument("file", type=FILE)
@click.option(
    "--format", "kind", type=click.Choice([each.value for each in LogFormat]), required=True,
    help="Of FILE: dm-log-writes or QEMU's blklogwrites, or fio.",
)  # fmt: skip
@click.option(
    "--volume", metavar="NAME", shell_complete=complete_volume_name,
    help="The volume that was logged.  [default: the journal's only one]",
)  # fmt: skip
@click.option(
    "--map", "mapped", multiple=True, type=Value("file=volume", parse_mapped), metavar="FILE=VOLUME",
    help="The volume to use for a file in a log of fio.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, (1 << 64) - 1), metavar="N",
    help=f"Of the data that is generated for a log of fio.  [default: {SEED_DEFAULT}]",
)  # fmt: skip
@as_json
@quiet
@writes_in("journal")
def command(
    journal: str,
    file: str,
    kind: str,
    volume: str | None,
    mapped: tuple[tuple[str, str], ...],
    seed: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the operations in another program's log to the volumes, and journal them.

    Its flushes become commits and its marks become marks, so that a mirror can be replayed to each. A log of fio has no
    data: it is generated, always the same for the same seed. The log is checked before anything is changed.
    """
    if kind != LogFormat.FIO and (mapped or seed is not None):
        raise UsageError("--map and --seed are for --format fio")
    if len(dict(mapped)) != len(mapped):
        raise UsageError("a file is named twice by --map")
    with open_log_file(file) as opened, Recorder.open(journal) as recorder:
        log = open_log(
            opened,
            LogFormat(kind),
            recorder.volumes,
            volume=volume,
            mapped=dict(mapped),
            seed=SEED_DEFAULT if seed is None else seed,
        )
        result = _Work(recorder, log).run(quiet)
    _print(journal, result, log.unit, as_json, quiet)


class _Work:
    """Checks a log, scans the volumes if the journal does not have them yet, and imports the log."""

    def __init__(self, recorder: Recorder, log: Log) -> None:
        self._unit = log.unit
        self._import = Import(recorder, log)
        self._initial_scan = InitialScan(recorder)
        self._page_size = recorder.page_size

    def run(self, quiet: bool) -> ImportResult:
        """
        Raises:
            Interrupted: by a signal.
        """
        with Display("import", quiet=quiet) as display:
            runner = Runner(self._do, self._cancel, lambda: display.answer(self._view()))
            try:
                return runner.run(lambda: display.show(self._view()))
            except ImportCancelled:
                raise Interrupted(runner.signal_number, self._where_it_stopped()) from None

    def _do(self) -> ImportResult:
        self._import.check()
        self._initial_scan.run()
        return self._import.run()

    def _cancel(self) -> None:
        self._initial_scan.stop()
        self._import.cancel()

    def _view(self) -> View:
        done, total = self._initial_scan.progress()
        if done < total:
            return View(done, total, done * self._page_size, "initial scan")
        now = self._import.statistics()
        return View(now.log_bytes_done, now.log_bytes, now.bytes, counted(now.writes, "write"))

    def _where_it_stopped(self) -> str:
        number = self._import.statistics().number
        if number < 0:
            return "stopped before anything of the log was imported"
        return (
            f"stopped at {self._unit} {number}; the log is journaled up to there; import it again: that goes through "
            "the whole log once more, and ends as if it had not been stopped"
        )


def _print(journal: str, result: ImportResult, unit: str, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(_to_json(result))
        return
    done = result.statistics
    units = {"entry": "entries", "line": "lines"}[unit]
    click.echo(
        f"commit at LSN {result.commit.lsn}  {result.entries} {units}: {counted(done.writes, 'write')}, "
        f"{format_bytes(done.bytes)}, {done.zeros} zeroed, "
        f"{counted(done.commits, 'commit')}, {counted(done.marks, 'mark')}"
    )
    for mark in result.renamed:
        click.echo(f"mark {mark.name} is what the log calls {printable(mark.text)!r}")
    if done.marks_renamed > RENAMED_MAX:
        click.echo(f"and {counted(done.marks_renamed - RENAMED_MAX, 'more mark')} with another name than in the log")
    if not quiet:
        tell(f"next: mirrortool replay {quoted(journal)} MIRROR")


def _to_json(result: ImportResult) -> dict[str, object]:
    done = result.statistics
    return {
        "entries": result.entries,
        "writes": done.writes,
        "bytes": done.bytes,
        "zeros": done.zeros,
        "commits": done.commits,
        "marks": done.marks,
        "marks_renamed": done.marks_renamed,
        "renamed": [{"text": printable(mark.text), "name": mark.name} for mark in result.renamed],
        "lsn": result.commit.lsn,
        "chain": f"{result.commit.chain:016x}",
    }
