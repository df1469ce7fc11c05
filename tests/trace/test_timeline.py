"""The picture of a trace: it has each unit of its part once, each sending, and nothing outside of itself."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from mirrortool import svg
from mirrortool.errors import UsageError
from mirrortool.lsn import Lsn
from mirrortool.operation import Kind
from mirrortool.replay.tracing import Divided, InlineRun, Post, TraceRecord, UnitRun
from mirrortool.trace.footprints import pages_of
from mirrortool.trace.lanes import WIDTH
from mirrortool.trace.numbered import NUMBER_SIZE
from mirrortool.trace.scene import LANES_MAX, make_scene
from mirrortool.trace.timeline import draw, find_scene
from mirrortool.trace.window import UNITS_MAX, Request, choose_window
from tests.trace.scenes import at, direct, example, long_trace, opening, quick_trace, sent, waited

SVG = "{http://www.w3.org/2000/svg}"
ALL = Request()


def picture(records: Sequence[TraceRecord], request: Request = ALL, **texts: str) -> Element:
    return ElementTree.fromstring(drawn(records, request, **texts))


def drawn(records: Sequence[TraceRecord], request: Request = ALL, command: str = "the command", hint: str = "") -> str:
    return draw(find_scene(lambda: records, request), command, hint)


def of_class(root: Element, kind: str) -> list[Element]:
    return [each for each in root.iter() if kind in each.get("class", "").split()]


def in_drawing(root: Element, kind: str) -> list[Element]:
    """Those that are not of the legend, which has one more of each that there is."""
    found = of_class(root, kind)
    return found[:-1]


def blocks(root: Element) -> list[str]:
    """What the tooltips of the blocks begin with, up to the first comma."""
    titles = (each.findtext(f"{SVG}title") or "" for each in of_class(root, "unit"))
    return [title.split(",")[0] for title in titles]


def texts(root: Element) -> list[str]:
    return ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]


def test_every_way_is_drawn_and_explained() -> None:
    root = picture(example())
    assert sorted(blocks(root)) == ["LSN 1000", "LSN 1001", "LSN 1002", "LSN 1003", "LSN 1004"]
    assert len(in_drawing(root, "mini")) == 1
    assert len(in_drawing(root, "waiting")) == len(in_drawing(root, "waited")) == 1
    assert len(in_drawing(root, "delegation")) == 1
    assert len(in_drawing(root, "post")) == 2
    assert len(in_drawing(root, "back")) == len(in_drawing(root, "drain")) == 1
    explained = " ".join(texts(root))
    for numeral in ("1178", "1150", "1168-1174", "1184", "1128"):
        assert f"({numeral})" in explained
    assert {"LSN 1003", "0-255 +1", "Group 0", "task 0", "task 1", "task 2"} <= set(texts(root))
    assert "failed" not in explained and "receiver" not in explained


def test_a_wait_names_its_tasks_and_lasts_from_its_begin_to_that_of_its_block() -> None:
    root = picture(example())
    wait, block = in_drawing(root, "waiting")[0], in_drawing(root, "waited")[0]
    assert float(wait.attrib["x"]) + float(wait.attrib["width"]) == pytest.approx(float(block.attrib["x"]), abs=0.11)
    assert wait.attrib["y"] == block.attrib["y"]
    assert "LSN 1003: waits for tasks 1, 0" in texts(root)


def test_arrows_begin_in_the_lane_of_the_sender_when_it_sent() -> None:
    """The receiver of a delegation is task 0, that of the posts task 2; the sender is below, or above."""
    root = picture(example())
    rows = [float(re.findall(r"[\d.]+", each.attrib["d"])[1]) for each in of_class(root, "row")]
    starts = {kind: [places(each)[0] for each in in_drawing(root, kind)] for kind in ("delegation", "post")}
    assert [y for _, y in starts["delegation"]] == [rows[2]]
    assert [y for _, y in starts["post"]] == [rows[1], rows[0]]
    (x, _), (first, _), (second, _) = *starts["delegation"], *starts["post"]
    assert x < first < second


def test_tooltip_has_all_facts() -> None:
    root = picture(example())
    title = next(
        each.findtext(f"{SVG}title") for each in of_class(root, "unit") if "LSN 1003" in "".join(each.itertext())
    )
    assert title == (
        "LSN 1003, unit 3, by task 2 of group 0\n"
        "pages 0-255, 300-303: 4096 bytes\n"
        "from 5100.0 µs to 8000.0 µs\n"
        "after a wait for the counter of its task (1174)\n"
        "waited from 1400.0 µs\n"
        "task 1 posted at 4100.0 µs\n"
        "task 0 posted at 5100.0 µs"
    )


def test_tooltip_tells_a_unit_that_was_handed_out() -> None:
    root = picture([*opening(), sent(0, 1, 2, 3, 1, 0, handed_out=True), sent(1, 4, 5, 6, 1, 0)])
    titles = [each.findtext(f"{SVG}title") or "" for each in of_class(root, "unit")]
    assert ["which was waited for and had it" in title for title in titles] == [True, False]


def test_a_unit_that_was_handed_out_has_a_mark_and_a_meaning_of_its_own() -> None:
    """It need not overlap what its task had."""
    root = picture([*opening(), sent(0, 1, 2, 3, 1, 0, handed_out=True)])
    assert len(in_drawing(root, "handed")) == 1
    explained = " ".join(texts(root))
    assert "handed out to an idle task by one that is waited for" in explained
    assert "it overlaps what the task had" not in explained
    assert not of_class(picture(example()), "handed")


def test_tasks_that_did_nothing_are_counted() -> None:
    assert "3 tasks of 6 did nothing here, and have no lane." in texts(picture([*opening(2), *example()[2:]]))
    assert not any("did nothing" in each for each in texts(picture(example())))


def test_failures_and_operations_of_the_receiver_are_marked() -> None:
    resize = InlineRun(1, Lsn(7), Kind.RESIZE, 0, 1 << 20, at(4), at(5))
    root = picture([*opening(), direct(0, 1, 3), resize, direct(2, 6, 9, failed=True)])
    assert len(in_drawing(root, "failed")) == len(in_drawing(root, "inline")) == 1
    assert {"✗ LSN 1002", "RESIZE LSN 7"} <= set(texts(root))


# Which part is drawn.


@pytest.fixture(scope="module")
def many() -> list[TraceRecord]:
    return long_trace(10_000)


def test_of_10000_units_a_part_is_chosen_and_said(many: list[TraceRecord]) -> None:
    text = drawn(many, hint="--window and --pages choose.")
    root = ElementTree.fromstring(text)
    count = len(of_class(root, "unit"))
    assert 24 <= count <= 90
    assert len(text) < 100_000
    (told,) = [each for each in texts(root) if "of 10,000" in each]
    assert told.startswith(f"{count} units of 10,000, in seconds ")
    assert "--window and --pages choose." in " ".join(texts(root))
    assert in_drawing(root, "delegation") and in_drawing(root, "post")


def test_the_choice_shows_what_is_rare() -> None:
    """Delegations and waits are in one place of the trace."""
    calm = [direct(n, n, n + 0.9, n % 3) for n in range(2000)]
    busy = [
        each
        for n in range(8)
        for each in (
            direct(0, 1000 + 4 * n, 1000.9 + 4 * n, 0),
            sent(0, 1000.5 + 4 * n, 1001 + 4 * n, 1002 + 4 * n, 1, 0),
            waited(0, 1001 + 4 * n, 1004 + 4 * n, 2, {0: 1002.1 + 4 * n, 1: 1002.5 + 4 * n}),
        )
    ]
    records = [*opening(), *calm[:1000], *busy, *calm[1040:]]
    window = choose_window(records, ALL)
    assert window.is_chosen
    assert at(990) < window.start_ns < window.end_ns < at(1060)


def test_the_choice_shows_delegations_where_nothing_waits() -> None:
    units = [direct(n, n, n + 0.9, n % 3) for n in range(2000)]
    units[500:506] = [sent(n, n - 0.5, n, n + 0.9, 2, n % 2) for n in range(500, 506)]
    window = choose_window([*opening(), *units], ALL)
    assert window.start_ns < at(500) and at(506) < window.end_ns


def test_the_choice_depends_on_the_trace_alone(many: list[TraceRecord]) -> None:
    assert drawn(many) == drawn(list(many))


def drawn_and_wanted(records: Sequence[TraceRecord], request: Request) -> Iterator[tuple[list[str], list[str]]]:
    window = choose_window(records, request)
    root = picture(records, request)
    units = [each for each in records if isinstance(each, UnitRun) and request.wants(each)]
    begins = [each.start_ns if each.wait_ns is None else each.wait_ns for each in units]
    inside = [
        unit
        for unit, begin in zip(units, begins, strict=True)
        if begin < window.end_ns and window.start_ns < unit.end_ns
    ]
    yield blocks(root), [f"LSN {unit.lsn}" for unit in inside]
    is_in = range(window.start_ns, window.end_ns + 1)
    yield (
        ["sent"] * len(in_drawing(root, "delegation")),
        ["sent" for each in inside if each.sent_ns and each.sent_ns in is_in],
    )
    posts = [post for unit in inside for post in unit.posts if post.at_ns in is_in]
    yield ["post"] * len(in_drawing(root, "post")), ["post"] * len(posts)


@pytest.mark.parametrize(
    "request_",
    [ALL, Request(window=(0.3, 0.36)), Request(pages=(0, 900)), Request((0, 5000), (0.1, 0.2)), Request(window=(0, 9))],
    ids=["all", "a window", "pages", "pages in a window", "more than can be drawn"],
)
@pytest.mark.parametrize("seed", range(3))
def test_each_unit_of_the_part_is_drawn_once_and_each_sending(request_: Request, seed: int) -> None:
    records = long_trace(3000, seed)
    for found, wanted in drawn_and_wanted(records, request_):
        assert sorted(found) == sorted(wanted)


def test_a_short_trace_is_drawn_whole_however_long_its_pauses() -> None:
    """The units last a millisecond each; between them nothing happens for a minute."""
    records = [*opening(), *(direct(n, 60_000 * n, 60_000 * n + 1, n % 3) for n in range(12))]
    root = picture(records)
    assert len(of_class(root, "unit")) == 12
    assert len(in_drawing(root, "gap")) == 11
    assert {f"{1000 + n}" for n in range(12)} <= {each.removeprefix("LSN ") for each in texts(root)}


def test_window_is_counted_from_the_begin_of_the_trace() -> None:
    records = [*opening(), *(direct(n, 10 * n, 10 * n + 5) for n in range(12))]
    assert blocks(picture(records, Request(window=(0.052, 0.071)))) == ["LSN 1005", "LSN 1006", "LSN 1007"]


def test_what_was_sent_before_the_window_has_no_arrow() -> None:
    """Its lane would have nothing else, so it is not there either."""
    root = picture(example(), Request(window=(0.0045, 0.0048)))
    assert blocks(root) == ["LSN 1002", "LSN 1003"]
    assert len(in_drawing(root, "waiting")) == len(in_drawing(root, "mini")) == 1
    assert in_drawing(root, "post") == in_drawing(root, "delegation") == []
    assert "task 1" not in texts(root)


def test_other_pages_are_left_out_also_at_the_same_time() -> None:
    records = [*opening(), direct(0, 0, 9), direct(1, 1, 5, 1), direct(2, 2, 9, 2)]
    assert blocks(picture(records, Request(pages=(0, 0)))) == ["LSN 1000"]


def test_pages_are_those_of_any_run() -> None:
    records = [*opening(), direct(0, 0, 1, footprint=((0, 4), (100, 1))), direct(1, 2, 3, footprint=((4, 96),))]
    assert blocks(picture(records, Request(pages=(100, 200)))) == ["LSN 1000"]
    assert blocks(picture(records, Request(pages=(3, 4)))) == ["LSN 1000", "LSN 1001"]


def test_nothing_in_the_part_is_an_error_that_tells_how_long_the_trace_is() -> None:
    with pytest.raises(UsageError, match=r"the trace lasts 0\.009200 s"):
        drawn(example(), Request(window=(1, 2)))
    with pytest.raises(UsageError, match="no unit touches these pages; "):
        drawn(example(), Request(pages=(1000, 2000)))


@pytest.mark.parametrize("records", [[], opening(), opening()[:1]], ids=["nothing", "no unit", "cut short"])
def test_a_trace_without_units_has_a_picture_that_says_so(records: list[TraceRecord]) -> None:
    assert "The trace has no unit." in texts(picture(records))


# Each block can be read.


def is_told(unit: UnitRun, shown: set[str]) -> bool:
    """Whether its LSN and its pages are texts: on its block, or in the list."""
    lsn, pages = str(unit.lsn), pages_of(unit)
    lines = ({f"LSN {lsn}", pages}, {lsn, pages}, {f"LSN {lsn} · {pages}"}, {f"{lsn} · {pages}"})
    listed = ({f"LSN {lsn}, page {pages}"}, {f"LSN {lsn}, pages {pages}"})
    return any(each <= shown for each in (*lines, *listed))


def numbers_at_blocks(root: Element) -> list[int]:
    """Spelled out: 3-5 is 3, 4, 5."""
    labels = [each.text or "" for each in of_class(root, "number") if "label" in each.get("class", "").split()]
    ranges = [label.split("-") for label in labels]
    return [number for each in ranges for number in range(int(each[0]), int(each[-1]) + 1)]


@pytest.mark.parametrize(
    "records",
    [quick_trace(10_000), quick_trace(3000, 2, 16), long_trace(3000), example()],
    ids=["quick", "more tasks", "long", "example"],
)
def test_each_block_of_a_chosen_part_has_its_lsn_and_pages_on_it_or_in_the_list(records: list[TraceRecord]) -> None:
    scene = make_scene(records, ALL, choose_window(records, ALL))
    root = picture(records)
    shown = set(texts(root))
    assert [unit.lsn for unit in scene.units if not is_told(unit, shown)] == []
    listed = sum(bool(re.fullmatch(r"(✗ )?LSN \d+, pages? .*", each)) for each in shown)
    assert set(numbers_at_blocks(root)) == set(range(1, listed + 1))


def test_of_quick_units_a_part_is_chosen_in_which_a_third_of_the_blocks_hold_their_text() -> None:
    records = quick_trace(10_000)
    root = picture(records)
    count = len(of_class(root, "unit"))
    assert 10 <= count <= 30
    assert sum("strong" in each.get("class", "").split() for each in of_class(root, "label")) >= count / 3


def check_no_overlap(spans: list[tuple[float, float, float]]) -> None:
    """Spans of texts: height, from, to."""
    spans = sorted(spans)
    for (y, _, end), (other_y, start, _) in itertools.pairwise(spans):
        assert y != other_y or start >= end - 0.11, (y, end, start)


def test_numbers_of_blocks_do_not_overlap_however_narrow_these_are() -> None:
    records = [*opening(), *(direct(n, n, n + 0.1) for n in range(40)), direct(40, 0, 4000, 1)]
    root = picture(records)
    labels = [each for each in of_class(root, "on-canvas") if "number" in each.get("class", "")]
    spans = []
    for each in labels:
        half = svg.text_width(each.text or "", NUMBER_SIZE) / 2
        x = float(each.attrib["x"])
        spans.append((float(each.attrib["y"]), x - half, x + half))
    assert labels
    check_no_overlap(spans)
    assert set(numbers_at_blocks(root)) == set(range(1, 41))


@pytest.mark.parametrize("unit", ["op", "batch"])
def test_texts_of_the_legend_do_not_overlap(unit: str) -> None:
    """Also where units have several runs of pages, and everything occurs."""
    records = [*opening(unit=unit), *example()[2:], direct(5, 10, 12, failed=True, footprint=((1, 2), (5, 6)))]
    root = picture([*records, sent(6, 11, 13, 14, 0, 1, handed_out=True), direct(7, 15, 15.001)])
    spans = [
        (
            float(each.attrib["y"]),
            float(each.attrib["x"]),
            float(each.attrib["x"]) + svg.text_width(each.text or "", 12),
        )
        for each in of_class(root, "small")
    ]
    swatches = {x for _, x, _ in spans}
    assert {50.0, 550.0} <= swatches
    check_no_overlap(spans)
    assert all(end <= 500 for _, x, end in spans if x == 50.0)


def test_a_chosen_part_says_what_is_in_it() -> None:
    calm = [*opening(), *(direct(n, n, n + 0.9, n % 3) for n in range(200))]
    assert any("a part; no unit in it was delegated or waited." in each for each in texts(picture(calm)))
    units = [
        direct(100, 100, 100.9, 1),
        sent(101, 100.5, 101, 101.9, 0, 2),
        waited(102, 100.2, 102.9, 0, {1: 101, 2: 102}),
        waited(103, 101.2, 103.9, 1, {2: 102, 0: 103}),
    ]
    root = picture([*calm[:102], *units, *calm[106:]])
    assert any("a part with 1 delegation and 2 waits." in each for each in texts(root))


# The bounds of the picture.


def places(element: Element) -> list[tuple[float, float]]:
    """The corners of a path that has no curve but at its bends, or of a box."""
    if element.tag == f"{SVG}rect":
        x, y, width, height = (float(element.get(name, "0")) for name in ("x", "y", "width", "height"))
        return [(x, y), (x + width, y + height)]
    found, x, y = [], 0.0, 0.0
    for command, values in re.findall(r"([MVHhvlqz])([^MVHhvlqz]*)", element.attrib["d"]):
        numbers = [float(each) for each in re.findall(r"-?[\d.]+", values)]
        match command:
            case "M":
                x, y = numbers
            case "V":
                y = numbers[0]
            case "H":
                x = numbers[0]
            case "v":
                y += numbers[0]
            case "h":
                x += numbers[0]
            case "l" | "q":
                x, y = x + numbers[-2], y + numbers[-1]
        found.append((x, y))
    return found


def check_bounds(text: str) -> None:
    root = ElementTree.fromstring(text)
    (defs,) = root.findall(f"{SVG}defs")
    root.remove(defs)
    height = float(root.attrib["height"])
    shapes = [*root.iter(f"{SVG}rect"), *root.iter(f"{SVG}path")]
    for x, y in (place for shape in shapes for place in places(shape)):
        assert -0.1 <= x <= WIDTH + 0.1 and -0.1 <= y <= height + 0.1
    assert all(float(each.attrib["width"]) >= 0 <= float(each.attrib["height"]) for each in root.iter(f"{SVG}rect"))
    for each in root.iter(f"{SVG}text"):
        assert 0 <= float(each.attrib["x"]) <= WIDTH and 0 < float(each.attrib["y"]) <= height - 2


HUGE = (1 << 64) - 1


@pytest.mark.parametrize(
    "records",
    [
        example(),
        long_trace(500),
        [*opening(), direct(0, 3, 1), waited(1, 9, 4, 1, {7: 2.0}), sent(2, 9, 3, 2, 0, 0)],
        [*opening(), direct(0, 1, 1), direct(1, 1, 1)],
        [
            *opening(),
            direct(
                HUGE, 1, 2, task=HUGE, group=HUGE, lsn=HUGE, footprint=((0, HUGE),), given_back=HUGE, payload_bytes=HUGE
            ),
            replace(direct(1, 1, 2), start_ns=0, end_ns=HUGE),
        ],
        [direct(0, 1, 2), Divided(HUGE, "x" * 9999, HUGE, HUGE, "y z " * 9999, "")],
    ],
    ids=["example", "many", "ends before its begin", "no time passes", "huge numbers", "a long plan"],
)
def test_nothing_is_outside_of_the_picture(records: list[TraceRecord]) -> None:
    check_bounds(drawn(records, command="mirrortool " + "trace " * 999, hint="a hint " * 999))


def test_a_long_caption_is_cut_short() -> None:
    root = picture([*opening(), direct(0, 1, 2)], hint="")
    long = picture([*opening(ranges="x y " * 999), direct(0, 1, 2)], command="x" * 9999)
    assert float(long.attrib["height"]) <= float(root.attrib["height"]) + 20


def test_tasks_are_limited_and_the_others_counted() -> None:
    records = [*opening(2, 100), *(direct(n, n % 7, n % 7 + 5, n % 100, group=n // 100) for n in range(200))]
    root = picture(records, Request(window=(0, 1)))
    left_out = 200 - LANES_MAX
    assert len(of_class(root, "row")) == len(of_class(root, "unit")) == LANES_MAX
    assert f"Left out, because they are too many: {left_out} units and {left_out} tasks." in texts(root)


def test_units_that_all_run_at_one_time_are_limited() -> None:
    """No part of the trace has few of them."""
    records = [*opening(), *(direct(n, 1, 2) for n in range(5000))]
    scene = make_scene(records, ALL, choose_window(records, ALL))
    assert (len(scene.units), scene.units_left_out) == (UNITS_MAX, 5000 - UNITS_MAX)
    assert len(drawn(records)) < 1_000_000


def test_a_huge_footprint_is_never_spelled_out() -> None:
    runs = tuple((4 * each, 2) for each in range(100_000))
    records = [*opening(), direct(0, 1, 2, footprint=runs), direct(1, 3, 4, footprint=((0, 1 << 52),))]
    text = drawn(records)
    assert len(text) < 20_000
    assert "0-1 +99999" in text and f"0-{(1 << 52) - 1}" in text


def test_posts_of_a_unit_are_limited_by_the_tasks_that_are_drawn() -> None:
    posts = tuple(Post(each, at(1.5)) for each in range(10_000))
    text = drawn([*opening(), replace(waited(0, 1, 3, 0, {1: 2.0}), posts=posts)])
    assert len(text) < 200_000


# A trace may come from anybody.

HOSTILE = '</text><script>alert("1")</script>&\x1b\0\u202e\ud800]]>'


def test_hostile_names_are_text() -> None:
    records = [*opening(ranges=HOSTILE, unit=HOSTILE), direct(0, 1, 2)]
    text = drawn(records, command=HOSTILE, hint=HOSTILE)
    root = ElementTree.fromstring(text.encode())
    assert not list(root.iter(f"{SVG}script"))
    assert any("alert" in each for each in texts(root))
    assert not set("\x1b\0\u202e\ud800") & set(text)


def test_picture_is_readable_on_dark_ground_and_loads_nothing() -> None:
    text = drawn(example())
    assert "prefers-color-scheme: dark" in text
    assert "href" not in text and "<script" not in text and "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}


def test_ways_differ_in_grey() -> None:
    """By the element or its outline, not by the class alone."""
    root = picture(example())
    mini, waiting, plain = in_drawing(root, "mini")[0], in_drawing(root, "waiting")[0], in_drawing(root, "direct")[0]
    assert (mini.tag, plain.tag) == (f"{SVG}path", f"{SVG}rect")
    style = root.findtext(f"{SVG}style") or ""
    assert re.search(r"\.waiting {[^}]*stroke-dasharray", style)
    assert re.search(r"\.post {[^}]*stroke-dasharray", style)
    assert not re.search(r"\.delegation {[^}]*stroke-dasharray", style)
    assert waiting.attrib["y"] != plain.attrib["y"] or waiting.attrib["x"] != plain.attrib["x"]
