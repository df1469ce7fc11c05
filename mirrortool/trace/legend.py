"""Below the drawing: what its shapes mean, with the numerals of FIG. 11, and what part of which replay it shows.

Rule: shapes that do not occur are not explained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mirrortool import svg
from mirrortool.replay.tracing import Divided, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace.blocks import arrow, block, box, given_back_mark, handed_out_mark, wait_box
from mirrortool.trace.lanes import WIDTH
from mirrortool.trace.scene import Scene
from mirrortool.trace.summary import count_tasks
from mirrortool.wording import counted

_ROW = 22.0
_FOLD = 15.0
"""From a line of a meaning to the next."""
_SAMPLE = 40.0
_COLUMN = WIDTH / 2
_SIZE = 12
_LINE = 17.0
_WORD = 160.0
_CAPTION_LINES_MAX = 12

Sample = Callable[[float, float], Iterator[str]]


def legend(scene: Scene, top: float, *, has_gaps: bool, has_numbers: bool) -> tuple[list[str], float]:
    """The lines of the legend, and where it ends."""
    lines: list[str] = []
    entries = list(_entries(scene))
    if has_gaps:
        entries.append((_gap, "a pause, of which the length is not drawn"))
    if has_numbers:
        entries.insert(1, (_number, "a narrow block: it is listed below by this number"))
    rows = -(-len(entries) // 2) or 1
    ends = [top]
    for column, x in enumerate((0.0, _COLUMN)):
        y = top
        for sample, meaning in entries[column * rows : (column + 1) * rows]:
            lines += sample(x, y)
            folded = svg.wrapped(meaning, _SIZE, _COLUMN - _SAMPLE - 18)
            lines += [svg.text(x + _SAMPLE + 10, y + 12 + _FOLD * n, line, "small") for n, line in enumerate(folded)]
            y += _ROW + _FOLD * (len(folded) - 1)
        ends.append(y)
    return lines, max(ends)


def _entries(scene: Scene) -> Iterator[tuple[Sample, str]]:
    units = scene.units
    ways = {unit.how for unit in units}
    if units:
        is_single = not scene.plans or scene.plans[-1].unit == "op"
        lsn = "LSN" if is_single else "last LSN that it may carry"
        more = "; +2: two more runs of them" if any(len(unit.footprint) > 1 for unit in units) else ""
        yield _label, f"on a block: the {lsn}, and the pages{more}"
    if How.DIRECT in ways:
        yield _block("direct"), "claimed by the task that took it from the main queue (1178)"
    if any(_is_delegated(unit) for unit in units):
        yield _block("mini"), "from the task's mini queue: it overlaps what the task had (1150)"
    if any(unit.handed_out for unit in units):
        yield _handed_out, "handed out to an idle task by one that is waited for"
    if How.MINI_QUEUE in ways:
        yield _arrow("delegation"), "sent to that mini queue, by the task at the dot (1150)"
    if How.COUNTER_WAIT in ways:
        yield _wait_box, "waits for its counter: it overlaps what several tasks have (1168-1174)"
        yield _block("waited"), "applied after that wait (1184)"
        yield _arrow("post"), "posts to the counter: the task at the dot has nothing left (1128)"
    if any(unit.given_back for unit in units):
        yield _given_back, "had been put back on the main queue before"
    if any(unit.failed for unit in units):
        yield _block("direct failed"), "✗ failed"
    if scene.inlines:
        yield _inline, "an operation of the receiver, with nothing beside it"
    if scene.drains:
        yield _drain, "drained: everything before was applied"


def _label(x: float, y: float) -> Iterator[str]:
    yield svg.text(x, y + 12, "LSN 7", "strong")


def _is_delegated(unit: UnitRun) -> bool:
    """Whether it was sent to a mini queue because it overlaps what that task had."""
    return unit.how is How.MINI_QUEUE and not unit.handed_out


def _number(x: float, y: float) -> Iterator[str]:
    yield svg.text(x, y + 12, "1", "number")


def _block(kind: str) -> Sample:
    return lambda x, y: iter([block(x, y, _SAMPLE, 16, *_kind_and_failure(kind))])


def _kind_and_failure(kind: str) -> tuple[str, bool]:
    name, _, failed = kind.partition(" ")
    return name, bool(failed)


def _arrow(kind: str) -> Sample:
    return lambda x, y: iter([arrow(x + 6, y + 3, x + _SAMPLE - 6, y + 15, kind)])


def _wait_box(x: float, y: float) -> Iterator[str]:
    yield wait_box(x, y, _SAMPLE, 16)


def _given_back(x: float, y: float) -> Iterator[str]:
    yield block(x, y, _SAMPLE, 16, "direct")
    yield given_back_mark(x + _SAMPLE, y, _SAMPLE)


def _handed_out(x: float, y: float) -> Iterator[str]:
    yield block(x, y, _SAMPLE, 16, "mini")
    yield handed_out_mark(x + _SAMPLE, y + 16, _SAMPLE)


def _inline(x: float, y: float) -> Iterator[str]:
    yield box("inline", x, y, _SAMPLE, 16)


def _gap(x: float, y: float) -> Iterator[str]:
    yield box("gap", x + _SAMPLE / 2 - 6, y, 12, 16)


def _drain(x: float, y: float) -> Iterator[str]:
    yield f'  <path class="drain" d="M{x + _SAMPLE / 2:.1f} {y:.1f}v16"/>'


def caption(texts: Sequence[str], command: str, top: float) -> tuple[list[str], float]:
    """Lines of text, and where they end."""
    lines: list[str] = []
    for sentence in texts:
        lines += svg.wrapped(sentence, _SIZE, WIDTH - 8)
    made = [svg.text(0, top + _LINE * number, line, "small") for number, line in enumerate(lines[:_CAPTION_LINES_MAX])]
    y = top + _LINE * len(made)
    made.append(svg.text(0, y, svg.fitted(command, _SIZE, WIDTH - 8), "small code"))
    return made, y + 8


def caption_texts(scene: Scene, hint: str) -> Iterator[str]:
    """What is shown, why, and how the work was divided."""
    yield f"{_what(scene)} {hint if scene.window.is_chosen else ''}".rstrip()
    left_out = [
        counted(count, thing)
        for count, thing in ((scene.units_left_out, "unit"), (scene.lanes_left_out, "task"))
        if count
    ]
    if left_out:
        yield f"Left out, because they are too many: {' and '.join(left_out)}."
    for plan in scene.plans[-1:]:
        yield _division(plan, scene.plans)
        yield from _idle(scene)


def _idle(scene: Scene) -> Iterator[str]:
    """How many tasks have no lane because there is nothing to draw in it."""
    planned = count_tasks((plan.groups, plan.tasks) for plan in scene.plans)
    idle = planned - len(scene.lanes) - scene.lanes_left_out
    if idle > 0:
        yield f"{counted(idle, 'task')} of {planned} did nothing here, and {'has' if idle == 1 else 'have'} no lane."


def window_text(scene: Scene) -> str:
    """The window as an option takes it: seconds since the trace began."""
    window = scene.window
    return "-".join(f"{max(0, at - window.origin_ns) / 1e9:.6f}" for at in (window.start_ns, window.end_ns))


def _what(scene: Scene) -> str:
    window = scene.window
    wanted, total = window.units
    drawn = counted(len(scene.units), "unit")
    if not total:
        return "The trace has no unit."
    when = f"in seconds {window_text(scene)} of the trace"
    if window.is_chosen:
        asked = f" ({wanted:,} were asked for)" if wanted != total else ""
        return f"{drawn} of {total:,}{asked}, {when}: {_part(scene.units)}."
    return f"{drawn} of {total:,}, {when}."


def _part(units: Sequence[UnitRun]) -> str:
    """What is to be seen in a part that was chosen."""
    delegations = sum(map(_is_delegated, units))
    handed_out = sum(unit.handed_out for unit in units)
    waits = sum(unit.how is How.COUNTER_WAIT for unit in units)
    seen = [counted(delegations, "delegation")] if delegations else []
    seen += [f"{counted(handed_out, 'unit')} handed out"] if handed_out else []
    seen += [counted(waits, "wait")] if waits else []
    if not seen:
        return "a part; no unit in it was delegated or waited"
    *others, last = seen
    return f"a part with {', '.join(others)} and {last}" if others else f"a part with {last}"


def _division(plan: Divided, plans: Sequence[Divided]) -> str:
    changes = len({(each.ranges, each.groups, each.tasks, each.unit, each.io) for each in plans}) - 1
    changed = f" The plan changed {counted(changes, 'time')} before that." if changes else ""
    groups, tasks = counted(plan.groups, "group"), counted(plan.tasks, "task")
    ranges, unit, io = (svg.fitted(each, _SIZE, _WORD) for each in (plan.ranges, plan.unit, plan.io))
    return f"{groups} of {tasks}; ranges: {ranges}, unit: {unit}, I/O: {io}.{changed}"
