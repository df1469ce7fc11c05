"""From a primary to its mirror: where they are, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.site.hosts import Host
from tests.site.ledger import Client, Witness

if TYPE_CHECKING:
    from tests.site.actors import Work
    from tests.site.checks import Checks


@dataclass(eq=False)
class Flow:
    """One primary, the copy of its journal, and its mirror.

    Attributes:
        source, target: the primary's host, and the other one.
        volumes: the paths of the primary's.
        recording: the recorder's work; None before the first.
        is_replaced: the mirror was promoted: what the primary sends is refused.
    """

    source: Host
    target: Host
    journal: str
    volumes: Mapping[str, str]
    copy: str
    mirror: str
    client: Client
    witness: Witness
    recording: Work | None = None
    checks: Checks = field(init=False)
    is_replaced: bool = False
