"""The plot as SVG text: a bar for each way to replay, with its numbers, readable on a light and on a dark background.

Rule: a bar is as long as its writes a second, from zero; the dashed line is what all tasks could do together.
It needs no library, no script and no font of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from mirrortool import svg
from mirrortool.bench.figure import Bar, Figure
from mirrortool.bench.workload import RANGES
from mirrortool.wording import counted

_TITLE = "One workload, replayed four ways"
_WIDTH = 760
_LABELS = 220
_BARS = 400
"""Of the longest bar; its numbers are to the right of it."""
_ROW = 40
_THICKNESS = 24
_TOP = 64
_RULES = """
    text { font: 14px system-ui, sans-serif; fill: %(ink)s }
    .title { font-weight: 600 }
    .small { font-size: 12px; fill: %(faint)s }
    .serial { fill: %(grey)s }
    .parallel { fill: %(blue)s }
    .limit { stroke: %(faint)s; stroke-dasharray: 4 4 }
"""


def caption(figure: Figure) -> list[str]:
    """What was measured, in lines of text."""
    settings = figure.settings
    runs = "one run" if settings.runs == 1 else f"medians of {counted(settings.runs, 'run')}"
    return [
        f"{counted(settings.writes, 'write')} of single pages, {RANGES.name}; {runs}",
        f"a store that sleeps {_milliseconds(settings.latency_seconds)} for each write "
        f"({_milliseconds(figure.write_seconds)} measured), any number of writes at once; no disk",
    ]


def draw(figure: Figure) -> str:
    """The figure as an SVG document."""
    rate_max = _limit(figure)
    bottom = _TOP + _ROW * len(figure.bars)
    height = bottom + 70
    lines = [
        svg.text(0, 20, f"{_TITLE}: writes a second", "title"),
        *_limit_line(figure, rate_max, bottom),
    ]
    for number, bar in enumerate(figure.bars):
        lines += _row(bar, _TOP + number * _ROW, rate_max)
    for number, line in enumerate([*caption(figure), command_of(figure)]):
        lines.append(svg.text(0, bottom + 22 + 18 * number, line, "small"))
    return svg.document(_WIDTH, height, _TITLE, _describe(figure), svg.style(_RULES), lines)


def _limit(figure: Figure) -> float:
    """The longest that a bar can be: each task as fast as the primary's order; or the measured rate, if higher."""
    threads = figure.settings.groups * figure.settings.tasks
    return max(figure.bars[0].writes_per_second * threads, *(bar.writes_per_second for bar in figure.bars))


def _limit_line(figure: Figure, rate_max: float, bottom: int) -> Iterator[str]:
    threads = figure.settings.groups * figure.settings.tasks
    x = _LABELS + _BARS * figure.bars[0].writes_per_second * threads / rate_max
    yield f'  <line class="limit" x1="{x:.1f}" y1="{_TOP - 12}" x2="{x:.1f}" y2="{bottom - 4}"/>'
    yield svg.text(x, _TOP - 18, f"{threads} × FIG. 2", "small", anchor="middle")


def _row(bar: Bar, y: int, rate_max: float) -> Iterator[str]:
    width = _BARS * bar.writes_per_second / rate_max
    kind = "serial" if bar.groups * bar.tasks <= 1 else "parallel"
    middle = y + _THICKNESS // 2 + 5
    yield svg.text(_LABELS - 10, middle, bar.title, anchor="end")
    yield f'  <rect class="{kind}" x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_THICKNESS}" rx="2"/>'
    yield svg.text(_LABELS + _BARS + 16, middle, f"{bar.writes_per_second:,.0f}  ({bar.speedup:.1f} ×)")


def _describe(figure: Figure) -> str:
    bars = ", ".join(f"{bar.title}: {bar.writes_per_second:,.0f}" for bar in figure.bars)
    return f"Writes a second by {bars}. {'; '.join(caption(figure))}."


def command_of(figure: Figure) -> str:
    """The command that measures this again."""
    s = figure.settings
    return (
        f"mirrortool bench --latency {_milliseconds(s.latency_seconds).replace(' ', '')} --writes {s.writes} "
        f"--groups {s.groups} --tasks {s.tasks} --runs {s.runs}"
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
