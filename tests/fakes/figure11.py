"""FIG. 11 as a graph: which numeral may follow which, for one task. It is that of the text, not of the code."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from tests.docs.manual import page

_CHAINS = (
    (1102, 1104, 1106, 1108, 1102),
    (1102, 1110, 1112, 1114),
    (1114, 1116, 1118, 1120, 1122, 1102),
    (1114, 1124, 1126, 1128, 1130, 1132),
    (1126, 1132, 1134, 1136, 1138, 1140, 1142),
    (1142, 1144, 1146, 1148, 1150, 1152, 1154, 1138),
    (1144, 1160, 1162, 1164, 1166, 1168, 1170, 1172, 1174, 1184),
    (1142, 1176, 1178, 1180, 1182, 1184, 1186, 1102),
)
NUMERALS = frozenset(each for chain in _CHAINS for each in chain)

# A mini queue is emptied at once, so one unit follows another; a task parks at 1138 and is woken there; and one that a
# superseded task shares its units with is woken with a mini queue that is not empty.
_DEPARTURES = {(1120, 1120), (1138, 1138), (1138, 1112)}


def numerals_in_code() -> frozenset[int]:
    """Those of which the manual says where they are in the code."""
    lines = page("mirrortool-method", 7).sub_part("FIG. 11: the method of a task")
    rows = [line for line in lines if re.match(r"11\d\d ", line)]
    return frozenset(int(row[:4]) for row in rows if not row.endswith(" none"))


def wrong_steps(numerals: Sequence[int], left_out: Collection[int]) -> list[tuple[int, int]]:
    """Of what one task passed from its start: pairs that the figure does not have, with some numerals left out."""
    pairs = set(pairwise((1186, *numerals))) - _DEPARTURES
    return [(before, after) for before, after in sorted(pairs) if after not in set(_followers(before, left_out))]


def _followers(numeral: int, left_out: Collection[int]) -> Iterator[int]:
    """What may be passed next; through those that are left out, which never lead back to themselves only."""
    reached, new = set(), {numeral}
    while new:
        after = {b for chain in _CHAINS for a, b in pairwise(chain) if a in new}
        yield from after - set(left_out)
        reached |= new
        new = (after & set(left_out)) - reached
