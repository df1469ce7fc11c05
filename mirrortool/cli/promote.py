"""`mirrortool promote`."""

from __future__ import annotations

import signal
import sys

import click

from mirrortool import clock
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import DIRECTORY, POINT, POINT_METAVAR, as_json, complete_point, quiet
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.replayview import view_of
from mirrortool.cli.signals import number_of
from mirrortool.cli.text import counted, format_bytes, format_seconds, format_time, printable, quoted, tell
from mirrortool.cli.verify import verify_with_display
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import UsageError
from mirrortool.journal.point import Until
from mirrortool.mirror.checkpoint import Checkpoint, describe
from mirrortool.mirror.findings import count_pages
from mirrortool.mirror.findings import describe as describe_known
from mirrortool.promote import Promotion, PromotionPlan
from mirrortool.replay.session import Replay


@click.command("promote")
@click.argument("mirror", type=DIRECTORY)
@click.option(
    "--journal", metavar="JOURNAL", type=DIRECTORY, help="Where the journal is.  [default: as at the last replay]"
)
@click.option(
    "--until", type=POINT, metavar=POINT_METAVAR, shell_complete=complete_point,
    help="Promote at the last commit at or before this.  [default: the newest]",
)  # fmt: skip
@click.option("--allow-fuzzy", is_flag=True, help="Also promote a fuzzy commit: a volume changed while it was scanned.")
@click.option(
    "--force-known-bad", is_flag=True,
    help="Also promote a mirror with pages that are known to be bad.",
)  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Do not prove the mirror first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@as_json
@quiet
@writes_in("mirror", "journal")
def command(
    mirror: str,
    journal: str | None,
    until: Until | None,
    allow_fuzzy: bool,
    force_known_bad: bool,
    no_verify: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a mirror the primary of its journal, when the old primary has died.

    The mirror is brought to the last commit that has arrived, and verified. What the journal has after that is moved
    aside, and the journal gets a new epoch, so that nothing that the old primary still records is accepted. Then
    mirrortool record serves the mirror's volumes. If a promotion is interrupted, run it again to complete it; until
    then neither journal nor mirror can be used.
    """
    with Promotion(
        mirror, journal_path=journal, until=until, allow_fuzzy=allow_fuzzy, force_known_bad=force_known_bad
    ) as promotion:
        plan = promotion.plan
        if plan and not (as_json and dry_run):
            _tell_plan(promotion, plan)
        elif promotion.promoted and not promotion.is_complete:
            tell(f"completing the promotion that was begun on {format_time(promotion.promoted.time_ns)}")
        verified = None
        if not dry_run:
            if plan:
                _confirm(yes)
                verified = _prepare(promotion, no_verify, quiet)
            _carry_out(promotion)
        _print(promotion, verified, as_json, dry_run, quiet)


def _tell_plan(promotion: Promotion, plan: PromotionPlan) -> None:
    """What will happen, before it does; on standard error, also with --quiet."""
    commit, dropped, mirror = plan.commit, plan.dropped, promotion.mirror
    name = f" {commit.name}" if commit.name else ""
    tell(
        f"mirror {printable(mirror.path)} becomes the primary at the commit of LSN {commit.lsn}{name} "
        f"({commit.kind.name.lower()})\n  of {format_time(commit.time_ns)}, "
        f"{format_seconds(plan.age_seconds)} ago; what was written since is lost"
    )
    if promotion.known_bad:
        tell(f"  WARNING: {printable(describe_known(mirror, promotion.known_bad, clock.now_ns()))}")
    if plan.operations_to_replay:
        tell(f"  {counted(plan.operations_to_replay, 'operation')} of the journal will be replayed first")
    if dropped.size:
        tell(
            f"  dropped: {counted(dropped.operations, 'operation')} in {counted(dropped.frames, 'frame')}, "
            f"{format_bytes(dropped.size)}, moved to {printable(promotion.journal.forked_path)}"
        )
    else:
        tell("  the journal has nothing after it")
    if dropped.problem:
        tell(f"  WARNING: the dropped part cannot be read to its end: {printable(dropped.problem)}")
    tell("  make sure that the old primary has stopped and stays stopped: writes of its clients would be lost")


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("promote asks before it acts, and there is no terminal to ask at; give --yes")
    if not click.confirm("Promote?", err=True):
        raise Interrupted(signal.SIGINT, "not promoted; nothing was changed")


def _prepare(promotion: Promotion, no_verify: bool, quiet: bool) -> bool:
    """Replay and verify with a display; whether the mirror was proved."""
    promotion.drain(lambda replay: _replay(replay, quiet), verifies=not no_verify)
    if no_verify:
        tell("mirrortool: WARNING: the mirror was not verified")
        return False
    promotion.verify(lambda verify: verify_with_display(verify, quiet, "not promoted; the mirror is still a mirror"))
    return True


def _carry_out(promotion: Promotion) -> None:
    try:
        promotion.carry_out()
    except KeyboardInterrupt as error:
        again = "interrupted; run mirrortool promote again, which completes it"
        raise Interrupted(number_of(error), again) from None


def _replay(replay: Replay, quiet: bool) -> Checkpoint:
    start, goal = replay.mirror.checkpoint.position.lsn, replay.goal
    assert goal is not None

    with Display("replay", quiet=quiet) as display:

        def view() -> View:
            return view_of(replay.statistics(), start, goal)

        runner = Runner(replay.run, replay.cancel, lambda: display.answer(view()))
        checkpoint = runner.run(lambda: display.show(view()))
    if runner.signal_number and checkpoint.position != goal.position:
        raise Interrupted(runner.signal_number, f"not promoted; {describe(checkpoint)}")
    return checkpoint


def _print(promotion: Promotion, verified: bool | None, as_json: bool, dry_run: bool, quiet: bool) -> None:
    if as_json:
        print_json(_to_json(promotion, verified))
    elif dry_run and not promotion.is_complete:
        click.echo("nothing was changed")
    elif promotion.promoted:
        epoch = promotion.promoted.epoch
        click.echo(
            f"{printable(promotion.mirror.path)} is the primary of epoch {epoch.number}, "
            f"which begins after LSN {epoch.start.lsn}"
        )
        if not quiet:
            scan = "--scan " if promotion.known_bad else ""  # the journal has other content for the bad pages
            tell(f"next: mirrortool record {quoted(promotion.journal.path)} {scan}--nbd unix:SOCKET")


def _to_json(promotion: Promotion, verified: bool | None) -> dict[str, object]:
    plan, promoted = promotion.plan, promotion.promoted
    position = promoted.epoch.start if promoted else plan.commit.position if plan else None
    return {
        "mirror": promotion.mirror.path,
        "journal": promotion.journal.path,
        "is_complete": promotion.is_complete,
        "lsn": position.lsn if position else None,
        "chain": f"{position.chain:016x}" if position else None,
        "epoch": promoted.epoch.number if promoted else None,
        "verified": verified,
        "known_bad_pages": count_pages(promotion.known_bad),
        "commit": _plan_to_json(plan) if plan else None,
    }


def _plan_to_json(plan: PromotionPlan) -> dict[str, object]:
    return {
        "time_ns": plan.commit.time_ns,
        "kind": plan.commit.kind.name.lower(),
        "name": plan.commit.name,
        "state_sum": f"{plan.commit.state_sum:016x}",
        "age_seconds": round(plan.age_seconds, 3),
        "operations_to_replay": plan.operations_to_replay,
        "frames_dropped": plan.dropped.frames,
        "operations_dropped": plan.dropped.operations,
        "bytes_dropped": plan.dropped.size,
        "problem": plan.dropped.problem,
    }
