"""What our own servers say of an export: which journal's volume it shows.

So that a replay does not write into its own primary, or into a picture of its past, over whatever name it was reached.
"""

from __future__ import annotations

import re

_OWN = re.compile(r"mirrortool volume (?P<volume>\S+) of journal (?P<journal>[0-9a-f]{32})(?: .*)?", re.DOTALL)


def describe_export(journal_uuid: bytes, volume: str, more: str = "") -> str:
    """The description of an export of a journal's volume.

    Args:
        more: what else is to be said of it, such as the point that it shows.
    """
    text = f"mirrortool volume {volume} of journal {journal_uuid.hex()}"
    return f"{text} {more}" if more else text


def journal_of(description: str) -> bytes | None:
    """The uuid of the journal whose volume an export shows; None if it is not one of ours."""
    match = _OWN.fullmatch(description)
    return bytes.fromhex(match["journal"]) if match else None
