"""Which part of a trace a picture shows: what was asked for, or the part that shows most of the method.

Rule: the choice depends on the records alone; the same trace gives the same picture.
Rule: of the parts in which a fixed number of units ended one after another, the one is chosen that has delegations,
waits and give-backs, and blocks wide enough to be read, however long nothing happened between them. Short units beside
long ones, or one after another, are narrow; then a part of few units is the better one.
Bound: a few numbers for each of the newest _UNITS_TELLING records.

Not here: what is drawn of it (scene.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from mirrortool.replay.tracing import Divided, Drained, Ended, InlineRun, Started, TraceRecord, UnitRun
from mirrortool.trace.timescale import find_gaps, merged

UNITS_MAX = 600
"""More than this are not drawn, whatever was asked for: they could not be told apart."""

UNITS_WHOLE = 60
"""A trace with no more units than this is drawn whole."""

_UNITS_TELLING = {10: 5, 16: 5, 24: 10, 40: 10, 60: 15}
"""How many units a part has, and after how many units more the next such part is looked at."""
_PIXELS = 918.0
"""About the width of a drawing."""
_PIXELS_LEGIBLE = 45.0
"""A block that is this wide can hold an LSN."""

Records = Callable[[], Iterable[TraceRecord]]
"""Gives the records of a trace, each time from its begin."""


@dataclass(frozen=True, slots=True)
class Request:
    """What of a trace a person wants to see.

    Attributes:
        pages: only the units that touch one of the pages from the first to the last of these.
        window: only from here to there, in seconds since the trace began.
    """

    pages: tuple[int, int] | None = None
    window: tuple[float, float] | None = None

    def wants(self, record: UnitRun | InlineRun) -> bool:
        """Whether it touches the pages."""
        if self.pages is None:
            return True
        first, last = self.pages
        runs = record.footprint if isinstance(record, UnitRun) else ((record.page, record.count),)
        return any(page <= last and first < page + count for page, count in runs)


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """A part of a trace: from when to when, on the clock of its records.

    Attributes:
        start_ns, end_ns: where it begins and ends.
        origin_ns: where the trace begins.
        last_ns: where it ends.
        units: how many there are in what was asked for, and in the whole trace.
        is_chosen: whether it is a part that was chosen here.
    """

    start_ns: int
    end_ns: int
    origin_ns: int
    last_ns: int
    units: tuple[int, int]
    is_chosen: bool


def choose_window(records: Iterable[TraceRecord], request: Request) -> TimeWindow:
    """The part to draw, after one look at all records."""
    chooser = _Chooser(request)
    for record in records:
        if not isinstance(record, Started):
            chooser.see(record)
    return chooser.window()


def span_of(record: UnitRun | InlineRun | Divided | Drained | Ended) -> tuple[int, int]:
    """From when to when a record is about, with its wait for a counter; a trace that is wrong may end before."""
    match record:
        case UnitRun():
            begin_ns = record.start_ns if record.wait_ns is None else min(record.wait_ns, record.start_ns)
            return begin_ns, max(begin_ns, record.end_ns)
        case InlineRun(start_ns=start_ns, end_ns=end_ns):
            return start_ns, max(start_ns, end_ns)
    return record.at_ns, record.at_ns


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the choice depends on, of a unit or an inline operation; `begin_ns` is that of its wait, if it had one."""

    begin_ns: int
    start_ns: int
    end_ns: int
    lane: tuple[int, int] | None = None
    given_back: bool = False
    sent_ns: int = 0
    first_post_ns: int = 0
    posts: int = 0


class _Chooser:
    """Sees the records one after another, and keeps the best part."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._origin_ns: int | None = None
        self._last_ns = 0
        self._all = self._wanted = 0
        self._first_ns: int | None = None  # of what is wanted
        self._final_ns = 0
        self._recent: deque[_Seen] = deque(maxlen=max(_UNITS_TELLING) + 1)
        self._best: tuple[float, int, int] = (-1.0, 0, 0)

    def see(self, record: UnitRun | InlineRun | Divided | Drained | Ended) -> None:
        """The next record of the trace."""
        begin_ns, end_ns = span_of(record)
        if self._origin_ns is None:
            self._origin_ns = begin_ns
        self._last_ns = max(self._last_ns, end_ns)
        if isinstance(record, UnitRun | InlineRun):
            self._all += isinstance(record, UnitRun)
            if self._is_wanted(record, begin_ns, end_ns):
                self._add(record, begin_ns, end_ns)

    def _is_wanted(self, record: UnitRun | InlineRun, begin_ns: int, end_ns: int) -> bool:
        asked = self._asked()
        return self._request.wants(record) and (asked is None or (begin_ns <= asked[1] and asked[0] <= end_ns))

    def _asked(self) -> tuple[int, int] | None:
        """The window that was asked for, once it is known when the trace begins."""
        if self._request.window is None or self._origin_ns is None:
            return None
        start, end = self._request.window
        return self._origin_ns + round(start * 1e9), self._origin_ns + round(end * 1e9)

    def _add(self, record: UnitRun | InlineRun, begin_ns: int, end_ns: int) -> None:
        first_ns = begin_ns
        if isinstance(record, UnitRun) and record.sent_ns is not None:
            first_ns = min(begin_ns, record.sent_ns)
        self._first_ns = first_ns if self._first_ns is None else min(self._first_ns, first_ns)
        self._final_ns = max(self._final_ns, end_ns)
        if isinstance(record, InlineRun):
            self._recent.append(_Seen(begin_ns, begin_ns, end_ns))
            return
        self._wanted += 1
        self._recent.append(_seen(record, begin_ns))
        for count, every in _UNITS_TELLING.items():
            if self._wanted % every == 0 and count <= len(self._recent):
                self._best = max(self._best, self._judge(count), key=lambda found: found[0])

    def _judge(self, count: int) -> tuple[float, int, int]:
        """How much the newest records show, and from when to when."""
        seen = list(islice(self._recent, len(self._recent) - count, None))
        start_ns = min(each.begin_ns for each in seen)
        if count < len(self._recent):
            start_ns = max(start_ns, self._recent[-count - 1].end_ns)
        end_ns = max(each.end_ns for each in seen)
        return _interest(seen, start_ns), start_ns, end_ns

    def window(self) -> TimeWindow:
        """The best part, or all that was asked for if it is not too much."""
        origin_ns = self._origin_ns or 0
        start_ns, end_ns = self._first_ns or origin_ns, self._final_ns or origin_ns
        asked = self._asked()
        if asked:
            start_ns, end_ns = max(start_ns, asked[0]), min(end_ns, asked[1])
        is_chosen = self._wanted > (UNITS_MAX if asked else UNITS_WHOLE)
        if is_chosen:
            _, start_ns, end_ns = self._best
        return TimeWindow(start_ns, end_ns, origin_ns, self._last_ns, (self._wanted, self._all), is_chosen)


def _seen(unit: UnitRun, begin_ns: int) -> _Seen:
    return _Seen(
        begin_ns,
        unit.start_ns,
        unit.end_ns,
        (unit.group, unit.task),
        unit.given_back > 0,
        unit.sent_ns or 0,
        min((post.at_ns for post in unit.posts), default=0),
        len(unit.posts),
    )


def _interest(seen: Sequence[_Seen], start_ns: int) -> float:
    """The most for a part in which several tasks are seen, and all ways; more of one way than that adds nothing.

    Only blocks count that are wide enough, if the time is left out in which nothing happens.
    """
    busy = list(merged((max(each.start_ns, start_ns), max(each.end_ns, start_ns)) for each in seen))
    least_ns = _PIXELS_LEGIBLE / find_gaps(busy, _PIXELS)[2]
    legible = [each for each in seen if each.lane and each.end_ns - max(each.start_ns, start_ns) >= least_ns]
    waited = [each for each in legible if each.start_ns - max(each.begin_ns, start_ns) >= least_ns / 2]
    return (
        3 * len(legible) / len(seen)
        + min(len({each.lane for each in legible}), 8) / 8
        + min(sum(each.sent_ns >= start_ns for each in legible), 6) / 6
        + min(len(waited), 3) / 3
        + min(sum(each.posts for each in waited if each.first_post_ns >= start_ns), 6) / 6
        + min(sum(each.given_back for each in legible), 3) / 12
    )
