"""`mirrortool slot`."""

from __future__ import annotations

import click

from mirrortool.cli.jsonoutput import hold_to_json, print_json
from mirrortool.cli.options import DIRECTORY, as_json, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.text import columns, format_bytes, format_time, printable, quoted, tell
from mirrortool.errors import UsageError
from mirrortool.journal.copies.basetransfer import open_finished
from mirrortool.journal.directory import Journal
from mirrortool.journal.holds import holds
from mirrortool.journal.retention.prune import held_bytes
from mirrortool.journal.slots import Slot, damaged_slots, drop, slots


class _Slots(click.Group):
    """`slot JOURNAL`, without a command, is told what to write."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            raise UsageError(
                f"{name!r} is not a command of slot", remedy=f"mirrortool slot list {quoted(name)}, or slot drop"
            )
        return super().resolve_command(ctx, args)


@click.group("slot", cls=_Slots, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the readers of a journal, and remove those that are gone.

    A slot is the registration of a reader: a mirror, or a copy that the journal is shipped to. The journal keeps what
    its slots need.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("list")
@click.argument("journal", type=DIRECTORY)
@as_json
def list_slots(journal: str, as_json: bool) -> None:
    """List the slots of a journal, by name."""
    opened = Journal(journal)
    listed = [(slot, held_bytes(opened, slot)) for slot in slots(opened)]
    damaged = damaged_slots(opened)
    reading = [(hold, held_bytes(opened, hold)) for hold in holds(opened)]
    if as_json:
        values = [_to_json(slot, held) for slot, held in listed]
        print_json({"slots": values, "damaged": list(damaged), "holds": [hold_to_json(*each) for each in reading]})
        return
    for problem in damaged.values():
        tell(f"mirrortool: {printable(str(problem))}")
    if not listed and not damaged and not reading:
        tell("no slots: no reader of this journal has registered")
        return
    heading = ("NAME", "KIND", "LSN", "TIME", "HOLDS BACK", "WHERE")
    for line in columns(heading, [_row(*each) for each in listed]) if listed else ():
        click.echo(line)
    for hold, held in reading:
        click.echo(f"{hold.why}: holds back {format_bytes(held)} until it ends")


@command.command("drop")
@click.argument("journal", type=DIRECTORY)
@click.argument("name")
@as_json
@quiet
@writes_in("journal")
def drop_slot(journal: str, name: str, as_json: bool, quiet: bool) -> None:
    """Remove a slot: what the journal kept for it may be pruned.

    If its reader still runs, it continues while the files that it needs are there; then it starts over from a base.
    """
    opened = open_finished(journal)
    slot = drop(opened, name)
    if as_json:
        print_json(_dropped_to_json(opened, name, slot))
    elif slot is None:
        click.echo(f"dropped slot {name}, whose file was not valid: what it held back is not known")
    else:
        click.echo(f"dropped slot {slot.name} of {printable(slot.where)}, which held back {_held(slot, opened)}")
    if not quiet and slot and slot.holds_back:
        tell(
            f"its reader starts over from a base if that is pruned; next: mirrortool prune {quoted(journal)} --keep 7d"
        )


def _held(slot: Slot, journal: Journal) -> str:
    return format_bytes(held_bytes(journal, slot)) if slot.holds_back else "nothing"


def _row(slot: Slot, held: int) -> tuple[str, ...]:
    if slot.resync_lsn:
        state = f"{format_bytes(held)}, starts over from the base of LSN {slot.resync_lsn}"
    elif slot.is_lost:
        state = "LOST"
    else:
        state = format_bytes(held) if slot.holds_back else f"nothing, reads the copy of slot {slot.via}"
    return slot.name, slot.kind, str(slot.position.lsn), format_time(slot.time_ns), state, slot.where


def _dropped_to_json(journal: Journal, name: str, slot: Slot | None) -> dict[str, object]:
    if slot is None:
        return {"name": name, "where": None, "held_bytes": None}
    return {"name": name, "where": slot.where, "held_bytes": held_bytes(journal, slot) if slot.holds_back else 0}


def _to_json(slot: Slot, held: int) -> dict[str, object]:
    return {
        "name": slot.name,
        "kind": slot.kind,
        "where": slot.where,
        "owner": slot.owner,
        "lsn": slot.position.lsn,
        "chain": f"{slot.position.chain:016x}",
        "time_ns": slot.time_ns,
        "updated_ns": slot.updated_ns,
        "is_lost": slot.is_lost,
        "via": slot.via,
        "resync_lsn": slot.resync_lsn,
        "held_bytes": held,
    }
