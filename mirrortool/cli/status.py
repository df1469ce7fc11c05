"""`mirrortool status`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from mirrortool import clock
from mirrortool.cli.options import DIRECTORY, DURATION, as_json
from mirrortool.cli.signals import Signals
from mirrortool.cli.text import describe_ahead, describe_silence, format_bytes, format_seconds, format_time, printable
from mirrortool.errors import LagError, UsageError
from mirrortool.operation import CommitKind
from mirrortool.replay.session import describe
from mirrortool.status import JournalStatus, MirrorStatus, SlotStatus, Watch, lags_of

WATCH_SECONDS = 2.0

Found = Sequence[JournalStatus | MirrorStatus]

_KINDS_TOLD = (CommitKind.FUZZY, CommitKind.INCOMPLETE, CommitKind.HEARTBEAT)


@click.command("status")
@click.argument("paths", metavar="PATH...", type=DIRECTORY, nargs=-1, required=True)
@click.option("--watch", "is_watching", is_flag=True, help="Show it again every two seconds, until a signal.")
@click.option(
    "--max-lag",
    type=DURATION,
    metavar="DURATION",
    help="Exit 50 if a mirror or copy is further behind, or that is not known.",
)
@as_json
def command(paths: tuple[str, ...], is_watching: bool, max_lag: float | None, as_json: bool) -> None:
    """Show how journals and mirrors stand, and how a running recorder does.

    Exits with what is wrong with the first journal that is torn or damaged; everything is printed before.
    """
    with Watch() as watch:
        if is_watching:
            _watch(watch, paths, max_lag, as_json)
            return
        found = [watch.look(path) for path in paths]
    _show(found, as_json)
    damage = next((each.damage for each in found if each.damage), None)
    if damage:
        raise damage
    _check_lags(found, max_lag)


def _watch(watch: Watch, paths: Sequence[str], max_lag: float | None, as_json: bool) -> None:
    """Show everything again and again, until SIGINT or SIGTERM; what is damaged does not end it, a lag does."""
    with Signals() as signals:
        while not signals.number:
            found = [watch.look(path) for path in paths]
            if not as_json:
                click.clear()
                click.echo(format_time(clock.now_ns()))
            _show(found, as_json)
            for damage in (each.damage for each in found if each.damage and not as_json):
                click.echo(printable(str(damage)))
            sys.stdout.flush()
            _check_lags(found, max_lag)
            signals.wait(WATCH_SECONDS)


def _check_lags(found: Found, max_lag: float | None) -> None:
    """No mirror is further behind than that.

    Raises:
        LagError: one is, or that is not known.
        UsageError: there is no mirror.
    """
    if max_lag is None:
        return
    lags = [each for status in found for each in lags_of(status)]
    if not lags:
        raise UsageError("--max-lag needs a mirror among the paths, or a journal with slots")
    for name, seconds in lags:
        if seconds is None:
            raise LagError(
                "how far the mirror is behind is not known",
                where=name,
                remedy="status of its journal tells why",
            )
        if seconds > max_lag:
            raise LagError(f"{format_seconds(seconds)} behind, more than {format_seconds(max_lag)}", where=name)


def _show(found: Found, as_json: bool) -> None:
    if as_json:
        values = [
            _journal_to_json(each) if isinstance(each, JournalStatus) else _mirror_to_json(each) for each in found
        ]
        click.echo(json.dumps(values[0] if len(values) == 1 else {"paths": values}))
        return
    for each in found:
        _print_journal(each) if isinstance(each, JournalStatus) else _print_mirror(each)


def _print_journal(status: JournalStatus) -> None:
    journal = status.journal
    click.echo(f"journal {printable(journal.path)}")
    for volume in status.volumes:
        path = journal.volume_paths().get(volume.name)
        click.echo(f"  volume {volume.name}: {format_bytes(volume.size)}{'  ' + printable(path) if path else ''}")
    click.echo(f"  {status.file_count} files, {format_bytes(status.size)}, up to LSN {status.head.lsn}")
    if status.commit:
        kind = status.commit.kind
        what = f" ({kind.name.lower()})" if kind in _KINDS_TOLD else ""
        click.echo(f"  newest commit {status.commit.lsn}{what} of {format_time(status.commit.time_ns)}")
        behind = status.head.lsn - status.commit.lsn
        if behind:
            click.echo(f"  {behind} operations that are not committed follow it")
    else:
        click.echo("  no commit yet; next: mirrortool record")
    if status.recorder is not None:
        _print_recorder(status.recorder)
    for reader in status.readers:
        click.echo(f"  {_reader_line(reader)}")
    _print_silence(status)


def _reader_line(reader: SlotStatus) -> str:
    slot = reader.slot
    if reader.lag_operations is None or reader.lag_seconds is None:
        how = f"starts over from base {slot.resync_lsn}" if slot.resync_lsn else "LOST"
    elif reader.lag_operations:
        how = f"{reader.lag_operations} operations and {format_seconds(reader.lag_seconds)} behind"
    else:
        how = "has everything that is committed"
    return f"slot {slot.name}, {slot.kind} at {printable(slot.where)}: {how}"


def _print_silence(status: JournalStatus) -> None:
    if silence := describe_silence(status.time_ns, status.silent_seconds):
        click.echo(f"  {silence}")
    if ahead := describe_ahead(status.time_ns, status.ahead_seconds):
        click.echo(f"  {ahead}")


def _print_recorder(recorder: Mapping[str, Any]) -> None:
    """A recorder may be of another version: what it does not say is not shown."""
    clients = sum(export.get("clients", 0) for export in recorder.get("exports", ()))
    waiting = format_bytes(recorder.get("bytes_waiting", 0))
    click.echo(f"  being recorded: {clients} client{'s' * (clients != 1)}, {waiting} on the way to the volumes")
    if recorder.get("incomplete"):
        done, total = recorder.get("base", (0, 0))
        problem = printable(str(recorder.get("base_problem") or ""))
        click.echo(f"  the base is not complete: {done} of {total} pages are read{'; ' + problem if problem else ''}")
    if recorder.get("problem"):
        click.echo(f"  {printable(str(recorder['problem']))}")


def _print_mirror(status: MirrorStatus) -> None:
    mirror, checkpoint = status.mirror, status.checkpoint
    click.echo(f"mirror {printable(mirror.path)} of {printable(mirror.journal_path)}")
    for volume, kept in zip(mirror.volumes, mirror.kept, strict=True):
        click.echo(f"  volume {volume.name}: {format_bytes(volume.size)}  {printable(mirror.volume_path(kept))}")
    when = f", {format_time(checkpoint.time_ns)}" if checkpoint.time_ns else ""
    click.echo(f"  {describe(checkpoint)}{when}")
    if last := status.last_replay:
        click.echo(
            f"  last replay: {last.units} units, {last.direct} direct, {last.mini_queue} through mini queues, "
            f"{last.counter_waits} after a counter wait, {last.given_back} given back"
        )
    if mirror.promoted:
        since, where = format_time(mirror.promoted.time_ns), printable(mirror.promoted.journal_path)
        then = (
            f"and replaced since: it is not recorded in {where} any more" if status.damage else f"recorded in {where}"
        )
        click.echo(f"  promoted on {since} to the primary of epoch {mirror.promoted.epoch.number}, {then}")
    elif status.lag_operations is None or status.lag_seconds is None:
        click.echo("  its journal is not at hand, so how far it is behind is not known")
    elif status.lag_operations:
        click.echo(f"  {status.lag_operations} operations and {format_seconds(status.lag_seconds)} behind its journal")
    elif status.damage is None:
        click.echo("  applied everything that its journal has committed; mirrortool verify proves the content")
    if status.journal:
        _print_silence(status.journal)


def _journal_to_json(status: JournalStatus) -> dict[str, object]:
    journal, commit = status.journal, status.commit
    return {
        "type": "journal",
        "path": journal.path,
        "uuid": journal.uuid.hex(),
        "epoch": journal.epoch,
        "page_size": journal.page_size,
        "volumes": [{"name": volume.name, "size": volume.size} for volume in status.volumes],
        "head_lsn": status.head.lsn,
        "commit_lsn": commit.lsn if commit else None,
        "commit_kind": commit.kind.name.lower() if commit else None,
        "commit_time_ns": commit.time_ns if commit else None,
        "files": status.file_count,
        "bytes": status.size,
        "head_time_ns": status.time_ns,
        "silent_seconds": status.silent_seconds,
        "ahead_seconds": status.ahead_seconds,
        "damage": str(status.damage) if status.damage else None,
        "recorder": status.recorder,
        "slots": [_reader_to_json(reader) for reader in status.readers],
    }


def _reader_to_json(reader: SlotStatus) -> dict[str, object]:
    slot = reader.slot
    lag = None
    if reader.lag_operations is not None:
        lag = {"operations": reader.lag_operations, "seconds": reader.lag_seconds}
    return {
        "name": slot.name,
        "kind": slot.kind,
        "where": slot.where,
        "applied_lsn": slot.position.lsn,
        "time_ns": slot.time_ns,
        "updated_ns": slot.updated_ns,
        "is_lost": slot.is_lost,
        "via": slot.via,
        "lag": lag,
    }


def _mirror_to_json(status: MirrorStatus) -> dict[str, object]:
    mirror, checkpoint = status.mirror, status.checkpoint
    lag = None
    if status.lag_operations is not None:
        lag = {"operations": status.lag_operations, "seconds": status.lag_seconds}
    return {
        "type": "mirror",
        "path": mirror.path,
        "journal": mirror.journal_path,
        "journal_uuid": mirror.journal_uuid.hex(),
        "volumes": [{"name": volume.name, "size": volume.size} for volume in mirror.volumes],
        "applied_lsn": checkpoint.position.lsn,
        "commit_lsn": checkpoint.commit_lsn,
        "reached_lsn": checkpoint.reached_lsn,
        "is_consistent": checkpoint.is_consistent,
        "is_fuzzy": checkpoint.is_fuzzy,
        "is_incomplete": checkpoint.is_incomplete,
        "state_sum": f"{checkpoint.state_sum:016x}",
        "time_ns": checkpoint.time_ns,
        "head_lsn": status.journal.head.lsn if status.journal else None,
        "head_time_ns": status.journal.time_ns if status.journal else None,
        "silent_seconds": status.journal.silent_seconds if status.journal else None,
        "ahead_seconds": status.journal.ahead_seconds if status.journal else None,
        "lag": lag,
        "promoted": mirror.promoted.to_json() if mirror.promoted else None,
        "last_replay": asdict(status.last_replay) if status.last_replay else None,
    }
