"""What mirror.json keeps of the backings of a mirror, and of a volume that lies on them.

Format 3 has them: `backings`, a list of objects, `extent`, the bytes of an extent, and volumes of the kind "spanned".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mirrortool.jsonfile import Fields
from mirrortool.store.backingformat import BACKINGS_MAX, is_extent_size


@dataclass(frozen=True, slots=True)
class SpannedPlace:
    """The backings of the mirror, all of them."""

    kind: ClassVar[str] = "spanned"
    format: ClassVar[int] = 3

    def file_path(self, directory: str) -> str | None:
        return None

    def describe(self, directory: str) -> str:
        return "on the backings"

    def is_named_by(self, target: str, directory: str) -> bool:
        return False

    def why_not_promoted(self) -> tuple[str, str] | None:
        return (
            "lies on the mirror's backings, in extents, and a primary's volumes are files and devices",
            "mirrortool export copies it to a file; or replay the journal into a mirror on a device, and promote that",
        )

    def why_not_guarded(self) -> str | None:
        return None

    def read_through(self) -> str | None:
        return None

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind}

    @classmethod
    def from_json(cls, _fields: Fields) -> SpannedPlace:
        return cls()


@dataclass(frozen=True, slots=True)
class KeptBacking:
    """A backing of a mirror.

    Attributes:
        uuid: 16 bytes; what finds it, wherever it is.
        path: from the root; where it was last.
        is_draining: it gets no extents any more.
    """

    uuid: bytes
    path: str
    is_draining: bool = False

    @property
    def short(self) -> str:
        """Enough of the uuid for people."""
        return self.uuid.hex()[:8]

    @property
    def name(self) -> str:
        """As a holder of the mirror's bytes; no volume can have such a name."""
        return f"@{self.short}"

    def to_json(self) -> dict[str, object]:
        return {"uuid": self.uuid.hex(), "path": self.path, "is_draining": self.is_draining}

    @classmethod
    def from_json(cls, fields: Fields) -> KeptBacking:
        return cls(fields.hexadecimal("uuid", 16), fields.text("path"), fields.flag("is_draining"))


@dataclass(frozen=True, slots=True)
class KeptBackings:
    """All of them.

    Attributes:
        extent_bytes: of an extent.
    """

    extent_bytes: int
    each: tuple[KeptBacking, ...]

    def to_json(self) -> dict[str, object]:
        return {"extent": self.extent_bytes, "backings": [backing.to_json() for backing in self.each]}

    @classmethod
    def from_json(cls, fields: Fields) -> KeptBackings:
        """
        Raises:
            MirrortoolError: a field is missing or not valid, or two are one.
        """
        extent_bytes = fields.integer("extent")
        each = tuple(map(KeptBacking.from_json, fields.objects("backings")))
        if not is_extent_size(extent_bytes):
            raise fields.wrong("extent")
        if not 0 < len(each) <= BACKINGS_MAX or len({backing.name for backing in each}) != len(each):
            raise fields.wrong("backings")
        return cls(extent_bytes, each)


@dataclass(frozen=True, slots=True)
class BackTarget:
    """What --back names.

    Attributes:
        size: bytes that a new one is to use; None for all that is there.
    """

    path: str
    size: int | None = None
