"""A record is the same after it was a line, and no line does harm."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import BadLogError
from mirrortool.lsn import Lsn
from mirrortool.operation import Kind
from mirrortool.replay.engine import Plan
from mirrortool.replay.ranges import RANGES
from mirrortool.replay.tracing import Divided, Drained, Ended, InlineRun, Post, Started, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace.jsonlines import LINE_BEGINS, decode, encode

NUMBER = st.integers(0, (1 << 64) - 1)
SMALL = st.integers(0, 1000)
LSN = NUMBER.map(Lsn)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@st.composite
def footprints(draw):
    runs, page = [], 0
    for gap, count in draw(
        st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 40)), min_size=1, max_size=5)
    ):
        runs.append((page + gap, count))
        page += gap + count
    return tuple(runs)


@st.composite
def units(draw):
    how = draw(st.sampled_from(How))
    unit = UnitRun(
        draw(NUMBER), draw(LSN), draw(st.integers(0, 255)), draw(SMALL), draw(footprints()), draw(NUMBER), draw(NUMBER),
        draw(NUMBER), how, given_back=draw(SMALL), handed_out=draw(st.booleans()), failed=draw(st.booleans()),
    )  # fmt: skip
    if how is How.MINI_QUEUE:
        return replace(unit, sent_by=draw(SMALL), sent_ns=draw(NUMBER))
    if how is How.COUNTER_WAIT:
        posts = tuple(Post(task, at_ns) for task, at_ns in draw(st.lists(st.tuples(SMALL, NUMBER), max_size=4)))
        return replace(unit, wait_ns=draw(NUMBER), posts=posts)
    return unit


RECORDS = st.one_of(
    units(),
    st.builds(Started, TEXT, TEXT, NUMBER, NUMBER),
    st.builds(
        Divided, NUMBER, st.sampled_from(RANGES), st.integers(1, 16), st.integers(1, 64),
        st.sampled_from(["op", "batch"]), st.sampled_from(["buffered", "direct"]),
    ),
    st.builds(InlineRun, NUMBER, LSN, st.sampled_from([Kind.RESIZE, Kind.ZERO]), NUMBER, NUMBER, NUMBER, NUMBER),
    st.builds(Drained, NUMBER, NUMBER),
    st.builds(Ended, NUMBER, NUMBER),
)  # fmt: skip
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
UNIT = UnitRun(1, Lsn(2), 3, 4, ((5, 6),), 7, 8, 9, How.DIRECT)


@given(record=RECORDS)
def test_a_record_round_trips(record):
    line = encode(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode(line, "here") == record


def test_a_trace_begins_as_the_command_that_writes_it_expects():
    assert encode(Started("j", "m", 512, 0)).startswith(LINE_BEGINS)


@settings(max_examples=120)
@given(record=RECORDS, data=st.data(), junk=JUNK)
def test_a_field_with_something_else_is_an_error_or_another_record(record, data, junk):
    values = json.loads(encode(record))
    values[data.draw(st.sampled_from(sorted(values)))] = junk
    _decode_anything(json.dumps(values).encode())


@given(record=RECORDS, data=st.data())
def test_a_line_without_a_field_is_an_error(record, data):
    values = json.loads(encode(record))
    name = data.draw(st.sampled_from([name for name, value in values.items() if value is not None]))
    del values[name]
    with pytest.raises(BadLogError):
        decode(json.dumps(values).encode(), "here")


@given(line=st.binary(max_size=60) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_error_or_a_record(line):
    _decode_anything(line)


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b"9" * 100_000, b'{"type": ["unit"]}', b'{"type": {}}', b"\xff\xfe", b"null", b"{}", b""],
)
def test_lines_that_could_do_harm(line):
    with pytest.raises(BadLogError, match="here: is not a line of a trace"):
        decode(line, "here")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("footprint", []),
        ("footprint", [[5, 0]]),
        ("footprint", [[5, 2], [6, 1]]),
        ("footprint", [[5, 2], [1, 1]]),
        ("footprint", [[0, 1 << 63]]),
        ("how", "by magic"),
        ("sent_by", 3),
        ("wait_ns", 3),
        ("start_ns", -1),
        ("sequence", 1 << 64),
        ("sequence", True),
        ("group", 256),
        ("task", 1024),
        ("failed", 0),
        ("waited_for", [3]),
    ],
)
def test_a_unit_that_cannot_be(name, value):
    values = json.loads(encode(UNIT)) | {name: value}
    with pytest.raises(BadLogError, match=f"field '{name}"):
        decode(json.dumps(values).encode(), "here")


@pytest.mark.parametrize(
    "change", [{"groups": 0}, {"groups": 257}, {"tasks": 1025}, {"ranges": "all"}, {"unit": "page"}, {"io": "none"}]
)
def test_a_plan_that_cannot_be(change):
    plan = Plan()
    values = json.loads(encode(Divided(0, plan.ranges, plan.groups, plan.tasks, plan.unit, plan.io))) | change
    with pytest.raises(BadLogError, match="field 'groups'"):
        decode(json.dumps(values).encode(), "here")


def test_a_later_version_is_refused():
    values = json.loads(encode(Started("j", "m", 512, 0))) | {"version": 2}
    with pytest.raises(BadLogError, match="a trace of version 2, and this mirrortool knows"):
        decode(json.dumps(values).encode(), "here")


def _decode_anything(line: bytes) -> None:
    with suppress(BadLogError):
        decode(line, "here")
