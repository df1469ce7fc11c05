"""The durable mark of a copy, received.json: up to where its bytes are durable on this host.

A COMMIT says what was durable on the primary. Of a copy it says nothing: a power cut of the host that receives may lose
any sector that was not synced here, and leave a COMMIT after it. So judgement.py judges a copy by its mark.

Rule: a mark is written after the fdatasync of what it says, by the process that appends, under the lock; it only grows.
Rule: it counts only for the files that it was written for, as the inode of `files/` tells: of a directory that was
copied while frames arrived, the mark may be newer than they. Where none counts, as in a copy of an older version, a
COMMIT is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from mirrortool import files, hostinfo, jsonfile
from mirrortool.errors import NewerJournalError, NotAJournalError
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields

_NAME = "received.json"


@dataclass(frozen=True, slots=True)
class DurableMark:
    """What is durable here.

    Attributes:
        boot_id: of the kernel under which everything after the position was, or will be, written.
        sizes: of the volumes by name, in bytes, as of the position, or more; None in a mark of an older version.
    """

    position: Position
    boot_id: str
    sizes: Mapping[str, int] | None = None

    @property
    def may_have_lost_power(self) -> bool:
        """Whether the kernel is another one now, or may be."""
        return not self.boot_id or self.boot_id != hostinfo.boot_id()


def load_mark(journal_path: str) -> DurableMark | None:
    """The mark; None if there is none, or it is not valid, or of other files.

    Raises:
        NewerJournalError: it is of a later format.
    """
    with suppress(NotAJournalError):
        fields = jsonfile.load(files.join(journal_path, _NAME), NotAJournalError)
        if fields and fields.integer("files") == _files_inode(journal_path):
            sizes = _sizes(fields.object("sizes")) if "sizes" in fields else None
            return DurableMark(Position.from_json(fields.object("position")), fields.text("boot_id"), sizes)
    return None


def _sizes(fields: Fields) -> Mapping[str, int]:
    return {name: fields.integer(name) for name in fields.names()}


def known_mark(journal_path: str) -> DurableMark | None:
    """The same for a reader, which believes COMMITs then: None also if it is of a later format."""
    with suppress(NewerJournalError):
        return load_mark(journal_path)
    return None


def save_mark(journal_path: str, position: Position, sizes: Mapping[str, int]) -> None:
    """Note that everything up to this position is durable, and that this kernel writes what follows.

    Args:
        sizes: of the volumes there, or more.
    """
    values = {
        "format": jsonfile.FORMAT,
        "position": position.to_json(),
        "files": _files_inode(journal_path),
        "boot_id": hostinfo.boot_id(),
        "sizes": dict(sizes),
    }
    jsonfile.save(files.join(journal_path, _NAME), values)


def drop_mark(journal_path: str) -> None:
    """The journal is a copy no more; durably."""
    path = files.join(journal_path, _NAME)
    if files.exists(path):
        files.remove_durably(path)


def _files_inode(journal_path: str) -> int:
    facts = files.find_facts(files.join(journal_path, "files"))
    return facts.identity.inode if facts else 0
