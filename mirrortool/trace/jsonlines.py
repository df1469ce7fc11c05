"""The lines of a trace file: a record of tracing.py as a JSON object, and back.

Source: mirrortool-replay(1), Trace.
A trace may come from another host: every field is checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mirrortool.address import ADDRESS_LIMIT
from mirrortool.errors import USE_A_LATER_ONE, BadLogError, UsageError
from mirrortool.jsonfile import Fields, to_local, to_portable
from mirrortool.lsn import Lsn
from mirrortool.operation import Kind
from mirrortool.replay.engine import GROUPS_MAX, TASKS_MAX, Plan
from mirrortool.replay.tracing import Divided, Drained, Ended, InlineRun, Post, Started, TraceRecord, UnitRun
from mirrortool.replay.writeunit import How

VERSION = 1
LINE_BEGINS = b'{"type": "start", '
"""What every trace begins with."""

_PAGES_MAX = ADDRESS_LIMIT // 512
_TASK_MAX = TASKS_MAX - 1


def encode(record: TraceRecord) -> bytes:
    """A line, with its end."""
    return json.dumps(_to_json(record)).encode() + b"\n"


def decode(line: bytes, where: str) -> TraceRecord:
    """The record of a line; `where` it is, for errors.

    Raises:
        BadLogError: it is not a line of a trace, or of a version that this program does not know.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise BadLogError("is not a line of a trace", where=where) from None
    kind = values.get("type") if isinstance(values, dict) else None
    read = _FROM_JSON.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise BadLogError("is not a line of a trace", where=where)
    return read(Fields(to_local(values), where, BadLogError))


def _to_json(record: TraceRecord) -> dict[str, Any]:
    match record:
        case UnitRun():
            return _unit_to_json(record)
        case Drained(sequence, at_ns):
            return {"type": "drain", "sequence": sequence, "at_ns": at_ns}
        case Divided():
            return {
                "type": "plan",
                "at_ns": record.at_ns,
                "ranges": record.ranges,
                "groups": record.groups,
                "tasks": record.tasks,
                "unit": record.unit,
                "io": record.io,
            }
        case InlineRun():
            return {
                "type": "inline",
                "sequence": record.sequence,
                "lsn": record.lsn,
                "kind": record.kind.name,
                "first_page": record.page,
                "count": record.count,
                "start_ns": record.start_ns,
                "end_ns": record.end_ns,
            }
        case Started():
            paths = to_portable({"journal": record.journal, "mirror": record.mirror})
            rest = {"page_size": record.page_size, "started_ns": record.started_ns}
            return {"type": "start", "version": VERSION, **paths, **rest}
        case Ended(sequence, at_ns):
            return {"type": "end", "sequence": sequence, "at_ns": at_ns}


def _unit_to_json(unit: UnitRun) -> dict[str, Any]:
    return {
        "type": "unit",
        "sequence": unit.sequence,
        "lsn": unit.lsn,
        "group": unit.group,
        "task": unit.task,
        "footprint": unit.footprint,
        "bytes": unit.payload_bytes,
        "start_ns": unit.start_ns,
        "end_ns": unit.end_ns,
        "how": unit.how.value,
        "given_back": unit.given_back,
        "sent_by": unit.sent_by,
        "sent_ns": unit.sent_ns,
        "handed_out": unit.handed_out,
        "wait_ns": unit.wait_ns,
        "waited_for": [{"task": post.task, "posted_ns": post.at_ns} for post in unit.posts],
        "failed": unit.failed,
    }


def _unit(fields: Fields) -> UnitRun:
    how = _how(fields)
    _check_present(fields, how is How.MINI_QUEUE, "sent_by", "sent_ns")
    _check_present(fields, how is How.COUNTER_WAIT, "wait_ns")
    return UnitRun(
        sequence=fields.integer("sequence"),
        lsn=Lsn(fields.integer("lsn")),
        group=fields.integer("group", GROUPS_MAX - 1),
        task=fields.integer("task", _TASK_MAX),
        footprint=_footprint(fields),
        payload_bytes=fields.integer("bytes"),
        start_ns=fields.integer("start_ns"),
        end_ns=fields.integer("end_ns"),
        how=how,
        given_back=fields.integer("given_back"),
        sent_by=fields.integer("sent_by", _TASK_MAX) if "sent_by" in fields else None,
        sent_ns=fields.integer("sent_ns") if "sent_ns" in fields else None,
        handed_out=fields.flag("handed_out"),
        wait_ns=fields.integer("wait_ns") if "wait_ns" in fields else None,
        posts=tuple(_post(post) for post in fields.objects("waited_for")),
        failed=fields.flag("failed"),
    )


def _post(fields: Fields) -> Post:
    return Post(fields.integer("task", _TASK_MAX), fields.integer("posted_ns"))


def _check_present(fields: Fields, is_wanted: bool, *names: str) -> None:
    """These fields are null unless they are wanted."""
    for each in names:
        if (each in fields) != is_wanted:
            raise fields.wrong(each)


def _footprint(fields: Fields) -> tuple[tuple[int, int], ...]:
    """Runs that are ascending and do not overlap; at least one."""
    runs = tuple(fields.pairs("footprint"))
    end = 0
    for first, count in runs:
        if first < end or count < 1:
            raise fields.wrong("footprint")
        end = first + count
    if not 0 < end <= _PAGES_MAX:
        raise fields.wrong("footprint")
    return runs


def _started(fields: Fields) -> Started:
    version = fields.integer("version")
    if version > VERSION:
        raise BadLogError(
            f"a trace of version {version}, and this mirrortool knows versions up to {VERSION}: a newer one wrote it",
            remedy=USE_A_LATER_ONE,
        )
    if version != VERSION:
        raise fields.wrong("version")
    return Started(
        fields.text("journal"), fields.text("mirror"), fields.integer("page_size"), fields.integer("started_ns")
    )


def _divided(fields: Fields) -> Divided:
    plan = Plan(
        ranges=fields.text("ranges"),
        groups=fields.integer("groups"),
        tasks=fields.integer("tasks"),
        unit=fields.text("unit"),
        io=fields.text("io"),
    )
    try:
        plan.check()
    except UsageError as error:
        raise fields.wrong("groups") from error
    return Divided(fields.integer("at_ns"), plan.ranges, plan.groups, plan.tasks, plan.unit, plan.io)


def _inline(fields: Fields) -> InlineRun:
    try:
        kind = Kind[fields.text("kind")]
    except KeyError:
        raise fields.wrong("kind") from None
    return InlineRun(
        fields.integer("sequence"),
        Lsn(fields.integer("lsn")),
        kind,
        fields.integer("first_page"),
        fields.integer("count"),
        fields.integer("start_ns"),
        fields.integer("end_ns"),
    )


def _how(fields: Fields) -> How:
    try:
        return How(fields.text("how"))
    except ValueError:
        raise fields.wrong("how") from None


_FROM_JSON: dict[str, Callable[[Fields], TraceRecord]] = {
    "start": _started,
    "plan": _divided,
    "unit": _unit,
    "inline": _inline,
    "drain": lambda fields: Drained(fields.integer("sequence"), fields.integer("at_ns")),
    "end": lambda fields: Ended(fields.integer("sequence"), fields.integer("at_ns")),
}
