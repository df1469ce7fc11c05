"""Values as people write them: sizes, durations, points in a journal, volumes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from mirrortool.accounts import group_number
from mirrortool.errors import MirrortoolError, UsageError
from mirrortool.journal.point import Until
from mirrortool.times import format_time, parse_duration

if TYPE_CHECKING:
    from mirrortool.journal.directory import Journal
    from mirrortool.mirror.keptbacking import BackTarget

_SIZE = re.compile(r"(\d{1,20})(?:([KMGTPE])(?:iB|B)?|B)?", re.IGNORECASE | re.ASCII)
_ADDRESS = re.compile(r"0x([0-9a-f]+)|([0-9a-f]{13,})h", re.IGNORECASE | re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_COMMITS_SEARCHED = 2000


@dataclass(frozen=True, slots=True)
class SlotLimit:
    """How much of the journal a slot may hold back: bytes of journal files, or the age of a frame in seconds."""

    size: int | None
    seconds: float | None


def parse_size(text: str) -> int:
    """Bytes; K, M, G, T, P, E are powers of 1024, with or without iB."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size, such as 512, 64M or 10GiB")
    return int(match[1]) << (10 * " KMGTPE".index((match[2] or " ").upper()))


def parse_address(text: str) -> int:
    """An address, hexadecimal: 0x3100000000000000, or as the patent writes it, 3100000000000000h.

    With fewer than 13 digits before an h it is none, so that a snapshot may be called vm@24h: a volume's address is a
    multiple of 2^48, which has 13.
    """
    match = _ADDRESS.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not an address, such as 0x3100000000000000 or 3100000000000000h")
    return int(match[1] or match[2], 16)


def parse_rate(text: str) -> int:
    """Bytes a second: a size with its letter, with or without /s; other programs take a bare number for KiB or more."""
    size = text.strip().removesuffix("/s")
    rate = parse_size(size)
    if size.isdecimal():
        raise ValueError(f"{text!r} is a bare number; give bytes a second, such as {size}M or {size}K")
    if not rate:
        raise ValueError(f"{text!r} is not a rate: nothing would ever be sent or read")
    return rate


def parse_mode(text: str) -> int:
    """Permission bits, in octal."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"{text!r} is not a mode, such as 0660")
    return mode


def parse_named_path(text: str) -> tuple[str, str]:
    """NAME=PATH."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ValueError(f"{text!r} is not NAME=PATH")
    return name, path


def parse_back(text: str) -> BackTarget:
    """PATH, or PATH:SIZE; what follows the last colon and is not a size belongs to the path."""
    from mirrortool.mirror.keptbacking import BackTarget

    path, colon, size = text.rpartition(":")
    if colon and path:
        try:
            return BackTarget(path, parse_size(size))
        except ValueError:
            pass
    if not text:
        raise ValueError("'' is not a path")
    return BackTarget(text)


def parse_slot_limit(text: str) -> SlotLimit:
    """A duration, or else a size: 10m is 10 minutes."""
    try:
        return SlotLimit(None, parse_duration(text))
    except ValueError:
        pass
    try:
        return SlotLimit(parse_size(text), None)
    except ValueError:
        raise ValueError(f"{text!r} is neither a size, such as 100G, nor a duration, such as 2d") from None


class Value(click.ParamType[Any]):
    """An option's type made of a function that raises ValueError or UsageError for text that is not valid."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (ValueError, UsageError) as error:
            self.fail(str(error), param, ctx)


class PathName(click.ParamType[str]):
    """A path, whether anything is there or not; the shell completes names of directories, or of files too."""

    name = "path"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and _URL.match(value):
            self.fail(
                f"{value!r} is a URL, where a path is needed; write a path that looks like one with ./ before it",
                param,
                ctx,
            )
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self._kind)]


DIRECTORY = PathName("dir")
FILE = PathName("file")
SLOT_LIMIT = Value("size|duration", parse_slot_limit)
SIZE = Value("size", parse_size)
RATE = Value("rate", parse_rate)
DURATION = Value("duration", parse_duration)
POINT = Value("point", Until.parse)
POINT_METAVAR = "LSN|TIME|MARK"
MODE = Value("mode", parse_mode)
NAMED_PATH = Value("name=path", parse_named_path)
BACK = Value("path[:size]", parse_back)

quiet = click.option("-q", "--quiet", is_flag=True, help="Print only errors and results.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Also print counts of the engine inside.")
group = click.option(
    "--group", type=Value("group", group_number), metavar="GROUP",
    help="Let the members of this group read what is made.  [default: only its owner]",
)  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


def complete_volume(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """NAME= for each volume of the journal on the command line."""
    return [f"{name}=" for name in _volume_names(ctx) if f"{name}=".startswith(incomplete)]


def complete_volume_name(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The names of the volumes of the journal on the command line."""
    return [name for name in _volume_names(ctx) if name.startswith(incomplete)]


def complete_point(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`newest`, and the marks among the newest commits of the journal on the command line; after a digit, their LSNs.

    After an @ their times, as --json prints them; shells that show more show when each was.
    """
    from mirrortool.journal.commits import newest_commits

    found: dict[str, str] = {}
    with contextlib.suppress(MirrortoolError):  # of a damaged journal, what can be read before the damage
        for commit in newest_commits(_journal_of(ctx), _COMMITS_SEARCHED, heartbeats=False):
            when = format_time(commit.time_ns)
            if incomplete.isdecimal():
                found[str(commit.lsn)] = when
            elif incomplete.startswith("@"):
                found[f"@{commit.time_ns}"] = when
            elif commit.name:
                found[commit.name] = when
        if not incomplete.startswith("@") and found:
            found.setdefault("newest", "the newest commit")
    return [CompletionItem(value, help=when) for value, when in found.items() if value.startswith(incomplete)]


def _volume_names(ctx: click.Context) -> list[str]:
    try:
        return [volume.name for volume in _journal_of(ctx).volumes]
    except MirrortoolError:
        return []


def _journal_of(ctx: click.Context) -> Journal:
    """The journal that stands before the option to be completed, which click has not assigned to its parameter yet.

    Or that of the mirror that stands there.
    """
    from mirrortool import files
    from mirrortool.journal.directory import Journal
    from mirrortool.mirror.directory import Mirror

    named = (ctx.params.get(each) for each in ("journal", "mirror", "path"))
    path = next(filter(None, named), None) or next(iter(ctx.args), "")
    if files.exists(files.join(path, "mirror.json")):
        path = Mirror(path).journal_path
    return Journal(path)
