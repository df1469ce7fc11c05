"""`mirrortool prune`."""

from __future__ import annotations

import click

from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, DURATION, SIZE, SLOT_LIMIT, SlotLimit, as_json, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.text import counted, describe_ahead, format_bytes, printable, quoted, tell
from mirrortool.errors import UsageError
from mirrortool.journal.retention.prune import Keep, Pruned, prune


@click.command("prune")
@click.argument("journal", type=DIRECTORY)
@click.option("--keep", type=DURATION, metavar="DURATION", help="Keep every commit of the last DURATION restorable.")
@click.option("--keep-size", type=SIZE, metavar="SIZE", help="Keep the newest files that fit into this size together.")
@click.option(
    "--max-slot-lag", type=SLOT_LIMIT, metavar="SIZE|DURATION",
    help="Do not keep files for a slot that is further behind; its mirror starts over from a base.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what would be removed; remove nothing.")
@as_json
@quiet
@writes_in("journal")
def command(
    journal: str,
    keep: float | None,
    keep_size: int | None,
    max_slot_lag: SlotLimit | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Remove the oldest journal files and bases that neither a slot nor --keep and --keep-size need.

    Only what a newer base stands for is removed: mirrortool base makes one. Recorders and readers may run meanwhile.
    """
    if keep is None and keep_size is None:
        raise UsageError("what is to stay? give --keep, --keep-size, or both")
    lag = max_slot_lag or SlotLimit(None, None)
    pruned = prune(journal, Keep(keep, keep_size, lag.size, lag.seconds), dry_run=dry_run)
    if as_json:
        print_json(_to_json(journal, pruned, dry_run))
    else:
        _print(pruned, dry_run)
    if ahead := describe_ahead(pruned.newest_ns, pruned.ahead_seconds):
        tell(f"mirrortool: WARNING: {ahead}; --keep counts from this host's clock")
    if pruned.plan.needs_base and not quiet:
        tell(f"older files are kept, because no base replaces them; next: mirrortool base {quoted(journal)}")


def _print(pruned: Pruned, dry_run: bool) -> None:
    for slot in pruned.plan.lost:
        verb = "would be" if dry_run else "is"
        click.echo(f"slot {slot.name} {verb} LOST: {printable(slot.where)} starts over from a base")
    verb = "would remove" if dry_run else "removed"
    gone = f"{counted(len(pruned.plan.files), 'file')}, {counted(len(pruned.plan.bases), 'base')}"
    click.echo(f"{verb} {gone}, {format_bytes(pruned.size)}; {counted(pruned.kept, 'file')} left")
    if pruned.plan.holds:
        hold = pruned.plan.holds[0]
        click.echo(f"kept: everything from LSN {max(hold.lsn, 1)}: {hold.why}")


def _to_json(journal: str, pruned: Pruned, dry_run: bool) -> dict[str, object]:
    return {
        "journal": journal,
        "dry_run": dry_run,
        "files_removed": list(pruned.plan.files),
        "bases_removed": list(pruned.plan.bases),
        "bytes_removed": pruned.size,
        "files_kept": pruned.kept,
        "slots_lost": [slot.name for slot in pruned.plan.lost],
        "held_by": [{"lsn": hold.lsn, "why": hold.why} for hold in pruned.plan.holds],
        "ahead_seconds": pruned.ahead_seconds,
        "needs_base": pruned.plan.needs_base,
    }
