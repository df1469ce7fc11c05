"""`mirrortool trace`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import islice

import click

from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import FILE, as_json, quiet
from mirrortool.cli.progressdisplay import WIDTH_DEFAULT, Display, Tone, View
from mirrortool.cli.text import columns, counted, fitted_columns, format_bytes, format_seconds, printable
from mirrortool.cli.tracetimeline import TimelineFile, timeline_options
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.replay.writeunit import How
from mirrortool.trace.proof import Prover, TraceCancelled, TraceProof
from mirrortool.trace.summary import Chain, PlanKey, Summary, TaskFigures
from mirrortool.trace.violation import Rule, Violation

EXIT_VIOLATED = 1
PLANS_SHOWN = 16
TASKS_SHOWN = 32
STEPS = {How.DIRECT: "1178", How.MINI_QUEUE: "1150", How.COUNTER_WAIT: "1174"}
"""Of FIG. 11."""


@click.command("trace")
@click.argument("file", type=FILE)
@timeline_options
@as_json
@quiet
def command(
    file: str,
    timeline: str | None,
    pages: tuple[int, int] | None,
    window: tuple[float, float] | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Prove from a trace of replay --trace that what overlaps was applied in order, and sum the trace up.

    A unit that shares a page with an earlier one must begin after that one ended. Sums: how units came to their tasks,
    how busy these were, and the longest chain of units that had to wait for each other.
    """
    picture = TimelineFile(file, timeline, pages, window)
    proof = _prove(file, quiet)
    picture.make(quiet)
    if as_json:
        print_json({**_to_json(file, proof), "timeline": timeline})
    else:
        for line in _lines(proof):
            click.echo(line)
    return 0 if proof.is_proved else EXIT_VIOLATED


def _prove(path: str, quiet: bool) -> TraceProof:
    prover = Prover(path)

    def view() -> View:
        now = prover.progress()
        detail = counted(now.violations, "VIOLATION") if now.violations else counted(now.units, "unit")
        tone = Tone.BAD if now.violations else Tone.GOOD
        return View(now.bytes_done, now.bytes_total, now.bytes_done, detail, tone=tone)

    with Display("trace", quiet=quiet) as display:
        runner = Runner(prover.run, prover.cancel, lambda: display.answer(view()))
        try:
            return runner.run(lambda: display.show(view()))
        except TraceCancelled:
            raise Interrupted(runner.signal_number, "stopped; nothing was proved") from None


# Text. Lines of our own have at most 60 characters, but for violations, which the terminal folds.


def _lines(proof: TraceProof) -> Iterator[str]:
    summary, width = proof.summary, _width()
    yield from _verdict(proof)
    if not summary.units and not summary.inline:
        return
    yield ""
    yield from _plan_table(summary, width)
    yield ""
    yield from fitted_columns(("HOW UNITS CAME", "FIG. 11", "UNITS", "SHARE"), list(_how_rows(summary)), width, ())
    yield ""
    yield from _times(summary)
    if summary.chain:
        yield ""
        yield from _describe_chain(summary.chain, proof.replays)
    if summary.tasks:
        yield ""
        yield from _task_table(summary, width)


def _width() -> int:
    """Of the terminal that the result goes to; of a pipe, enough for each column."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return WIDTH_DEFAULT


def _verdict(proof: TraceProof) -> Iterator[str]:
    summary, broken = proof.summary, sum(proof.broken.values())
    for violation in proof.violations:
        yield printable(f"{violation.rule.value}: {_of_replay(violation, proof.replays)}{violation.what}")
    if broken > len(proof.violations):
        yield f"… and {counted(broken - len(proof.violations), 'more violation')}"
    verdict = counted(broken, "VIOLATION", "VIOLATIONS") if broken else "in order"
    if not broken and not summary.units:
        yield "nothing to prove: no unit was applied"
    else:
        yield f"{verdict}: {counted(summary.units, 'unit')} in {counted(summary.sections, 'section')} between drains"
    if not broken and summary.units:
        yield "units that share a page: one by one, in the journal's order"
    if proof.replays > 1:
        yield f"{counted(proof.replays, 'replay')} in this file"
    if proof.cut_off:
        missing = "the end is" if proof.replays == 1 else f"the ends of {counted(proof.cut_off, 'replay')} are"
        yield f"{missing} missing: killed, or still running"


def _of_replay(violation: Violation, replays: int) -> str:
    return f"replay {violation.replay}, " if replays > 1 else ""


def _plan_table(summary: Summary, width: int) -> Iterator[str]:
    rows = [_plan_row(*each) for each in islice(summary.plans.items(), PLANS_SHOWN)]
    yield from fitted_columns(("RANGES", "GROUPS", "TASKS", "UNIT", "I/O", "UNITS"), rows, width, ("I/O",))
    if len(summary.plans) > PLANS_SHOWN:
        yield f"… and {counted(len(summary.plans) - PLANS_SHOWN, 'more plan')}; --json lists them"


def _plan_row(plan: PlanKey, units: int) -> tuple[str, ...]:
    return plan.ranges, str(plan.groups), str(plan.tasks), plan.unit, plan.io, str(units)


def _how_rows(summary: Summary) -> Iterator[tuple[str, ...]]:
    for how, step in STEPS.items():
        count = summary.by_how[how]
        yield how.value, step, str(count), _percent(count / summary.units if summary.units else 0)
    yield "handed out", "", str(summary.handed_out), ""
    yield "given back before", "", str(summary.given_back), ""
    if summary.failed:
        yield "failed", "", str(summary.failed), ""
    if summary.inline:
        yield "by itself, no unit", "", str(summary.inline), ""


def _times(summary: Summary) -> list[str]:
    rows = [
        ("from start to end", _duration(summary.elapsed_ns)),
        ("with units in work", _duration(summary.working_ns)),
        ("with an ideal scheduler", _duration(summary.ideal_ns)),
        ("busy tasks, on average", f"{summary.busy_tasks:.1f}"),
        ("waiting at counters", _duration(summary.waiting_ns)),
    ]
    return columns(("TIME", ""), rows)


def _describe_chain(chain: Chain, replays: int) -> Iterator[str]:
    first, last, section = chain.first, chain.last, chain.section
    where = f"in replay {chain.replay}, " if replays > 1 else ""
    yield f"longest chain of units that overlap: {counted(last.chain_units, 'unit')}"
    yield f"  {where}from unit {first.sequence} (LSN {first.lsn}) to unit {last.sequence} (LSN {last.lsn})"
    took_ns = section.end_ns - section.start_ns
    yield f"  took {_duration(last.chain_busy_ns)} of the {_duration(took_ns)} of its section,"
    yield f"  which has {counted(section.units, 'unit')},"
    yield f"  and would take {_duration(section.ideal_ns)} with an ideal scheduler"


def _task_table(summary: Summary, width: int) -> Iterator[str]:
    found = sorted(summary.tasks.items())
    headings = ("TASK", "UNITS", "WRITTEN", "BUSY", "", "WAITING")
    rows = [_task_row(*number, figures) for number, figures in found[:TASKS_SHOWN]]
    yield from fitted_columns(headings, rows, width, ("WAITING", "WRITTEN"))
    if len(found) > TASKS_SHOWN:
        yield f"… and {counted(len(found) - TASKS_SHOWN, 'more task')}; --json lists them"
    if summary.idle_tasks:
        yield f"{counted(summary.idle_tasks, 'task')} of {summary.planned_tasks} applied no unit"


def _task_row(group: int, task: int, figures: TaskFigures) -> tuple[str, ...]:
    return (
        f"{group}.{task}",
        str(figures.units),
        format_bytes(figures.payload_bytes),
        _duration(figures.busy_ns),
        _percent(figures.busy_share),
        _duration(figures.waiting_ns),
    )


def _percent(share: float) -> str:
    """No share is shown as nothing or as all that is not."""
    if 0 < share < 0.01:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def _duration(time_ns: int) -> str:
    """A duration with three digits or so."""
    if time_ns >= 10**10:
        return format_seconds(time_ns / 1e9)
    if time_ns >= 10**9:
        return f"{time_ns / 1e9:.2f} s"
    return f"{time_ns / 1e6:.2f} ms" if time_ns >= 10**6 else f"{time_ns / 1e3:.1f} us"


# JSON.


def _to_json(path: str, proof: TraceProof) -> dict[str, object]:
    summary = proof.summary
    return {
        "trace": path,
        "is_proved": proof.is_proved,
        "violation_count": sum(proof.broken.values()),
        "broken": [{"rule": rule.value, "count": proof.broken[rule]} for rule in Rule if proof.broken[rule]],
        "violations": [_violation_to_json(each) for each in proof.violations],
        "replays": proof.replays,
        "cut_off": proof.cut_off,
        "sections": summary.sections,
        "units": summary.units,
        "inline": summary.inline,
        "bytes": summary.payload_bytes,
        "direct": summary.by_how[How.DIRECT],
        "mini_queue": summary.by_how[How.MINI_QUEUE],
        "counter_waits": summary.by_how[How.COUNTER_WAIT],
        "handed_out": summary.handed_out,
        "given_back": summary.given_back,
        "failed": summary.failed,
        "elapsed_seconds": summary.elapsed_ns / 1e9,
        "working_seconds": summary.working_ns / 1e9,
        "ideal_seconds": summary.ideal_ns / 1e9,
        "busy_seconds": summary.busy_ns / 1e9,
        "waiting_seconds": summary.waiting_ns / 1e9,
        "busy_tasks": summary.busy_tasks,
        "idle_tasks": summary.idle_tasks,
        "plans": [_plan_to_json(plan, units) for plan, units in summary.plans.items()],
        "tasks": [_task_to_json(*number, figures) for number, figures in sorted(summary.tasks.items())],
        "chain": _chain_to_json(summary.chain) if summary.chain else None,
    }


def _violation_to_json(violation: Violation) -> dict[str, object]:
    return {
        "rule": violation.rule.value,
        "what": violation.what,
        "replay": violation.replay,
        "sequence": violation.sequence,
        "lsn": violation.lsn,
        "other_sequence": violation.other_sequence,
        "other_lsn": violation.other_lsn,
        "page": violation.page,
    }


def _plan_to_json(plan: PlanKey, units: int) -> dict[str, object]:
    return {
        "ranges": plan.ranges,
        "groups": plan.groups,
        "tasks": plan.tasks,
        "unit": plan.unit,
        "io": plan.io,
        "units": units,
    }


def _task_to_json(group: int, task: int, figures: TaskFigures) -> dict[str, object]:
    return {
        "group": group,
        "task": task,
        "units": figures.units,
        "bytes": figures.payload_bytes,
        "busy_seconds": figures.busy_ns / 1e9,
        "busy_share": figures.busy_share,
        "waiting_seconds": figures.waiting_ns / 1e9,
    }


def _chain_to_json(chain: Chain) -> dict[str, object]:
    first, last, section = chain.first, chain.last, chain.section
    return {
        "replay": chain.replay,
        "units": last.chain_units,
        "first_sequence": first.sequence,
        "first_lsn": first.lsn,
        "last_sequence": last.sequence,
        "last_lsn": last.lsn,
        "busy_seconds": last.chain_busy_ns / 1e9,
        "section_units": section.units,
        "section_seconds": (section.end_ns - section.start_ns) / 1e9,
        "section_ideal_seconds": section.ideal_ns / 1e9,
    }
