"""What a picture of a trace shows: the records of its window, and the tasks that they are about.

Rule: a unit belongs to the window if it was applied in it, or waited for a counter; each is there once.
Rule: a task is there if it applied one of these units, or, in the window, waited, sent it, or posted for it.
Bound: UNITS_MAX units and as many of each other kind, LANES_MAX tasks; what is left out is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mirrortool.replay.tracing import Divided, Drained, InlineRun, Started, TraceRecord, UnitRun
from mirrortool.trace.window import UNITS_MAX, Request, TimeWindow, span_of

LANES_MAX = 48

Lane = tuple[int, int]
"""A group's number, and a task's in it."""


@dataclass(slots=True)
class Scene:
    """What is drawn.

    Attributes:
        window: from when to when.
        start: the trace's first line; None if it has none.
        plans: how the work was divided, at the begin of the window and in it.
        units: ascending by their begin.
        inlines: operations that the receiver did.
        drains: when everything before was applied.
        lanes: ascending.
        units_left_out, lanes_left_out: how many were too many.
    """

    window: TimeWindow
    start: Started | None = None
    plans: list[Divided] = field(default_factory=list)
    units: list[UnitRun] = field(default_factory=list)
    inlines: list[InlineRun] = field(default_factory=list)
    drains: list[int] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    units_left_out: int = 0
    lanes_left_out: int = 0


def make_scene(records: Iterable[TraceRecord], request: Request, window: TimeWindow) -> Scene:
    """Collect what lies in the window, after a second look at all records."""
    scene = Scene(window)
    for record in records:
        _add(scene, record, request)
    scene.units.sort(key=lambda unit: (unit.start_ns, unit.group, unit.task))
    _limit_lanes(scene)
    return scene


def sends_of(unit: UnitRun, window: TimeWindow) -> Iterator[tuple[int, int]]:
    """The tasks that sent it to a mini queue, or to the counter that it waited for, and when, if in the window."""
    sends = [(post.task, post.at_ns) for post in unit.posts]
    if unit.sent_by is not None and unit.sent_ns is not None:
        sends.append((unit.sent_by, unit.sent_ns))
    return (each for each in sends if window.start_ns <= each[1] <= window.end_ns)


def _add(scene: Scene, record: TraceRecord, request: Request) -> None:
    if isinstance(record, Started):
        scene.start = scene.start or record
        return
    start_ns, end_ns = span_of(record)
    window = scene.window
    if isinstance(record, Divided):
        _add_plan(scene, record)
    elif end_ns < window.start_ns or window.end_ns < start_ns:
        return
    elif isinstance(record, UnitRun):
        if request.wants(record):
            _add_unit(scene, record)
    elif isinstance(record, InlineRun):
        if request.wants(record) and len(scene.inlines) < UNITS_MAX:
            scene.inlines.append(record)
    elif isinstance(record, Drained) and len(scene.drains) < UNITS_MAX:
        scene.drains.append(record.at_ns)


def _add_unit(scene: Scene, unit: UnitRun) -> None:
    """One that only ends or begins at the edge of the window would have no width there."""
    window = scene.window
    begin_ns, end_ns = span_of(unit)
    is_inside = begin_ns < window.end_ns and window.start_ns < end_ns
    if not (is_inside or window.start_ns <= begin_ns == end_ns <= window.end_ns):
        return
    if len(scene.units) < UNITS_MAX:
        scene.units.append(unit)
    else:
        scene.units_left_out += 1


def _add_plan(scene: Scene, plan: Divided) -> None:
    """Those before the window do not matter, but for the last of them."""
    if plan.at_ns <= scene.window.start_ns:
        scene.plans = [plan]
    elif plan.at_ns <= scene.window.end_ns and len(scene.plans) < UNITS_MAX:
        scene.plans.append(plan)


def _limit_lanes(scene: Scene) -> None:
    """Keep the busiest, and the units that they applied."""
    uses: Counter[Lane] = Counter()
    for unit in scene.units:
        uses[unit.group, unit.task] += 3
        uses.update((unit.group, task) for task, _ in sends_of(unit, scene.window))
    busiest = sorted(uses, key=lambda lane: (-uses[lane], lane))
    scene.lanes = sorted(busiest[:LANES_MAX])
    scene.lanes_left_out = len(busiest) - len(scene.lanes)
    kept = set(scene.lanes)
    drawn = [unit for unit in scene.units if (unit.group, unit.task) in kept]
    scene.units_left_out += len(scene.units) - len(drawn)
    scene.units = drawn
