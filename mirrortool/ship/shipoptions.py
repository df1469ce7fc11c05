"""Options of a shipment, and the ways that a connection may end beside the errors of errors.py."""

from __future__ import annotations

from dataclasses import dataclass

from mirrortool.errors import MirrortoolError, UsageError
from mirrortool.journal.position import Position
from mirrortool.ratelimit import Pace
from mirrortool.ship.messagestream import SILENCE_SECONDS


@dataclass(frozen=True, slots=True)
class ShipOptions:
    """How to ship.

    Attributes:
        follow: continue as the journal grows.
        bytes_per_second: at most; None for as fast as it goes.
        silence_seconds: a link that is silent for this time is broken.
        slot: name of the slot; None for one made of the destination.
        has_slot: whether to register one.
        replace_slot: a copy that has the slot is gone for good; the slot becomes that of the one at the destination.
        start: into a pipe, begin after this position, not at the start of the journal's oldest file.
    """

    follow: bool = False
    bytes_per_second: int | None = None
    silence_seconds: float = SILENCE_SECONDS
    slot: str | None = None
    has_slot: bool = True
    replace_slot: bool = False
    start: Position | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: a value is not valid.
        """
        Pace(self.bytes_per_second)
        if self.silence_seconds <= 0:
            raise UsageError(f"a link cannot be broken after {self.silence_seconds} s of silence")


class RefusedError(MirrortoolError):
    """The receiver refused to continue, with a reason and an exit code."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code


class ConnectAgain(Exception):
    """The journal has another epoch than the receiver was told, or was pruned where it was to be sent."""
