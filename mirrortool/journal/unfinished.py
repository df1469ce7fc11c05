"""Work on a journal that a crash interrupted and that must be finished first: a promotion, or a copy's switch to a
newer base.

promoting.json  A promotion has begun to change the journal. Only promote reads the journal or appends to it until the
                promotion is complete: so one that was killed leaves no second primary; running it again completes it.
bases/arriving  A base arrives in a copy. From when it has its name until the journal file with its commit has, the
                journal has neither what was before it nor what follows; see copies/basetransfer.py, which finishes it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mirrortool import files, jsonfile
from mirrortool.errors import NotAJournalError, UnfinishedArrivalError, UnfinishedPromotionError
from mirrortool.journal import format as layout
from mirrortool.journal.lineage import Epoch
from mirrortool.journal.position import FrameEnd
from mirrortool.jsonfile import Fields
from mirrortool.wording import quoted_word

PART = ".part"


class Unfinished(enum.Enum):
    """What may have been interrupted, by who finishes it."""

    ARRIVAL = enum.auto()
    """A base that takes the place of older files."""
    PROMOTION = enum.auto()
    """A promotion, and a base before it: promote finishes that, too."""


@dataclass(frozen=True, slots=True)
class PromotionNote:
    """What has to be done.

    Attributes:
        mirror_path, mirror_uuid: of the mirror that becomes the primary.
        end: of the commit that is promoted.
        epoch: the one that begins there.
        time_ns: when it was begun.
    """

    mirror_path: str
    mirror_uuid: bytes
    end: FrameEnd
    epoch: Epoch
    time_ns: int

    def to_json(self) -> dict[str, object]:
        return {
            "mirror_path": self.mirror_path,
            "mirror_uuid": self.mirror_uuid.hex(),
            "end": self.end.to_json(),
            "begins": self.epoch.to_json(),
            "time_ns": self.time_ns,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> PromotionNote:
        end, epoch = FrameEnd.from_json(fields.object("end")), Epoch.from_json(fields.object("begins"))
        if end.position != epoch.start or not end.file_first_lsn <= end.position.lsn:
            raise fields.wrong("end")
        path, uuid = fields.text("mirror_path"), fields.hexadecimal("mirror_uuid", 16)
        return cls(path, uuid, end, epoch, fields.integer("time_ns"))


def check_finished(journal_path: str, finishing: Unfinished | None = None) -> None:
    """Nothing was interrupted that bars the journal to whoever does not finish it: the one gate of all commands.

    Args:
        finishing: what the caller finishes, so that it bars nothing.
    Raises:
        UnfinishedPromotionError: the journal is being promoted, or was when that was interrupted.
        UnfinishedArrivalError: a base is taking the place of older files, or was when that was interrupted.
        NotAJournalError: the promotion's note is not valid.
    """
    if finishing is not Unfinished.PROMOTION:
        check_no_promotion(journal_path)
    if finishing is None:
        _check_no_switch(journal_path)


def note_path(journal_path: str) -> str:
    """Where the note of a journal is."""
    return files.join(journal_path, "promoting.json")


def load_note(journal_path: str) -> PromotionNote | None:
    """The note; None if no promotion is under way."""
    fields = jsonfile.load(note_path(journal_path), NotAJournalError)
    return None if fields is None else PromotionNote.from_json(fields)


def save_note(journal_path: str, note: PromotionNote) -> None:
    """From here on only promote can use the journal."""
    jsonfile.save(note_path(journal_path), note.to_json())


def remove_note(journal_path: str) -> None:
    """The promotion is complete, durably."""
    files.remove_durably(note_path(journal_path))


def check_no_promotion(journal_path: str) -> None:
    """The journal is not being promoted.

    Raises:
        UnfinishedPromotionError: it is, or was when that was interrupted.
    """
    note = load_note(journal_path)
    if note:
        raise UnfinishedPromotionError(
            f"a promotion of the mirror {note.mirror_path} was interrupted, or is running",
            where=journal_path,
            remedy=f"mirrortool promote {quoted_word(note.mirror_path)} completes it",
        )


def arriving_path(journal_path: str) -> str:
    """Where what arrives is meanwhile."""
    return files.join(journal_path, "bases", "arriving")


def due_file(journal_path: str) -> int | None:
    """The first LSN of the journal file that is due in files/; None if no base is taking the place of others."""
    names = files.list_directory(arriving_path(journal_path))
    first_lsns = [lsn for lsn in map(layout.parse_file_name, names) if lsn is not None]
    return first_lsns[0] if first_lsns and not any(name.endswith(PART) for name in names) else None


def _check_no_switch(journal_path: str) -> None:
    """No base is taking the place of older files.

    Raises:
        UnfinishedArrivalError: one is, or was when that was interrupted.
    """
    if due_file(journal_path) is not None:
        raise UnfinishedArrivalError(
            "a base is taking the place of older files, or was when its receiver ended",
            where=journal_path,
            remedy="the next mirrortool ship to this copy finishes that, and so does replay or promote",
        )
