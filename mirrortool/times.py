"""Moments and durations, as people write them and as they are printed.

    2026-11-23, 2026-11-23 14:30[:20[.5]]   a T may stand in place of the space; after it Z, +hh:mm or +hhmm
    14:30[:20[.5]]                          today; `today 14:30` is the same, `yesterday 14:30` the day before
    @1764343696[.5]                         seconds since 1970 UTC
    @1764343696123456789                    nanoseconds since then: what --json prints, after an @
    -10m                                    that long ago

Rule: a moment that was printed selects what it was printed of. Digits after the decimal point therefore stand for
every nanosecond that begins with them: .123 is .123000000 to .123999999. Without any, a moment is one nanosecond.
Rule: without a zone a time is this host's. One that a change of its clocks left out, or gave twice, is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

from mirrortool import clock

EXAMPLES = "'2026-11-23 14:30', 2026-11-23T14:30:00Z, 14:30, @1764343696 or -10m"
SECOND_NS = 10**9
_DAY_SECONDS = 86400
_SECONDS_MAX = (1 << 63) // SECOND_NS
"""After an @: a larger number counts nanoseconds. No frame's time is later."""
_PROBE_HOURS = 26
"""No zone is further from UTC; nor did one ever set its clocks by more."""

_DURATION = re.compile(r"(\d{1,10}(?:\.\d{1,9})?)(s|m|h|d|w)", re.ASCII)
_DURATION_SECONDS_MAX = 100 * 366 * _DAY_SECONDS
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": _DAY_SECONDS, "w": 7 * _DAY_SECONDS}

_CLOCK = r"(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?"
_ZONE = r"\s*(?P<zone>Z|(?P<sign>[+-])(?P<zh>\d\d):?(?P<zm>\d\d)(?::?(?P<zs>\d\d))?)?"
_DATED = re.compile(rf"(?P<date>\d{{4}}-\d\d-\d\d)(?:(?:T|\s+){_CLOCK})?{_ZONE}", re.ASCII | re.IGNORECASE)
_DAILY = re.compile(rf"(?:(?P<day>today|yesterday)\s+)?{_CLOCK}{_ZONE}", re.ASCII | re.IGNORECASE)
_COUNTED = re.compile(r"@(?P<count>\d{1,19})(?:\.(?P<fraction>\d{1,9}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment as it was written.

    Attributes:
        time_ns: its first nanosecond, since 1970 UTC.
        width_ns: how many nanoseconds it stands for.
    """

    time_ns: int
    width_ns: int = 1


class NotATimeError(ValueError):
    """The text is not written as any time is."""


def parse_moment(text: str) -> Moment:
    """A moment.

    Raises:
        NotATimeError: the text is none.
        ValueError: there is no such moment, or there are two.
    """
    text = text.strip()
    if text.startswith("-") and _DURATION.fullmatch(text[1:]):
        return Moment(clock.now_ns() - int(parse_duration(text[1:]) * SECOND_NS))
    if match := _COUNTED.fullmatch(text):
        return _counted(int(match["count"]), match["fraction"])
    match = _DATED.fullmatch(text) or _DAILY.fullmatch(text)
    if match is None:
        raise NotATimeError(f"{text!r} is not a time, such as {EXAMPLES}")
    try:
        seconds = _seconds(match, text)
    except OverflowError:
        raise ValueError(f"there is no time {text!r}") from None
    return _with_fraction(seconds, match["fraction"])


def parse_duration(text: str) -> float:
    """Seconds; a number with s, m, h, d or w.

    Raises:
        ValueError: the text is none.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration, such as 30s, 10m, 1h or 7d")
    seconds = float(match[1]) * _UNIT_SECONDS[match[2]]
    if seconds > _DURATION_SECONDS_MAX:
        raise ValueError(f"{text!r} is longer than a hundred years")
    return seconds


def format_time(time_ns: int) -> str:
    """A time in this host's zone, cut to the millisecond, with the zone's offset."""
    seconds, rest = divmod(time_ns, SECOND_NS)
    moment = datetime.fromtimestamp(seconds, UTC).astimezone(_zone_at(seconds))
    return f"{moment:%Y-%m-%d %H:%M:%S}.{rest // 10**6:03d}{moment:%z}"


def _counted(count: int, fraction: str | None) -> Moment:
    if count <= _SECONDS_MAX:
        return _with_fraction(count, fraction)
    if fraction:
        raise ValueError(f"@{count}.{fraction} is later than any time; without the fraction it is nanoseconds")
    return Moment(count)


def _with_fraction(seconds: int, fraction: str | None) -> Moment:
    digits = fraction or "0" * 9
    return Moment(seconds * SECOND_NS + int(digits.ljust(9, "0")), 10 ** (9 - len(digits)))


def _seconds(match: re.Match[str], text: str) -> int:
    """Seconds since 1970 UTC; whole ones."""
    found = match.groupdict()
    try:
        zone = _zone_of(found)
        day = date.fromisoformat(found["date"]) if found.get("date") else _day(found.get("day") or "", zone)
        wall = datetime(
            day.year, day.month, day.day, int(found["hour"] or 0), int(found["minute"] or 0), int(found["second"] or 0)
        )
    except ValueError:
        raise ValueError(f"there is no time {text!r}") from None
    if zone is not None:
        return _utc_seconds(wall) - _offset_seconds(zone)
    return _local_seconds(wall, text, f".{found['fraction']}" if found["fraction"] else "")


def _day(word: str, zone: timezone | None) -> date:
    """Today, or yesterday, in that zone, or in this host's."""
    now = clock.now_ns() // SECOND_NS
    today = datetime.fromtimestamp(now, UTC).astimezone(zone or _zone_at(now)).date()
    return today - timedelta(days=word.lower() == "yesterday")


def _zone_of(found: dict[str, str | None]) -> timezone | None:
    if found["zone"] is None:
        return None
    if found["zone"] in "Zz":
        return UTC
    hours, minutes, seconds = (int(found[part] or 0) for part in ("zh", "zm", "zs"))
    if max(minutes, seconds) > 59:
        raise ValueError
    seconds += 3600 * hours + 60 * minutes
    return timezone(timedelta(seconds=-seconds if found["sign"] == "-" else seconds))


def _zone_at(seconds: int) -> timezone:
    """This host's zone then, with which times are printed; UTC where TZ says what no zone is."""
    return timezone(timedelta(seconds=_utc_offset(seconds)))


def _utc_offset(seconds: int) -> int:
    offset = clock.utc_offset_seconds(seconds)
    return offset if abs(offset) < _DAY_SECONDS else 0


def _utc_seconds(wall: datetime) -> int:
    return int((wall - datetime(1970, 1, 1)).total_seconds())


def _offset_seconds(zone: timezone) -> int:
    return int(zone.utcoffset(None).total_seconds())


def _local_seconds(wall: datetime, text: str, fraction: str) -> int:
    """Of what this host's clocks show; text and fraction are for the message that says what to write in place of it.

    Raises:
        ValueError: they never did, or did so twice.
    """
    shown = _utc_seconds(wall)
    offsets = {_utc_offset(shown + 3600 * hours) for hours in range(-_PROBE_HOURS, _PROBE_HOURS + 1)}
    found = sorted(shown - offset for offset in offsets if _utc_offset(shown - offset) == offset)
    if len(found) == 1:
        return found[0]
    if found:
        ways = " or ".join(repr(_show(wall, shown - seconds, fraction)) for seconds in found)
        raise ValueError(f"{text!r} was there twice, as the clocks were set back; say which: {ways}")
    around = _utc_offset(shown - max(offsets)), _utc_offset(shown - min(offsets))
    ways = " or ".join(repr(_show(wall, offset, fraction)) for offset in sorted(around))
    raise ValueError(f"{text!r} was never there, as the clocks were set forward; say which is meant: {ways}")


def _show(wall: datetime, offset: int, fraction: str) -> str:
    shown = wall.replace(tzinfo=timezone(timedelta(seconds=offset)))
    return f"{shown:%Y-%m-%d %H:%M:%S}{fraction}{shown:%z}"
