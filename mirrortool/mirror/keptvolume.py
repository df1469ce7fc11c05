"""What mirror.json keeps of each volume: its name, where it begins, and the place where the mirror has its bytes.

    LocalPlace       an image in the mirror's directory, or a file or device that the owner named by --volume
    NbdPlace         an export of an NBD server (nbdplace.py)
    SpannedPlace     the backings of the mirror (keptbacking.py)
    ElsewherePlace   nowhere: the mirror keeps the sums of this volume, and another one its bytes (--only)

A kind of storage is a class of `Place`, with its row in _KINDS here, in openvolumes.py and in newvolumes.py. The format
of mirror.json is the highest that one of its places needs, so that a mirrortool that does not know a kind refuses the
mirror.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from mirrortool import files
from mirrortool.files import Identity
from mirrortool.jsonfile import Fields
from mirrortool.mirror.keptbacking import SpannedPlace
from mirrortool.mirror.nbdplace import NbdPlace


class Place(Protocol):
    """Where a mirror keeps the bytes of a volume; immutable."""

    @property
    def kind(self) -> str:
        """A word for people and programs: "image", "path" …"""

    @property
    def format(self) -> int:
        """The first format of mirror.json that has this kind."""

    def file_path(self, directory: str) -> str | None:
        """The file or device that holds this volume alone; None if there is no such one.

        Args:
            directory: the mirror's, as it was named.
        """

    def describe(self, directory: str) -> str:
        """Where it is, as a path or an address, for people."""

    def is_named_by(self, target: str, directory: str) -> bool:
        """Whether a target, as --volume gives it, means this place."""

    def why_not_promoted(self) -> tuple[str, str] | None:
        """Why a primary cannot have its volume there, and the remedy; None if it can."""

    def why_not_guarded(self) -> str | None:
        """That, and why, nothing is held against a second writer; None if that is."""

    def read_through(self) -> str | None:
        """What answers a read in place of the device, and cannot be told to forget; None if nothing does."""

    def to_json(self) -> dict[str, object]:
        """Its fields, beside those that each volume has."""


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A file or a device.

    Attributes:
        path: absolute, or relative to the mirror's directory.
        identity: of what the owner named by --volume; None for an image of our own.
    """

    path: str
    identity: Identity | None
    format: ClassVar[int] = 1

    @property
    def kind(self) -> str:
        return "path" if self.identity else "image"

    def file_path(self, directory: str) -> str:
        return files.join(directory, self.path)

    def describe(self, directory: str) -> str:
        return self.file_path(directory)

    def is_named_by(self, target: str, directory: str) -> bool:
        return files.absolute(target) == files.absolute(self.file_path(directory))

    def why_not_promoted(self) -> tuple[str, str] | None:
        return None

    def why_not_guarded(self) -> str | None:
        return None

    def read_through(self) -> str | None:
        return None

    def to_json(self) -> dict[str, object]:
        values: dict[str, object] = {"path": self.path}
        if self.identity:
            values |= {
                "device": self.identity.device,
                "inode": self.identity.inode,
                "is_device": self.identity.is_device,
            }
        return values

    @classmethod
    def from_json(cls, fields: Fields) -> LocalPlace:
        identity = None
        if "inode" in fields:
            identity = Identity(fields.integer("device"), fields.integer("inode"), fields.flag("is_device"))
        return cls(fields.text("path"), identity)


@dataclass(frozen=True, slots=True)
class ElsewherePlace:
    """No place: the mirror holds other volumes only."""

    format: ClassVar[int] = 2
    kind: ClassVar[str] = "elsewhere"

    def file_path(self, directory: str) -> None:
        return None

    def describe(self, directory: str) -> str:
        return "not held here"

    def is_named_by(self, target: str, directory: str) -> bool:
        return False

    def why_not_promoted(self) -> tuple[str, str] | None:
        return "is not held by this mirror", "promote one that holds all"

    def why_not_guarded(self) -> str | None:
        return None  # nothing is written

    def read_through(self) -> str | None:
        return None

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind}

    @classmethod
    def from_json(cls, _fields: Fields) -> ElsewherePlace:
        return cls()


_KINDS: dict[str, Callable[[Fields], Place]] = {
    NbdPlace.kind: NbdPlace.from_json,
    SpannedPlace.kind: SpannedPlace.from_json,
    ElsewherePlace.kind: ElsewherePlace.from_json,
}
"""Kinds that a volume names in "kind", and how they are read; one that names none is a LocalPlace."""


@dataclass(frozen=True, slots=True)
class KeptVolume:
    """A volume of a mirror.

    Attributes:
        start: address of its first byte.
    """

    name: str
    start: int
    place: Place

    @property
    def is_held(self) -> bool:
        """Whether the mirror has its bytes, and not only their sums."""
        return not isinstance(self.place, ElsewherePlace)

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "base": self.start, **self.place.to_json()}

    @classmethod
    def from_json(cls, fields: Fields) -> KeptVolume:
        """
        Raises:
            MirrortoolError: a field is missing or not valid, or the kind is unknown.
        """
        if "kind" not in fields:
            place: Place = LocalPlace.from_json(fields)
        elif read := _KINDS.get(fields.text("kind")):
            place = read(fields)
        else:
            raise fields.wrong("kind")
        return cls(fields.text("name"), fields.integer("base"), place)


@dataclass(frozen=True, slots=True)
class Holder:
    """A file or device that holds bytes of a mirror's volumes: what can be locked, labelled and looked at.

    Attributes:
        name: of the holder, once in a mirror: of the volume that it holds alone.
        what: the same, for people: "volume NAME".
        path: from the root, or from where the mirror was named.
    """

    name: str
    what: str
    path: str


def holders_of(kept: Iterable[KeptVolume], directory: str) -> list[Holder]:
    """The files and devices that hold these volumes; none for what is on another host."""
    places = ((volume.name, volume.place.file_path(directory)) for volume in kept)
    return [Holder(name, f"volume {name}", path) for name, path in places if path is not None]


_NEEDS = {2: "0.2.0", 3: "0.2.0"}
"""The first mirrortool that reads each format after 1."""


def format_fields(kept: Iterable[KeptVolume]) -> dict[str, object]:
    """The format of mirror.json that these volumes need, and the mirrortool that reads it."""
    number = max(volume.place.format for volume in kept)
    return {"format": number, "needs": _NEEDS[number]} if number in _NEEDS else {"format": number}
