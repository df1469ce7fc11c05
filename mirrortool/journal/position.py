"""A position: an LSN and the chain value there; and where in a file a frame ends.

The chain value is a hash over everything before, so two journals that share a position share their whole history up to
it. Checkpoints, slots and acknowledgements hold nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirrortool.jsonfile import INTEGER_MAX, Fields
from mirrortool.lsn import Lsn


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """After the operation `lsn`; `chain` is the chain value after the frame of that operation."""

    lsn: Lsn
    chain: int

    def __str__(self) -> str:
        return f"{self.lsn}:{self.chain:016x}"

    @property
    def next_lsn(self) -> Lsn:
        """Of the first operation after it."""
        return Lsn(self.lsn + 1)

    def to_json(self) -> dict[str, object]:
        return {"lsn": self.lsn, "chain": f"{self.chain:016x}"}

    @classmethod
    def from_json(cls, fields: Fields) -> Position:
        lsn = fields.integer("lsn", INTEGER_MAX)
        return cls(Lsn(lsn), int.from_bytes(fields.hexadecimal("chain", 8), "big"))


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """Where a frame ends: the position after it, the file (by its first LSN), and the offset in that, in bytes."""

    position: Position
    file_first_lsn: Lsn
    offset: int

    def to_json(self) -> dict[str, object]:
        return {"position": self.position.to_json(), "file": self.file_first_lsn, "offset": self.offset}

    @classmethod
    def from_json(cls, fields: Fields) -> FrameEnd:
        return cls(Position.from_json(fields.object("position")), Lsn(fields.integer("file")), fields.integer("offset"))
