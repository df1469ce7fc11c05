"""What `mirrortool replay --dry-run` prints."""

from __future__ import annotations

from collections.abc import Collection

import click

from mirrortool import files
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.text import counted, format_bytes, format_seconds, format_time
from mirrortool.journal.directory import Journal
from mirrortool.journal.point import Until
from mirrortool.mirror.newmirror import check_names
from mirrortool.replay.forecast import Forecast, forecast
from mirrortool.replay.formerslots import check_place, former_slots
from mirrortool.replay.goalcommit import find_goal


def print_forecast(
    path: str,
    mirror: str,
    until: Until | None,
    delay: float,
    *,
    only: Collection[str] | None,
    flush_only: bool,
    replace_slot: bool,
    as_json: bool,
) -> None:
    """Say what a replay would do."""
    journal = Journal(path)
    check_names(journal, (), only)
    if not replace_slot and not files.exists(files.join(mirror, "mirror.json")):
        check_place(journal, mirror, former_slots(journal, mirror, None), None, is_new=True)
    _, target = find_goal(journal, until, delay, flush_only=flush_only)
    found = forecast(journal, mirror, target)
    if as_json:
        print_json(_to_json(mirror, found, journal.page_size))
        return
    begins = f"the base of LSN {found.start.base.lsn}" if found.start.base else f"LSN {found.start.position.lsn}"
    click.echo(f"from {begins} to the commit at LSN {found.goal.lsn} of {format_time(found.goal.time_ns)}")
    base = f"{format_bytes(found.start.base_bytes)} of the base, " if found.start.base else ""
    click.echo(f"reads {base}{format_bytes(found.start.journal_bytes)} of the journal, at most")
    click.echo(f"writes {counted(found.pages, 'page')}, {format_bytes(found.pages * journal.page_size)}, at most")
    if found.seconds is None:
        click.echo("no estimate of the time: this is the mirror's first replay")
    else:
        click.echo(f"takes about {format_seconds(found.seconds)}, at the rate of this mirror's last replay")


def _to_json(mirror: str, found: Forecast, page_size: int) -> dict[str, object]:
    return {
        "mirror": mirror,
        "is_new": found.is_new,
        "start_lsn": found.checkpoint.position.lsn,
        "base_lsn": found.start.base.lsn if found.start.base else None,
        "target_lsn": found.goal.lsn,
        "time_ns": found.goal.time_ns,
        "base_bytes": found.start.base_bytes,
        "journal_bytes": found.start.journal_bytes,
        "pages_most": found.pages,
        "bytes_most": found.pages * page_size,
        "seconds": None if found.seconds is None else round(found.seconds, 3),
    }
