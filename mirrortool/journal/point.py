"""A point in the history of a journal, as people name it: an LSN, a time, a mark, or the newest commit.

Not here: what it means in one journal (pointlookup.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mirrortool.errors import UsageError
from mirrortool.lsn import Lsn
from mirrortool.operation import MARK_NAME
from mirrortool.times import EXAMPLES, NotATimeError, parse_moment

NEWEST = "newest"
"""A word, and so no name for a mark; one that was given it by an earlier version is found by its LSN."""
MARK_NAMES = f"a letter, then letters, digits, '.', '_', '-', at most 64; not {NEWEST!r}"
LSN_MAX = 10**16 - 1
"""No journal comes that far; a larger number is meant as the nanoseconds of --json."""
_LSN = re.compile(r"\d{1,20}", re.ASCII)


def is_mark_name(text: str) -> bool:
    """Whether a mark can be given this name."""
    return bool(MARK_NAME.fullmatch(text)) and text != NEWEST


@dataclass(frozen=True, slots=True)
class Until:
    """A point; exactly one of LSN, time, mark and `is_newest` is given.

    Attributes:
        time_ns: the last nanosecond of the time as it was written, since 1970 UTC.
        width_ns: how many nanoseconds that stands for: a million, of one that was written to the millisecond.
        is_newest: the newest commit, whichever that is.
    """

    lsn: Lsn | None = None
    time_ns: int | None = None
    mark: str | None = None
    width_ns: int = 1
    is_newest: bool = False

    @property
    def begin_ns(self) -> int | None:
        """The first nanosecond of the time as it was written."""
        return None if self.time_ns is None else self.time_ns - self.width_ns + 1

    @classmethod
    def parse(cls, text: str) -> Until:
        """The point that a text names: mirrortool(1), "Values".

        Raises:
            UsageError: none.
        """
        if _LSN.fullmatch(text):
            return cls(lsn=_parse_lsn(text))
        if text == NEWEST:
            return cls(is_newest=True)
        if MARK_NAME.fullmatch(text):
            return cls(mark=text)
        try:
            moment = parse_moment(text)
        except NotATimeError:
            raise UsageError(f"{text!r} is neither an LSN, nor a mark, nor a time, such as {EXAMPLES}") from None
        except ValueError as error:
            raise UsageError(str(error)) from None
        return cls(time_ns=moment.time_ns + moment.width_ns - 1, width_ns=moment.width_ns)


def _parse_lsn(text: str) -> Lsn:
    lsn = int(text)
    if lsn > LSN_MAX:
        raise UsageError(f"no LSN is as large as {lsn}; nanoseconds since 1970, as --json prints them, are @{lsn}")
    return Lsn(lsn)
