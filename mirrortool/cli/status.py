"""`mirrortool status`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from mirrortool.cli.options import DIRECTORY, as_json
from mirrortool.cli.text import format_bytes, format_seconds, format_time, printable
from mirrortool.operation import CommitKind
from mirrortool.replay.session import describe
from mirrortool.status import JournalStatus, MirrorStatus, status_of


@click.command("status")
@click.argument("paths", metavar="PATH...", type=DIRECTORY, nargs=-1, required=True)
@as_json
def command(paths: tuple[str, ...], as_json: bool) -> int:
    """Show how journals and mirrors stand, and how a running recorder does.

    Exits with what is wrong with the first journal that is torn or damaged; everything is printed before.
    """
    found = [status_of(path) for path in paths]
    if as_json:
        values = [
            _journal_to_json(each) if isinstance(each, JournalStatus) else _mirror_to_json(each) for each in found
        ]
        click.echo(json.dumps(values[0] if len(values) == 1 else {"paths": values}))
    else:
        for each in found:
            _print_journal(each) if isinstance(each, JournalStatus) else _print_mirror(each)
    damage = next((each.damage for each in found if each.damage), None)
    if damage:
        raise damage
    return 0


def _print_journal(status: JournalStatus) -> None:
    journal = status.journal
    click.echo(f"journal {printable(journal.path)}")
    for volume in status.volumes:
        path = journal.volume_paths().get(volume.name)
        click.echo(f"  volume {volume.name}: {format_bytes(volume.size)}{'  ' + printable(path) if path else ''}")
    click.echo(f"  {status.file_count} files, {format_bytes(status.size)}, up to LSN {status.head.lsn}")
    if status.commit:
        kind = status.commit.kind
        what = f" ({kind.name.lower()})" if kind in (CommitKind.FUZZY, CommitKind.INCOMPLETE) else ""
        click.echo(f"  newest commit {status.commit.lsn}{what} of {format_time(status.commit.time_ns)}")
        behind = status.head.lsn - status.commit.lsn
        if behind:
            click.echo(f"  {behind} operations that are not committed follow it")
    else:
        click.echo("  no commit yet; next: mirrortool record")
    if status.recorder is not None:
        _print_recorder(status.recorder)


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
    if status.lag_operations is None or status.lag_seconds is None:
        click.echo("  its journal is not at hand, so how far it is behind is not known")
    elif status.lag_operations:
        click.echo(f"  {status.lag_operations} operations and {format_seconds(status.lag_seconds)} behind its journal")
    elif status.damage is None:
        click.echo("  applied everything that its journal has committed; mirrortool verify proves the content")


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
        "damage": str(status.damage) if status.damage else None,
        "recorder": status.recorder,
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
        "lag": lag,
        "last_replay": asdict(status.last_replay) if status.last_replay else None,
    }
