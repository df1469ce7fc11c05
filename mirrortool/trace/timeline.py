"""A picture of what the tasks of a replay did, as SVG text: a lane for each task, a block for each unit of it.

Rule: it shows what the trace says, and proves nothing.
Rule: legend and caption are outside of the drawing; what part of the trace is shown, and why, is said there.
"""

from __future__ import annotations

from collections.abc import Iterator

from mirrortool import svg
from mirrortool.errors import UsageError
from mirrortool.replay.tracing import InlineRun
from mirrortool.trace.blocks import TEXT_SIZE, Blocks, box
from mirrortool.trace.lanes import LEFT, RIGHT, TOP, WIDTH, Lanes
from mirrortool.trace.legend import caption, caption_texts, legend
from mirrortool.trace.numbered import number_list
from mirrortool.trace.scene import Scene, make_scene, sends_of
from mirrortool.trace.timescale import Span, TimeScale
from mirrortool.trace.window import Records, Request, choose_window, span_of

_TITLE = "What the tasks of a replay did"
_LIGHT = {
    "mini": "#9a6700", "waited": "#8250df", "bad": "#cf222e",
    "direct-fill": "#ddf4ff", "mini-fill": "#fff1c2", "waited-fill": "#ecd8ff", "grid": "#d1d9e0",
}  # fmt: skip
_DARK = {
    "mini": "#d29922", "waited": "#bc8cff", "bad": "#ff7b72",
    "direct-fill": "#0c2d6b", "mini-fill": "#4b2900", "waited-fill": "#3c1e70", "grid": "#3d444d",
}  # fmt: skip
_RULES = """
    .canvas { fill: %(canvas)s }
    text { font: 12px system-ui, sans-serif; fill: %(ink)s }
    .title { font-size: 14px; font-weight: 600 }
    .strong { font-weight: 600 }
    .small, .faint { fill: %(faint)s }
    .code { font-family: ui-monospace, monospace }
    .block { font-size: 11px }
    .number { font-size: 9px; font-weight: 600 }
    .on-canvas { stroke: %(canvas)s }
    .label { pointer-events: none; paint-order: stroke; stroke-width: 3; stroke-linejoin: round }
    .on-direct { stroke: %(direct-fill)s }
    .on-mini { stroke: %(mini-fill)s }
    .on-waited { stroke: %(waited-fill)s }
    .on-waiting { stroke: %(canvas)s; fill: %(faint)s }
    .row { stroke: %(grid)s }
    .tick { stroke: %(grid)s; stroke-dasharray: 1 3 }
    .gap { fill: %(grid)s; opacity: .5 }
    .drain { stroke: %(faint)s; stroke-dasharray: 6 3 1 3; fill: none }
    .inline { fill: %(grey)s; stroke: %(faint)s; fill-opacity: .45 }
    .direct { fill: %(direct-fill)s; stroke: %(blue)s }
    .mini { fill: %(mini-fill)s; stroke: %(mini)s }
    .waited { fill: %(waited-fill)s; stroke: %(waited)s }
    .waiting { fill: %(canvas)s; stroke: %(waited)s; stroke-dasharray: 4 3 }
    .failed { stroke: %(bad)s; stroke-width: 2.5 }
    .back { fill: %(ink)s }
    .handed { fill: %(mini)s }
    .delegation, .post { fill: none; stroke-width: 1.2 }
    .delegation { stroke: %(mini)s }
    .post { stroke: %(waited)s; stroke-dasharray: 2 2 }
    .mini-mark { fill: %(mini)s; stroke: none }
    .waited-mark { fill: %(waited)s; stroke: none }
"""
_MARKERS = "".join(
    f'  <marker id="{kind}-dot" viewBox="-3 -3 6 6" markerWidth="5" markerHeight="5" markerUnits="userSpaceOnUse">'
    f'<circle class="{colour}-mark" r="2.5"/></marker>\n'
    f'  <marker id="{kind}-tip" viewBox="-8 -4 8 8" markerWidth="6" markerHeight="6" orient="auto" '
    f'markerUnits="userSpaceOnUse"><path class="{colour}-mark" d="M0 0L-8 -4V4z"/></marker>\n'
    for kind, colour in (("delegation", "mini"), ("post", "waited"))
)


def find_scene(records: Records, request: Request) -> Scene:
    """What the picture of a trace shows, or that of a part of it; the records are read twice.

    Raises:
        UsageError: no unit is in the part that was asked for.
        MirrortoolError: as reading the records.
    """
    window = choose_window(records(), request)
    wanted, total = window.units
    if total and not wanted:
        raise UsageError(f"{_missed(request)}; the trace lasts {(window.last_ns - window.origin_ns) / 1e9:.6f} s")
    return make_scene(records(), request, window)


def _missed(request: Request) -> str:
    if request.pages and request.window:
        return "no unit touches these pages in these seconds"
    return "no unit touches these pages" if request.pages else "no unit was applied in these seconds"


def draw(scene: Scene, command: str, hint: str = "") -> str:
    """The scene as an SVG document.

    Args:
        command: by which it was made.
        hint: how to see another part, where this one was chosen.
    """
    lanes = Lanes(scene.lanes)
    window = scene.window
    scale = TimeScale(_moments(scene), window.start_ns, window.end_ns, LEFT, RIGHT)
    blocks = Blocks(scale, lanes, scene)
    explained, y = legend(scene, lanes.bottom + 18, has_gaps=bool(scale.gaps), has_numbers=bool(blocks.numbered))
    listed, y = number_list(blocks.numbered, y)
    told, y = caption([*caption_texts(scene, hint)], command, y + 18)
    body = [
        f"  <defs>\n{_MARKERS}  </defs>",
        f'  <rect class="canvas" width="{WIDTH}" height="{y:.0f}"/>',
        svg.text(0, 18, _title(scene), "title"),
        *_axis(scale, lanes, window.origin_ns),
        *_rows(lanes),
        *_drains(scene, scale, lanes),
        *_inlines(scene, scale, lanes),
        *_units(scene, blocks),
        *explained,
        *listed,
        *told,
    ]
    style = svg.style(_RULES, _LIGHT, _DARK)
    return svg.document(WIDTH, round(y), _title(scene), " ".join(caption_texts(scene, hint)), style, body)


def _moments(scene: Scene) -> Iterator[Span]:
    """When something happens that is drawn. A wait is not that but for its begin: the pauses in it are left out."""
    for unit in scene.units:
        begin_ns, end_ns = span_of(unit)
        yield begin_ns, begin_ns
        yield unit.start_ns, max(unit.start_ns, end_ns)
        for _, at_ns in sends_of(unit, scene.window):
            yield at_ns, at_ns
    yield from map(span_of, scene.inlines)


def _title(scene: Scene) -> str:
    lsns = sorted({unit.lsn for unit in scene.units})
    if not lsns:
        return _TITLE
    return f"{_TITLE}: LSN {lsns[0]} to {lsns[-1]}" if len(lsns) > 1 else f"{_TITLE}: LSN {lsns[0]}"


def _axis(scale: TimeScale, lanes: Lanes, origin_ns: int) -> Iterator[str]:
    step, ticks = scale.ticks()
    seconds = max(0, scale.start_ns - origin_ns) / 1e9
    yield svg.text(0, 38, f"Time after second {seconds:.6f} of the trace →", "small")
    used = 0.0
    for at_ns in ticks:
        x = scale.x(scale.start_ns + at_ns)
        label = _moment(at_ns, step)
        half = svg.text_width(label, TEXT_SIZE) / 2
        yield f'  <path class="tick" d="M{x:.1f} {TOP - 6:.1f}V{lanes.bottom:.1f}"/>'
        if x - half >= used and x + half <= WIDTH:
            used = x + half + 6
            yield svg.text(x, TOP - 10, label, "block faint", "middle")
    for x, width in scale.gap_places():
        yield (
            f'  <rect class="gap" x="{x:.1f}" y="{TOP - 6:.1f}" width="{width:.1f}" '
            f'height="{lanes.bottom - TOP + 6:.1f}"><title>a pause is left out</title></rect>'
        )


def _moment(at_ns: int, step: int) -> str:
    if at_ns == 0:
        return "0"
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if step >= size or (unit != "µs" and step * 20 >= size):
            digits = 0 if step >= size else 1 if step * 10 >= size else 2
            return f"{at_ns / size:.{digits}f} {unit}"
    return f"{at_ns / 1000:g} µs"


def _rows(lanes: Lanes) -> Iterator[str]:
    for group, y in lanes.headings():
        yield svg.text(0, y + 18, svg.fitted(f"Group {group}", 12, WIDTH), "strong")
    for (_, task), y in lanes.rows():
        yield f'  <path class="row" d="M{LEFT:.1f} {y:.1f}H{RIGHT:.1f}"/>'
        yield svg.text(8, y + 4, svg.fitted(f"task {task}", 12, LEFT - 12))


def _drains(scene: Scene, scale: TimeScale, lanes: Lanes) -> Iterator[str]:
    """One line for all that are at one place."""
    for x in sorted({round(scale.x(at_ns), 1) for at_ns in scene.drains}):
        yield f'  <path class="drain" d="M{x:.1f} {TOP:.1f}V{lanes.bottom:.1f}"><title>drained</title></path>'


def _inlines(scene: Scene, scale: TimeScale, lanes: Lanes) -> Iterator[str]:
    for each in scene.inlines:
        left = scale.x(each.start_ns)
        width = max(2.0, scale.x(each.end_ns) - left)
        yield f'  <g class="unit"><title>{svg.safe(_describe(each))}</title>'
        yield box("inline", left, TOP, width, lanes.bottom - TOP)
        label = f"{each.kind.name} LSN {each.lsn}"
        wide = svg.text_width(label, TEXT_SIZE) + 4
        x = min(left + 3, RIGHT - wide)
        yield svg.text(x, TOP + 12, label, "block")
        yield "  </g>"


def _describe(each: InlineRun) -> str:
    return f"{each.kind.name}, LSN {each.lsn}, by the receiver: page {each.page}, count {each.count}"


def _units(scene: Scene, blocks: Blocks) -> Iterator[str]:
    """Arrows above the blocks, and texts above the arrows."""
    for draw_each in (blocks.wait, blocks.unit, blocks.delegation, blocks.posts, blocks.labels):
        for unit in scene.units:
            yield from draw_each(unit)
    yield from blocks.numbers()
