"""JOURNAL/promoting.json: a promotion that has begun to change the journal and must be brought to its end.

Rule: while it is there, nobody reads the journal or appends to it but promote. So a promotion that was killed leaves no
second primary, and running it again completes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirrortool import files, jsonfile
from mirrortool.errors import NotAJournalError, UnfinishedPromotionError
from mirrortool.journal.lineage import Epoch
from mirrortool.journal.position import Position
from mirrortool.jsonfile import Fields
from mirrortool.wording import quoted_word


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """Where the frames that stay end: the position, and the file and the offset in it."""

    position: Position
    file_first_lsn: int
    offset: int

    def to_json(self) -> dict[str, object]:
        return {"position": self.position.to_json(), "file": self.file_first_lsn, "offset": self.offset}

    @classmethod
    def from_json(cls, fields: Fields) -> FrameEnd:
        return cls(Position.from_json(fields.object("position")), fields.integer("file"), fields.integer("offset"))


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
    files.remove(note_path(journal_path))
    files.sync_directory(journal_path)


def check_none(journal_path: str) -> None:
    """The journal is not being promoted.

    Raises:
        UnfinishedPromotionError: it is, or was when that was interrupted.
    """
    note = load_note(journal_path)
    if note:
        raise UnfinishedPromotionError(
            f"a promotion of the mirror {note.mirror_path} was interrupted, or is at work",
            where=journal_path,
            remedy=f"mirrortool promote {quoted_word(note.mirror_path)} completes it",
        )
