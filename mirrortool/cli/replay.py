"""`mirrortool replay`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import click

from mirrortool import clock, files
from mirrortool.cli.forecast import print_forecast
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import (
    BACK,
    DIRECTORY,
    DURATION,
    FILE,
    NAMED_PATH,
    POINT,
    POINT_METAVAR,
    RATE,
    SIZE,
    as_json,
    complete_point,
    complete_volume,
    complete_volume_name,
    group,
    quiet,
    verbose,
)
from mirrortool.cli.otherusers import writes_in
from mirrortool.cli.progressdisplay import Display, View
from mirrortool.cli.replayfollow import Following, FollowWatch, describe_lag, waited_for
from mirrortool.cli.replaytrace import TraceFile
from mirrortool.cli.replayview import view_of
from mirrortool.cli.servicestate import Service, metrics_file
from mirrortool.cli.text import columns, counted, format_bytes, format_time, quoted, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import JournalError, UsageError
from mirrortool.journal.commits import Commit
from mirrortool.journal.tail import OBSERVERS
from mirrortool.metrics import Sample, replay_samples
from mirrortool.mirror.checkpoint import Checkpoint, describe
from mirrortool.mirror.findings import count_pages
from mirrortool.mirror.findings import describe as describe_known
from mirrortool.replay.planner import Wanted
from mirrortool.replay.ranges import RANGES, busy_groups_of_space
from mirrortool.replay.replayoptions import ReplayOptions
from mirrortool.replay.session import Replay, ReplayStatistics
from mirrortool.replay.slotregistration import OWN_SLOT
from mirrortool.replay.tasktable import RowSnapshot


@click.command("replay")
@click.argument("journal", type=DIRECTORY)
@click.argument("mirror", type=DIRECTORY)
@click.option(
    "--until", type=POINT, metavar=POINT_METAVAR, shell_complete=complete_point,
    help="Stop at the last commit at or before this.  [default: the newest]",
)  # fmt: skip
@click.option(
    "--volume", "targets", multiple=True, type=NAMED_PATH, metavar="NAME=PATH|URI", shell_complete=complete_volume,
    help="Keep a new mirror's volume in this file, device or NBD export, not in MIRROR/volumes.",
)  # fmt: skip
@click.option(
    "--only", multiple=True, metavar="VOLUME", shell_complete=complete_volume_name,
    help="A new mirror holds only this volume, and the sums of all.",
)  # fmt: skip
@click.option(
    "--back", "backings", multiple=True, type=BACK, metavar="PATH[:SIZE]",
    help="Keep the volumes that no --volume names in extents on this file or device, and others named likewise.",
)  # fmt: skip
@click.option(
    "--extent", "extent_bytes", type=SIZE, metavar="SIZE",
    help="Bytes of an extent on them, from 64K to 16M.  [default: 1M]",
)  # fmt: skip
@click.option(
    "--overwrite", is_flag=True, help="Allow --volume and --back to overwrite what these files and devices hold."
)
@click.option("--raw", is_flag=True, help="With --overwrite: also an image in a container format, such as qcow2.")
@click.option(
    "--ranges",
    type=click.Choice(RANGES),
    default="auto",
    show_default=True,
    help="How groups share the addresses.",
)
@click.option("--groups", type=int, help="Task groups.  [default: chosen from the first writes]")
@click.option("--tasks", type=int, help="Tasks in each group.  [default: chosen from the first writes]")
@click.option(
    "--unit", type=click.Choice(["auto", "batch", "op"]), default="auto", show_default=True,
    help="What a task gets at once: hundreds of pages, or one operation.",
)  # fmt: skip
@click.option(
    "--io", type=click.Choice(["auto", "buffered", "direct"]), default="auto", show_default=True,
    help="Write through the page cache, or without it (O_DIRECT).",
)  # fmt: skip
@click.option(
    "--trace",
    metavar="FILE",
    type=FILE,
    help="Write a JSON line for each unit of work: LSN, range, group, task, and how it ran.",
)
@click.option(
    "--max-size", type=SIZE, default="16T", show_default=True, metavar="SIZE",
    help="Refuse a journal if its volumes together are larger.",
)  # fmt: skip
@click.option("--no-check", is_flag=True, help="Do not read the written pages back from the device.")
@click.option("--follow", is_flag=True, help="Keep running: replay each commit as it comes, until SIGINT or SIGTERM.")
@click.option(
    "--observer", type=click.Choice(OBSERVERS), default="auto", show_default=True,
    help="How to notice that the journal grows: by events, or by looking at file sizes (NFS).",
)  # fmt: skip
@click.option(
    "--delay",
    type=DURATION,
    metavar="DURATION",
    help="Keep the mirror this far behind: at the newest commit that is at least this old.",
)
@click.option(
    "--bwlimit", type=RATE, metavar="RATE", help="Read at most this much of the journal in a second, such as 10M."
)
@click.option("--flush-only", is_flag=True, help="Stop only at a commit that a client's flush asked for, or at a mark.")
@click.option("--dry-run", is_flag=True, help="Print what would be read and written; change nothing.")
@click.option("--slot", metavar="NAME", help="Name of the mirror's slot, for which the journal keeps what it needs.")
@click.option("--no-slot", is_flag=True, help="Register no slot: the journal may be read-only.")
@click.option("--replace-slot", is_flag=True, help="The mirror that was here is gone for good: remove its slot, too.")
@metrics_file
@as_json
@group
@verbose
@quiet
@writes_in("mirror", "journal")
def command(
    journal: str,
    mirror: str,
    follow: bool,
    trace: str | None,
    metrics_file: str | None,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Bring a mirror up to a commit of its journal; a first replay makes the mirror.

    Operations on different ranges of the address space go to different task groups; within a group, those that touch
    the same pages keep their order and all others run in parallel. Whatever stops a replay, the next one resumes from
    the last checkpoint. With --follow it keeps running: it replays the journal, and then each commit as it comes.
    """
    check_options(click.get_current_context().params)
    if values["dry_run"]:
        until, delay, flush_only = values["until"], values["delay"] or 0.0, values["flush_only"]
        replaces = values["replace_slot"]
        print_forecast(
            journal, mirror, until, delay,
            only=values["only"] or None, flush_only=flush_only, replace_slot=replaces, as_json=as_json,
        )  # fmt: skip
        return
    if follow and not waited_for(journal, quiet):
        return
    with ExitStack() as opened:
        tracer = opened.enter_context(TraceFile(trace)) if trace else None
        options = replace(_options(values), follow=follow, tracer=tracer.write if tracer else None)
        open_first = partial(Replay, journal, mirror, options)
        open_again = partial(Replay, journal, mirror, replace(options, replace_slot=False))
        following = opened.enter_context(Following(open_first, open_again))
        if tracer:
            tracer.begin()
        start = following.replay.mirror.checkpoint.position.lsn
        was_stopped = 0
        try:
            if follow:
                following.run(lambda replay: _run(replay, metrics_file, quiet, verbose, is_again=following.is_again))
            else:
                was_stopped = _run(following.replay, metrics_file, quiet, verbose)
        except JournalError:
            _print(following.replay, start, as_json)  # what is wrong comes after what could be done with the journal
            raise
        _print(following.replay, start, as_json)
        if was_stopped:
            raise Interrupted(was_stopped, "stopped; the next replay resumes from there")
    if not quiet:
        tell(_next_step(journal, mirror, following.replay.mirror.checkpoint))


def _options(values: Mapping[str, Any]) -> ReplayOptions:
    """How to replay, as the command line says."""
    until, slot = values["until"], values["slot"]
    unit, io = (None if values[name] == "auto" else values[name] for name in ("unit", "io"))
    # A restore to a point in time is over when it ends: it must not hold the journal back.
    is_restore = until is not None and not until.is_newest
    return ReplayOptions(
        until=until,
        flush_only=values["flush_only"],
        plan=Wanted(values["ranges"], values["groups"], values["tasks"], unit, io),
        targets=dict(values["targets"]),
        only=values["only"] or None,
        backings=values["backings"],
        extent_bytes=values["extent_bytes"],
        overwrite=values["overwrite"],
        raw=values["raw"],
        read_back=not values["no_check"],
        max_bytes=values["max_size"],
        observer=values["observer"],
        delay_seconds=values["delay"] or 0.0,
        bytes_per_second=values["bwlimit"],
        slot=None if values["no_slot"] or (is_restore and slot is None) else slot or OWN_SLOT,
        replace_slot=values["replace_slot"],
        group=values["group"],
    )


def _next_step(journal: str, mirror: str, checkpoint: Checkpoint) -> str:
    if checkpoint.is_consistent:
        return f"next: mirrortool verify {quoted(mirror)}"
    return f"the mirror is between two commits; next: mirrortool replay {quoted(journal)} {quoted(mirror)}"


def check_options(values: Mapping[str, Any]) -> None:
    """Check that options which are each valid are valid together.

    Raises:
        UsageError: they do not.
    """
    if len(dict(values["targets"])) != len(values["targets"]):
        raise UsageError("a volume is named twice by --volume")
    if values["slot"] is not None and values["no_slot"]:
        raise UsageError("--slot and --no-slot exclude each other")
    if values["follow"] and (values["flush_only"] or values["dry_run"]):
        raise UsageError("--flush-only and --dry-run are for a replay that ends, not for --follow")
    if values["trace"] and files.absolute(values["trace"]) == files.absolute(values["mirror"]):
        raise UsageError("--trace and MIRROR have the same path")


def _run(replay: Replay, metrics_file: str | None, quiet: bool, verbose: bool, *, is_again: bool = False) -> int:
    """Replay with a display; returns the signal that ended it early, or 0. Following has no end, so none is early."""
    with (
        Display("replay", quiet=quiet) as display,
        Service(metrics_file, lambda running: _samples(replay, running), display.warn) as service,
    ):
        goal = replay.goal
        watch = (
            _GoalWatch(display, replay, goal, verbose=verbose)
            if goal
            else FollowWatch(display, replay, is_again=is_again, verbose=verbose)
        )
        noted = _ChoiceNote(display) if verbose else None
        if not is_again:
            _note_single_range(display, replay)
            _note_places(display, replay)

        def work() -> Checkpoint:
            service.ready("replaying")
            return replay.run()

        def tick() -> None:
            now = replay.statistics()
            if noted:
                noted.look(now)
            watch.tick(now)
            service.tick(now.waits_for or describe_lag(now.lag))

        def inspect() -> None:
            watch.answer(replay.statistics())
            _print_tables(replay)

        runner = Runner(work, service.before(replay.cancel), inspect)
        checkpoint = runner.run(tick)
    return runner.signal_number if replay.goal and checkpoint.position != replay.goal.position else 0


def _samples(replay: Replay, is_running: bool) -> list[Sample]:
    now, checkpoint = replay.statistics(), replay.mirror.checkpoint
    return replay_samples(
        files.absolute(replay.mirror.path),
        following=is_running and replay.goal is None,
        consistent=checkpoint.is_consistent,
        applied_lsn=checkpoint.position.lsn,
        applied_time_ns=checkpoint.time_ns,
        head_lsn=now.lag.head_lsn,
        replayed_bytes=now.progress.payload_bytes,
        lag_operations=now.lag.operations,
        lag_bytes=now.lag.bytes,
        lag_seconds=now.lag.seconds,
        heard_time_ns=now.lag.head_time_ns,
        silent_seconds=now.lag.silent_seconds,
    )


class _GoalWatch:
    """Shows how far a replay is on its way to its goal."""

    def __init__(self, display: Display, replay: Replay, goal: Commit, *, verbose: bool) -> None:
        self._display, self._goal, self._verbose = display, goal, verbose
        self._start = replay.mirror.checkpoint.position.lsn
        begun = f" from the base of LSN {replay.start.base.lsn}" if replay.start.base else ""
        display.note(f"replaying{begun} to the commit at LSN {goal.lsn} of {format_time(goal.time_ns)}")

    def tick(self, now: ReplayStatistics) -> None:
        self._display.show(self._view(now))

    def answer(self, now: ReplayStatistics) -> None:
        """Somebody asked (SIGUSR1)."""
        waits = [now.waits_for] if now.waits_for else []
        self._display.answer(self._view(now), *waits)

    def _view(self, now: ReplayStatistics) -> View:
        return view_of(now, self._start, self._goal, verbose=self._verbose, width=self._display.width)


class _ChoiceNote:
    """Says once how the replay is divided among threads, and why, when that is decided.

    Says nothing of a replay that ends before.
    """

    def __init__(self, display: Display) -> None:
        self._display: Display | None = display

    def look(self, now: ReplayStatistics) -> None:
        if self._display and now.choice.is_final:
            self._display.note(str(now.choice))
            self._display = None


def _note_single_range(display: Display, replay: Replay) -> None:
    """Say that the ranges of --ranges space leave all the work to one group."""
    plan = replay.statistics().choice.plan
    if plan.ranges == "space" and plan.groups > 1 and len(busy_groups_of_space(plan.groups, replay.mirror.volumes)) < 2:
        display.note(
            f"--ranges space leaves all work to one of {counted(plan.groups, 'group')}, as every volume lies in "
            "its range; --ranges equal divides each volume, and mirrortool init NAME=PATH@ADDRESS places volumes apart"
        )


def _note_places(display: Display, replay: Replay) -> None:
    """Say what is not held against others, and what answers when it is read back."""
    for kept in replay.mirror.kept:
        if why := kept.place.why_not_guarded():
            through = kept.place.read_through()
            read = f", and it is read back through {through}" if through else ""
            display.note(f"volume {kept.name} is at {kept.place.describe(replay.mirror.path)}: {why}{read}")


def _print_tables(replay: Replay) -> None:
    """Each group's active task table (FIG. 10), when SIGUSR1 comes."""
    rows = [_table_row(group, row) for group, table in enumerate(replay.tables()) for row in table]
    if not rows:
        tell("no task has work now")
        return
    for line in columns(("GROUP", "TASK", "PAGES", "MINI QUEUE", "COUNTER OF", "WAITS FOR"), rows):
        tell(line)


def _table_row(group: int, row: RowSnapshot) -> tuple[str, ...]:
    last = f"-{row.end - 1:#x}" if row.end > row.first + 1 else ""
    pages = f"{row.first:#x}{last}" if row.end else "cleared"
    counter = "-" if row.counter is None else f"task {row.counter}"
    mini = counted(len(row.mini), "unit") if row.mini else "-"
    waits_for = counted(row.waits_for, "task") if row.waits_for else "-"
    return str(group), str(row.task), pages, mini, counter, waits_for


def _print(replay: Replay, start: int, as_json: bool) -> None:
    now, checkpoint = replay.statistics(), replay.mirror.checkpoint
    if as_json:
        print_json(_to_json(replay, start, checkpoint))
        return
    click.echo(
        f"{describe(checkpoint)}  {format_time(checkpoint.time_ns)}  "
        f"{counted(checkpoint.position.lsn - start, 'operation')}, {format_bytes(now.progress.payload_bytes)} replayed"
    )
    if replay.known_bad:
        click.echo(f"KNOWN BAD: {describe_known(replay.mirror, replay.known_bad, clock.now_ns())}")


def _to_json(replay: Replay, start: int, checkpoint: Checkpoint) -> dict[str, object]:
    now = replay.statistics()
    return {
        "mirror": replay.mirror.path,
        "start_lsn": start,
        "base_lsn": replay.start.base.lsn if replay.start.base else None,
        "applied_lsn": checkpoint.position.lsn,
        "target_lsn": replay.goal.lsn if replay.goal else None,
        "head_lsn": now.lag.head_lsn,
        "lag": {"operations": now.lag.operations, "bytes": now.lag.bytes, "seconds": now.lag.seconds},
        "slot": replay.slot,
        "state_sum": f"{checkpoint.state_sum:016x}",
        "time_ns": checkpoint.time_ns,
        "is_consistent": checkpoint.is_consistent,
        "is_fuzzy": checkpoint.is_fuzzy,
        "is_incomplete": checkpoint.is_incomplete,
        "known_bad_pages": count_pages(replay.known_bad),
        "through_server_cache": replay.mirror.read_through is not None,
        "payload_bytes": now.progress.payload_bytes,
        "choice": {
            "groups": now.choice.plan.groups,
            "tasks": now.choice.plan.tasks,
            "unit": now.choice.plan.unit,
            "io": now.choice.plan.io,
            "reason": now.choice.reason,
        },
        "groups": [
            {
                "group": group.number,
                "units": group.units,
                "payload_bytes": group.payload_bytes,
                "direct": group.direct,
                "mini_queue": group.delegated,
                "counter_waits": group.waited,
                "given_back": group.given_back,
            }
            for group in now.groups
        ],
    }
