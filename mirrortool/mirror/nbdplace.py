"""What mirror.json keeps of a volume that is an export of an NBD server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mirrortool.errors import UsageError
from mirrortool.jsonfile import Fields
from mirrortool.nbd.uri import NbdUri, is_nbd_uri, parse_uri


@dataclass(frozen=True, slots=True)
class NbdPlace:
    """An export.

    Attributes:
        uri: where it is.
        export: its name, as the server told it when the mirror was made.
        size: bytes that it had then.
    """

    uri: NbdUri
    export: str
    size: int
    kind: ClassVar[str] = "nbd"
    format: ClassVar[int] = 2

    def file_path(self, directory: str) -> str | None:
        return None

    def describe(self, directory: str) -> str:
        return self.uri.text

    def is_named_by(self, target: str, directory: str) -> bool:
        try:
            return is_nbd_uri(target) and parse_uri(target).place == self.uri.place
        except UsageError:
            return False

    def why_not_promoted(self) -> tuple[str, str] | None:
        return (
            f"is an export of an NBD server, {self.uri}, and a primary's volumes are files and devices",
            "mirrortool export copies it to a file; or replay the journal into a mirror on a device, and promote that",
        )

    def why_not_guarded(self) -> str | None:
        return "nothing keeps a second writer away"

    def read_through(self) -> str | None:
        return "the server's cache"

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "uri": self.uri.text, "export": self.export, "size": self.size}

    @classmethod
    def from_json(cls, fields: Fields) -> NbdPlace:
        try:
            uri = parse_uri(fields.text("uri"))
        except UsageError:
            raise fields.wrong("uri") from None
        return cls(uri, fields.text("export"), fields.integer("size"))
