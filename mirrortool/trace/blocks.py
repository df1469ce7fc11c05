"""The blocks, waits and arrows of a picture.

Rule: the ways are told apart by shape as well as by colour, for a reader who sees no colours: a plain block, one with
a notch at its begin, one behind a dashed box.
Rule: a block has its LSN and its pages as text; one that is too narrow has a number, by which a list has them. Only
where too many would be in the list, a block's text is what fits; its tooltip always has everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from mirrortool import svg
from mirrortool.replay.tracing import UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace.footprints import pages_of, run_text
from mirrortool.trace.lanes import RIGHT, Lanes
from mirrortool.trace.numbered import NUMBERED_MAX, NumberedBlock, labels_above, width_of
from mirrortool.trace.scene import Lane, Scene
from mirrortool.trace.timescale import TimeScale
from mirrortool.wording import byte_count, counted

TEXT_SIZE = 11
_WIDTH_LEAST = 1.5
_NOTCH = 7.0
_ALONG = 7.0
_PADDING = 4.0
_BACK_SIDE = 8.0
_RUNS_TOLD = 8
_POSTS_TOLD = 32
_BOLD = 1.1
"""How much wider bold text is."""
_CLASSES = {How.DIRECT: "direct", How.MINI_QUEUE: "mini", How.COUNTER_WAIT: "waited"}
_WAYS = {
    How.DIRECT: "claimed by its task (1178)",
    How.MINI_QUEUE: "from the mini queue of its task (1150)",
    How.COUNTER_WAIT: "after a wait for the counter of its task (1174)",
}


class Blocks:
    """Draws units where they belong."""

    def __init__(self, scale: TimeScale, lanes: Lanes, scene: Scene) -> None:
        self._scale = scale
        self._lanes = lanes
        self._window = scene.window
        self.numbered = self._number(scene.units)
        self._has_number = {each.unit for each in self.numbered}

    def _number(self, units: Sequence[UnitRun]) -> list[NumberedBlock]:
        """The blocks that are too narrow for their text, lane by lane; none if there are too many."""
        narrow = [unit for unit in set(units) if not self._whole_texts(unit)]
        if len(narrow) > NUMBERED_MAX:
            return []
        narrow.sort(key=lambda unit: (unit.group, unit.task, unit.start_ns, unit.end_ns, unit.sequence))
        places = [(unit, *self._place(unit)) for unit in narrow]
        return [NumberedBlock(index + 1, unit, left, width) for index, (unit, left, _, width) in enumerate(places)]

    def unit(self, unit: UnitRun) -> Iterator[str]:
        """The block of a unit, with its marks."""
        left, y, width = self._place(unit)
        yield f'  <g class="unit"><title>{svg.safe(describe(unit, self._window.origin_ns))}</title>'
        yield block(left, y, width, self._lanes.block_height, _CLASSES[unit.how], unit.failed)
        if unit.given_back:
            yield given_back_mark(left + width, y, width)
        if unit.handed_out:
            yield handed_out_mark(left + width, y + self._lanes.block_height, width)
        yield "  </g>"

    def labels(self, unit: UnitRun) -> Iterator[str]:
        """The texts on its block, and on the box of its wait."""
        yield from self._wait_label(unit)
        if unit in self._has_number:
            return
        left, y, _ = self._place(unit)
        x = left + _PADDING + self._notch(unit)
        texts = self._whole_texts(unit) or self._short_text(unit)
        kind = f"block label on-{_CLASSES[unit.how]}"
        if len(texts) == 1:
            yield svg.text(x, y + self._lanes.block_height / 2 + 4, texts[0], kind)
        elif texts:
            yield svg.text(x, y + 13, texts[0], f"{kind} strong")
            yield svg.text(x, y + 26, texts[1], kind)

    def numbers(self) -> Iterator[str]:
        """The numbers of the narrow blocks: in them, or else above them."""
        for lane, blocks in groupby(self.numbered, lambda each: (each.unit.group, each.unit.task)):
            top, above = self._lanes.top(lane), list[NumberedBlock]()
            for each in blocks:
                if width_of(str(each.number)) > each.width - self._notch(each.unit):
                    above.append(each)
                    continue
                x = each.left + (each.width + self._notch(each.unit)) / 2
                y = top + self._lanes.block_height / 2 + 3
                kind = f"number label on-{_CLASSES[each.unit.how]}"
                yield svg.text(x, y, str(each.number), kind, "middle")
            for label in labels_above(above):
                yield svg.text(label.x, top - 2, label.text, "number label on-canvas", "middle")

    def _notch(self, unit: UnitRun) -> float:
        return _NOTCH if unit.how is How.MINI_QUEUE else 0

    def _room(self, unit: UnitRun) -> float:
        """Pixels for text."""
        width = self._place(unit)[2]
        return width - 2 * _PADDING - self._notch(unit) - (_BACK_SIDE / 2 if unit.given_back else 0)

    def _whole_texts(self, unit: UnitRun) -> list[str]:
        """LSN and pages, in one line or two; nothing if they do not fit."""
        pages, room = pages_of(unit), self._room(unit)
        long, short = _lsn_texts(unit)
        if self._lanes.has_two_lines:
            first, second = _first_fitting([long, short], room / _BOLD), _first_fitting([pages], room)
            if first and second:
                return [first, second]
        only = _first_fitting([f"{long} · {pages}", f"{short} · {pages}"], room)
        return [only] if only else []

    def _short_text(self, unit: UnitRun) -> list[str]:
        only = _first_fitting(_lsn_texts(unit), self._room(unit))
        return [only] if only else []

    def _place(self, unit: UnitRun) -> tuple[float, float, float]:
        """Left, top and width of its block."""
        left = min(self._scale.x(unit.start_ns), RIGHT - _WIDTH_LEAST)
        return left, self._lanes.top((unit.group, unit.task)), max(_WIDTH_LEAST, self._scale.x(unit.end_ns) - left)

    def wait(self, unit: UnitRun) -> Iterator[str]:
        """The dashed box of a unit that waited for its counter, up to its block."""
        if unit.wait_ns is not None:
            left, width = self._wait_place(unit, unit.wait_ns)
            title = f"LSN {unit.lsn}: waits for {_tasks(unit)}"
            yield f'  <g class="wait"><title>{svg.safe(title)}</title>'
            yield wait_box(left, self._lanes.top((unit.group, unit.task)), width, self._lanes.block_height)
            yield "  </g>"

    def _wait_label(self, unit: UnitRun) -> Iterator[str]:
        if unit.wait_ns is not None:
            left, width = self._wait_place(unit, unit.wait_ns)
            named = f"LSN {unit.lsn}: waits"
            texts = [f"{named} for {_tasks(unit)}", named, named.removeprefix("LSN "), "waits"]
            fitting = _first_fitting(texts, width - 2 * _PADDING)
            if fitting:
                y = self._lanes.middle((unit.group, unit.task)) + 4
                yield svg.text(left + _PADDING, y, fitting, "block label on-waiting")

    def _wait_place(self, unit: UnitRun, wait_ns: int) -> tuple[float, float]:
        """Left and width of the box."""
        left = min(self._scale.x(wait_ns), RIGHT - _WIDTH_LEAST)
        return left, max(_WIDTH_LEAST, self._scale.x(unit.start_ns) - left)

    def delegation(self, unit: UnitRun) -> Iterator[str]:
        """From the task that sent the unit, when it did, to the begin of its block."""
        if unit.sent_by is None or unit.sent_ns is None or not self._is_seen(unit.sent_ns):
            return
        sender, receiver = (unit.group, unit.sent_by), (unit.group, unit.task)
        if sender in self._lanes:
            x, to_x = self._scale.x(unit.sent_ns), self._scale.x(unit.start_ns)
            yield self._arrow(sender, x, receiver, max(x, to_x), "delegation")

    def posts(self, unit: UnitRun) -> Iterator[str]:
        """From each task that posted, when it did, to the dashed box of the one that waited."""
        waiter = (unit.group, unit.task)
        for post in unit.posts:
            poster = (unit.group, post.task)
            if poster in self._lanes and self._is_seen(post.at_ns):
                x = self._scale.x(post.at_ns)
                yield self._arrow(poster, x, waiter, x, "post")

    def _arrow(self, sender: Lane, x: float, receiver: Lane, to_x: float, kind: str) -> str:
        y, to_y = self._lanes.middle(sender), self._lanes.edge_towards(receiver, sender)
        return arrow(x, y, to_x, to_y, kind)

    def _is_seen(self, at_ns: int) -> bool:
        return self._window.start_ns <= at_ns <= self._window.end_ns


def block(left: float, top: float, width: float, height: float, kind: str, failed: bool = False) -> str:
    """The shape of a way; `kind` names it."""
    named = f"{kind} failed" if failed else kind
    if kind != "mini":
        return box(named, left, top, width, height)
    notch = min(_NOTCH, width / 2)
    return (
        f'  <path class="{named}" d="M{left:.1f} {top:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}'
        f'l{notch:.1f} {-height / 2:.1f}z"/>'
    )


def wait_box(left: float, top: float, width: float, height: float) -> str:
    """The shape of a wait."""
    return box("waiting", left, top, width, height)


def box(kind: str, left: float, top: float, width: float, height: float) -> str:
    """A rectangle."""
    return f'  <rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'


def given_back_mark(right: float, top: float, width: float) -> str:
    """A folded corner, at the upper right of a block."""
    side = min(_BACK_SIDE, width)
    return f'  <path class="back" d="M{right - side:.1f} {top:.1f}h{side:.1f}v{side:.1f}z"/>'


def handed_out_mark(right: float, bottom: float, width: float) -> str:
    """A filled corner, at the lower right of a block."""
    side = min(_BACK_SIDE, width)
    return f'  <path class="handed" d="M{right - side:.1f} {bottom:.1f}h{side:.1f}v{-side:.1f}z"/>'


def arrow(x: float, y: float, to_x: float, to_y: float, kind: str) -> str:
    """From a dot to a tip: upright to the lane, along above its blocks (or below), and upright to the block."""
    towards = 1 if to_y > y else -1
    along_y = to_y - towards * _ALONG
    bend = min(3.0, (to_x - x) / 2)
    along = (
        f"V{along_y - towards * bend:.1f}q0 {towards * bend:.1f} {bend:.1f} {towards * bend:.1f}"
        f"H{to_x - bend:.1f}q{bend:.1f} 0 {bend:.1f} {towards * bend:.1f}"
        if to_x - x > 1
        else ""
    )
    return (
        f'  <path class="{kind}" d="M{x:.1f} {y:.1f}{along}V{to_y:.1f}" '
        f'marker-start="url(#{kind}-dot)" marker-end="url(#{kind}-tip)"/>'
    )


def describe(unit: UnitRun, start_ns: int) -> str:
    """All that a trace says of a unit; times are counted from `start_ns`."""
    runs = [run_text(run) for run in unit.footprint[:_RUNS_TOLD]]
    more = len(unit.footprint) - len(runs)
    and_more = f" and {counted(more, 'run')} more" if more else ""
    facts = [
        f"LSN {unit.lsn}, unit {unit.sequence}, by task {unit.task} of group {unit.group}",
        f"pages {', '.join(runs)}{and_more}: {byte_count(unit.payload_bytes)}",
        f"from {_microseconds(unit.start_ns - start_ns)} to {_microseconds(unit.end_ns - start_ns)}",
        _WAYS[unit.how],
    ]
    if unit.sent_by is not None and unit.sent_ns is not None:
        waited_for = ", which was waited for and had it in its own mini queue" if unit.handed_out else ""
        facts.append(f"sent by task {unit.sent_by} at {_microseconds(unit.sent_ns - start_ns)}{waited_for}")
    if unit.wait_ns is not None:
        facts.append(f"waited from {_microseconds(unit.wait_ns - start_ns)}")
    facts += [f"task {post.task} posted at {_microseconds(post.at_ns - start_ns)}" for post in unit.posts[:_POSTS_TOLD]]
    if unit.given_back:
        facts.append(f"put back on the main queue before: {unit.given_back} ×")
    if unit.failed:
        facts.append("failed")
    return "\n".join(facts)


def _tasks(unit: UnitRun) -> str:
    numbers = ", ".join(str(post.task) for post in unit.posts[:_POSTS_TOLD])
    more = ", …" if len(unit.posts) > _POSTS_TOLD else ""
    return f"task{'s' * (len(unit.posts) > 1)} {numbers}{more}"


def _microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1000:.1f} µs"


def _lsn_texts(unit: UnitRun) -> list[str]:
    """The longer, and the shorter."""
    failed = "✗ " if unit.failed else ""
    return [f"{failed}LSN {unit.lsn}", f"{failed}{unit.lsn}"]


def _first_fitting(texts: list[str], room: float) -> str:
    """The first that fits; nothing if none does."""
    return next((each for each in texts if svg.text_width(each, TEXT_SIZE) <= room), "")
