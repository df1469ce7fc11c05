"""What a site must hold: a dictionary of each volume's bytes, after each frame of the primary's journal.

It knows nothing of mirrortool but LSNs. A state is what every volume held. What lies between two frames that are known
has the state of the earlier one, because a rule makes one frame with changes at a time.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

State = dict[str, bytes]
PERHAPS_NAMED = "?"
"""A commit that a crash left; it may be a mark that was not acknowledged."""


class Model:
    """The primary.

    Attributes:
        now: what its volumes read as.
        commits: LSNs of those that were reported; a mark with its name.
        first_lsn: of the first whole state; what the initial scan found before is none.
        kept_lsn: up to here nothing may be lost, whatever fails.
        coming: what a change that was begun makes of the volumes; it counts once a frame has it.
    """

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.now: State = dict(contents)
        self._lsns = [0]
        self._states: list[State] = [{name: bytes(len(content)) for name, content in contents.items()}]
        self.commits: dict[int, str | None] = {}
        self.first_lsn = self.kept_lsn = 0
        self.coming: State | None = None
        self._needed_lsn = 0

    @property
    def newest(self) -> int:
        """The LSN of the newest commit; 0 if there is none."""
        return max(self.commits, default=0)

    @property
    def head_lsn(self) -> int:
        return self._lsns[-1]

    def begin(self, name: str, offset: int, data: bytes) -> None:
        """A change is asked for."""
        content = bytearray(self.now[name])
        content[offset : offset + len(data)] = data
        self.coming = {**self.now, name: bytes(content)}

    def changed(self, lsn: int, *, beats: bool = False) -> None:
        """The change that was begun, if any, is acknowledged, and this is the newest LSN.

        Args:
            beats: it is a heartbeat, which a power cut may lose.
        """
        if self.coming is not None:
            self.now, self.coming = self.coming, None
        if lsn > self._lsns[-1]:
            self._lsns.append(lsn)
            self._states.append(self.now)
            self._needed_lsn = self._needed_lsn if beats else lsn

    def committed(self, lsn: int) -> None:
        if lsn:
            self.commits.setdefault(lsn, None)

    def marked(self, lsn: int, name: str) -> None:
        self.commits[lsn] = name

    def flushed(self) -> None:
        """All that was acknowledged by now may not be lost."""
        self.kept(self._needed_lsn)

    def kept(self, lsn: int) -> None:
        self.kept_lsn = max(self.kept_lsn, lsn)

    def state_at(self, lsn: int) -> State:
        """What the volumes held after this LSN."""
        return self._states[bisect.bisect_right(self._lsns, lsn) - 1]

    def commit_at_or_before(self, lsn: int) -> int:
        return max((each for each in self.commits if each <= lsn), default=0)

    def recovered(self, head_lsn: int, commit_lsn: int) -> None:
        """A crash left the journal up to here, and this commit as the newest."""
        assert head_lsn >= self.kept_lsn, f"the journal ends at LSN {head_lsn}, and LSN {self.kept_lsn} was flushed"
        coming, self.coming = self.coming, None
        if head_lsn > self.head_lsn:  # what was not acknowledged may be there, and whole
            self.now = coming or self.now
            self._lsns.append(head_lsn)
            self._states.append(self.now)
            self._needed_lsn = head_lsn
        self.cut(head_lsn)
        if commit_lsn:
            self.commits.setdefault(commit_lsn, PERHAPS_NAMED)

    def cut(self, lsn: int) -> None:
        """Nothing after this LSN is in the history."""
        last = bisect.bisect_right(self._lsns, lsn)
        self.now = self._states[last - 1]
        self._lsns, self._states = self._lsns[:last], self._states[:last]
        self.commits = {each: name for each, name in self.commits.items() if each <= lsn}
        self.kept_lsn, self._needed_lsn = min(self.kept_lsn, lsn), min(self._needed_lsn, lsn)
