"""Receipts: the results of the last verifications of a mirror, as `verify --json` prints them; `receipts/TIME.json`.

Nothing is decided by them but what is told: when the mirror was proved last, and with what result. What is known to be
bad is in findings.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mirrortool import files, jsonfile
from mirrortool.errors import MirrortoolError, NotAMirrorError
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.mirror.directory import Mirror
from mirrortool.wording import counted

RECEIPTS_KEPT = 100
SUMS_WRONG = "the sums contradict each other"
_NAME = re.compile(r"([0-9]{20})\.json")
_NOWHERE = Position(NO_LSN, 0)


@dataclass(frozen=True, slots=True)
class BadPages:
    """Adjacent bad pages of a volume; `first_page` counts from the volume's start."""

    volume: str
    first_page: int
    count: int

    def to_json(self) -> dict[str, object]:
        return {"volume": self.volume, "first_page": self.first_page, "count": self.count}

    @classmethod
    def from_json(cls, fields: Fields) -> BadPages:
        return cls(fields.text("volume"), fields.integer("first_page"), fields.integer("count"))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one verification found.

    Attributes:
        name: of its file.
        time_ns: when it began.
        position: of the mirror then.
        pages_checked, bad_pages: how many.
        bad_runs: where, as far as they are listed.
        are_sums_right: whether the sums agree with each other and with the journal, as far as that was asked.
        is_cached: the kernel's cache was read, not the device.
        is_through_server: a server was read, with whatever it had in its caches.
        is_of_0_1: an older version wrote it, which knew no findings.
        is_unreadable: it is not valid; nothing but its name is known.
        changed: a volume that is another file or device by now than the one that was read; None if none is.
    """

    name: str
    time_ns: int
    position: Position = _NOWHERE
    pages_checked: int = 0
    bad_pages: int = 0
    bad_runs: Sequence[BadPages] = ()
    are_sums_right: bool = False
    is_cached: bool = False
    is_of_0_1: bool = False
    is_unreadable: bool = False
    changed: str | None = None
    is_through_server: bool = False

    @property
    def is_right(self) -> bool:
        """Whether nothing wrong was found; False also if it cannot be read."""
        return not self.bad_pages and self.are_sums_right and not self.is_unreadable


def name_of(time_ns: int) -> str:
    """The name of what a verification leaves that began at this time."""
    return f"{time_ns:020d}.json"


def time_of(name: str) -> int | None:
    """The time in a name; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def keep(mirror: Mirror, name: str, values: Mapping[str, object]) -> None:
    """Write a receipt, and remove those that are too many.

    Raises:
        HostError: the mirror cannot be written.
    """
    jsonfile.save(files.join(mirror.receipts_path, name), values)
    for each in _names(mirror)[:-RECEIPTS_KEPT]:
        files.remove(files.join(mirror.receipts_path, each))


def newest(mirror: Mirror) -> Receipt | None:
    """The newest receipt; None if the mirror was never verified, or no receipt could be kept."""
    for name in reversed(_names(mirror)):
        try:
            fields = jsonfile.load(files.join(mirror.receipts_path, name), NotAMirrorError)
            if fields is not None:
                return _of(mirror, name, fields)
        except MirrortoolError:
            return Receipt(name, time_of(name) or 0, is_unreadable=True)
    return None


def identities(mirror: Mirror) -> list[dict[str, object]]:
    """What the volumes are, for a receipt: it is about these files and devices, and no others."""
    return [
        {"name": holder.name, "inode": facts.identity.inode, "is_device": facts.identity.is_device}
        for holder in mirror.holders()
        if (facts := files.find_facts(holder.path))
    ]


def describe(receipt: Receipt, now_ns: int) -> str:
    """When the mirror was verified last, and with what result, as a phrase."""
    when = f"verified {age(now_ns - receipt.time_ns)} ago"
    if receipt.is_unreadable:
        return f"{when}: the receipt {receipt.name} cannot be read"
    what = counted(receipt.bad_pages, "bad page") if receipt.bad_pages else "no bad page"
    what += "" if receipt.are_sums_right else f", but {SUMS_WRONG}"
    how = " in the kernel's cache" if receipt.is_cached else ""
    how = " through the server's cache" if receipt.is_through_server else how
    other = f", in another file than volume {receipt.changed} is now" if receipt.changed else ""
    return f"{when} at LSN {receipt.position.lsn}{how}: {what}{other}"


def age(nanoseconds: int) -> str:
    """How long something took, or is past, in the largest unit that fits; nothing is in the future."""
    seconds = max(0, nanoseconds) // 10**9
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds // size} {unit}"
    return counted(seconds // 86400, "day")


def _names(mirror: Mirror) -> list[str]:
    return [name for name in files.list_directory(mirror.receipts_path) if time_of(name) is not None]


def _of(mirror: Mirror, name: str, fields: Fields) -> Receipt:
    return Receipt(
        name,
        fields.integer("time_ns"),
        Position(Lsn(fields.integer("applied_lsn")), int.from_bytes(fields.hexadecimal("chain", 8), "big")),
        fields.integer("pages_checked"),
        fields.integer("bad_page_count"),
        tuple(map(BadPages.from_json, fields.objects("bad_pages"))),
        all(fields.flag(flag) for flag in ("table_is_right", "journal_agrees") if flag in fields)
        and not ("wrong_sums" in fields and fields.texts("wrong_sums")),
        "cached" in fields and fields.flag("cached"),
        "cached" not in fields,
        False,
        _changed(mirror, fields.objects("volumes") if "volumes" in fields else ()),
        "through_server_cache" in fields and fields.flag("through_server_cache"),
    )


def _changed(mirror: Mirror, volumes: Sequence[Fields]) -> str | None:
    """A volume that is not the file or device that was read; a file system's own number tells nothing after a boot."""
    read = {each.text("name"): (each.integer("inode"), each.flag("is_device")) for each in volumes}
    for holder in mirror.holders():
        facts = files.find_facts(holder.path)
        if holder.name in read and (not facts or (facts.identity.inode, facts.identity.is_device) != read[holder.name]):
            return holder.name
    return None
