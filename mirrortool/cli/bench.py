"""`mirrortool bench`: measures, and shows it as text, as SVG and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import click

from mirrortool.bench.figure import Bar, Bench, BenchCancelled, Comparison, Figure, Settings
from mirrortool.bench.svg import caption, command_of, draw
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import FILE, Value, as_json, quiet
from mirrortool.cli.outputfiles import check_picture, is_same_place, write_picture
from mirrortool.cli.progressdisplay import Display
from mirrortool.cli.text import columns, counted, format_seconds, tell
from mirrortool.cli.workthread import Interrupted, Runner
from mirrortool.errors import UsageError
from mirrortool.replay.tracing import Divided
from mirrortool.trace.timeline import draw as draw_timeline
from mirrortool.trace.timeline import find_scene
from mirrortool.trace.window import Request

_LATENCY = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BAR_WIDTH = 32


def parse_latency(text: str) -> float:
    """Seconds; a number with us, ms or s."""
    match = _LATENCY.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a latency, such as 200us, 1ms or 0.5s")
    return float(match[1]) * _SECONDS[match[2]]


@click.command("bench")
@click.option("--figure", "path", type=FILE, metavar="FILE", help="Write the plot to this file too, as SVG.")
@click.option(
    "--timeline",
    "timeline_path",
    type=FILE,
    metavar="FILE",
    help="Draw what the tasks of the last way did into this file, as SVG.",
)
@click.option(
    "--latency", type=Value("latency", parse_latency), default="1ms", show_default=True, metavar="LATENCY",
    help="How long the store sleeps for each write, such as 200us or 5ms.",
)  # fmt: skip
@click.option("--writes", type=int, default=Settings().writes, show_default=True, help="Writes to replay.")
@click.option("--groups", type=int, default=Settings().groups, show_default=True, help="Task groups.")
@click.option("--tasks", type=int, default=Settings().tasks, show_default=True, help="Tasks in each group.")
@click.option("--runs", type=int, default=Settings().runs, show_default=True, help="Take the median of this many runs.")
@click.option("--peers", is_flag=True, help="Compare with bare threads and with an ideal scheduler too.")
@as_json
@quiet
def command(
    path: str | None,
    timeline_path: str | None,
    latency: float,
    writes: int,
    groups: int,
    tasks: int,
    runs: int,
    peers: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure what replaying with groups of tasks is worth, on a store that sleeps.

    The same writes are replayed in the primary's order, by one task, by groups of one task, and by groups of several.
    Nothing is read or written but the figures.
    """
    check_picture(path)
    check_picture(timeline_path)
    if path and timeline_path and is_same_place(path, timeline_path):
        raise UsageError(f"--figure and --timeline are both {timeline_path}; one would replace the other")
    settings = Settings(latency, writes, groups, tasks, runs, peers, traced=timeline_path is not None)
    figure = _measure(Bench(settings), settings, quiet)
    if path:
        write_picture(path, draw(figure))
    if timeline_path:
        write_picture(timeline_path, _timeline(figure))
    if as_json:
        print_json(_to_json(figure, path, timeline_path))
    else:
        for line in _lines(figure):
            click.echo(line)
    if not quiet:
        tell(f"next: mirrortool replay JOURNAL MIRROR --unit op --groups {groups} --tasks {tasks}")


def _timeline(figure: Figure) -> str:
    command = command_of(figure).replace(" bench ", " bench --timeline FILE ", 1)
    records = [
        replace(each, io="none, the store sleeps") if isinstance(each, Divided) else each for each in figure.trace
    ]
    return draw_timeline(find_scene(lambda: records, Request()), command)


def _measure(bench: Bench, settings: Settings, quiet: bool) -> Figure:
    display = Display("bench", quiet=quiet)
    display.note(f"measuring for about {format_seconds(settings.seconds_expected())}")

    def answer() -> None:
        done, total = bench.progress()
        display.answer(f"{done} of {counted(total, 'run')} measured")

    runner = Runner(bench.run, bench.cancel, answer)
    try:
        return runner.run(lambda: None)
    except BenchCancelled:
        raise Interrupted(runner.signal_number, "stopped; nothing was measured") from None


def _lines(figure: Figure) -> Iterator[str]:
    """The plot and the comparisons as people read them."""
    yield from caption(figure)
    fastest = max(bar.writes_per_second for bar in figure.bars)
    headings = ("WAY", "SECONDS", "WRITES/S", "SPEED", "")
    yield from columns(headings, [_row(bar, fastest) for bar in figure.bars])
    if figure.comparisons:
        yield ""
        yield from columns(("WORKLOAD", "PEER", "SECONDS", "PEER'S", "RATIO"), list(map(_peer_row, figure.comparisons)))


def _row(bar: Bar, fastest: float) -> tuple[str, ...]:
    drawn = "#" * max(1, round(_BAR_WIDTH * bar.writes_per_second / fastest))
    return bar.title, f"{bar.timing.seconds:.3f}", f"{bar.writes_per_second:.0f}", f"{bar.speedup:.1f} x", drawn


def _peer_row(each: Comparison) -> tuple[str, ...]:
    return each.workload, each.peer, f"{each.seconds:.3f}", f"{each.peer_seconds:.3f}", f"{each.ratio:.2f}"


def _to_json(figure: Figure, path: str | None, timeline_path: str | None) -> dict[str, object]:
    settings = figure.settings
    return {
        "store": "sleeps",
        "latency_seconds": settings.latency_seconds,
        "write_seconds": figure.write_seconds,
        "writes": settings.writes,
        "runs": settings.runs,
        "ways": [_bar_to_json(bar) for bar in figure.bars],
        "peers": [_comparison_to_json(each) for each in figure.comparisons],
        "figure": path,
        "timeline": timeline_path,
    }


def _bar_to_json(bar: Bar) -> dict[str, object]:
    timing = bar.timing
    return {
        "way": bar.name,
        "groups": bar.groups,
        "tasks": bar.tasks,
        "seconds": timing.seconds,
        "writes_per_second": bar.writes_per_second,
        "speedup": bar.speedup,
        "direct": timing.direct,
        "mini_queue": timing.mini_queue,
        "counter_waits": timing.counter_waits,
        "given_back": timing.given_back,
    }


def _comparison_to_json(each: Comparison) -> dict[str, object]:
    return {
        "workload": each.workload,
        "peer": each.peer,
        "seconds": each.seconds,
        "peer_seconds": each.peer_seconds,
        "ratio": each.ratio,
    }
