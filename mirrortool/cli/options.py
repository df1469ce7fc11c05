"""Values as people write them: sizes, durations, points in time, volumes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from mirrortool import clock
from mirrortool.errors import MirrortoolError
from mirrortool.journal.commits import Until
from mirrortool.operation import MARK_NAME

if TYPE_CHECKING:
    from mirrortool.journal.directory import Journal

_SIZE = re.compile(r"(\d{1,20})(?:([KMGTPE])(?:iB|B)?|B)?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(\d{1,10}(?:\.\d{1,9})?)(s|m|h|d|w)", re.ASCII)
_DURATION_SECONDS_MAX = 100 * 366 * 86400
_LSN = re.compile(r"\d{1,20}", re.ASCII)
_COMMITS_COMPLETED = 2000
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d\d:?\d\d)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class SlotLag:
    """How far a slot may be behind: in bytes, or in seconds."""

    size: int | None
    seconds: float | None


def parse_size(text: str) -> int:
    """Bytes; K, M, G, T, P, E are powers of 1024, with or without iB."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no size, such as 512, 64M or 10GiB")
    return int(match[1]) << (10 * " KMGTPE".index((match[2] or " ").upper()))


def parse_rate(text: str) -> int:
    """Bytes a second: a size, with or without /s."""
    rate = parse_size(text.strip().removesuffix("/s"))
    if not rate:
        raise ValueError(f"at {text!r} nothing would ever get on")
    return rate


def parse_duration(text: str) -> float:
    """Seconds; a number with s, m, h, d or w."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no duration, such as 30s, 10m, 1h or 7d")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _DURATION_SECONDS_MAX:
        raise ValueError(f"{text!r} is longer than a hundred years")
    return seconds


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 UTC: a date with or without a time and a zone (local by default), or -10m for ago."""
    if text.startswith("-"):
        return clock.now_ns() - int(parse_duration(text[1:]) * 1e9)
    match = _TIME.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no time, such as '2026-11-23 14:30', 2026-11-23T14:30:00Z or -10m")
    year, month, day = (int(match[i]) for i in (1, 2, 3))
    hour, minute, second = (int(match[i] or 0) for i in (4, 5, 6))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=_zone(match[8]))
        seconds = moment.timestamp() if match[8] else clock.local_seconds(year, month, day, hour, minute, second)
    except (ValueError, OverflowError):
        raise ValueError(f"there is no time {text!r}") from None
    return int(seconds) * 10**9 + int((match[7] or "").ljust(9, "0"))


def parse_until(text: str) -> Until:
    """A point to stop at: an LSN, a time, or a mark."""
    if _LSN.fullmatch(text):
        return Until(lsn=int(text))
    if MARK_NAME.fullmatch(text):
        return Until(mark=text)
    try:
        return Until(time_ns=parse_time(text))
    except ValueError:
        raise ValueError(f"{text!r} is neither an LSN, nor a time, nor a mark") from None


def parse_mode(text: str) -> int:
    """Permission bits, in octal."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"{text!r} is no mode, such as 0660")
    return mode


def parse_named_path(text: str) -> tuple[str, str]:
    """NAME=PATH."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ValueError(f"{text!r} is not NAME=PATH")
    return name, path


def parse_lag(text: str) -> SlotLag:
    """A duration, or else a size: 10m are minutes."""
    try:
        return SlotLag(None, parse_duration(text))
    except ValueError:
        pass
    try:
        return SlotLag(parse_size(text), None)
    except ValueError:
        raise ValueError(f"{text!r} is neither a size, such as 100G, nor a duration, such as 2d") from None


class Value(click.ParamType[Any]):
    """An option's type made of a function that raises ValueError for what makes no sense."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class PathName(click.ParamType[str]):
    """A path, whatever is there; the shell completes names of directories, or of files too."""

    name = "path"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self._kind)]


DIRECTORY = PathName("dir")
FILE = PathName("file")
SLOT_LAG = Value("size|duration", parse_lag)
SIZE = Value("size", parse_size)
RATE = Value("rate", parse_rate)
DURATION = Value("duration", parse_duration)
TIME = Value("time", parse_time)
UNTIL = Value("lsn|time|mark", parse_until)
MODE = Value("mode", parse_mode)
NAMED_PATH = Value("name=path", parse_named_path)

quiet = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors and results.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


def complete_volume(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """NAME= for each volume of the journal on the command line."""
    return [f"{name}=" for name in _volume_names(ctx) if f"{name}=".startswith(incomplete)]


def complete_mark(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The marks among the newest commits of the journal on the command line."""
    from mirrortool.journal.commits import newest_commits

    names: dict[str, None] = {}
    with contextlib.suppress(MirrortoolError):  # of a damaged journal, what can be read before the damage
        for commit in newest_commits(_journal_of(ctx), _COMMITS_COMPLETED):
            if commit.name and commit.name.startswith(incomplete):
                names[commit.name] = None
    return list(names)


def _volume_names(ctx: click.Context) -> list[str]:
    try:
        return [volume.name for volume in _journal_of(ctx).volumes]
    except MirrortoolError:
        return []


def _journal_of(ctx: click.Context) -> Journal:
    """The journal that stands before the option to be completed, which click has not assigned to its parameter yet."""
    from mirrortool.journal.directory import Journal

    path = ctx.params.get("journal") or next(iter(ctx.args), "")
    return Journal(path)


def _zone(text: str | None) -> timezone:
    if text in (None, "Z"):
        return UTC
    assert text is not None
    digits = text.replace(":", "")
    offset = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
    return timezone(-offset if text[0] == "-" else offset)
