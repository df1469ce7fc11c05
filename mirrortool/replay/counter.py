"""The counter of FIG. 10 (986) and steps 1162-1174: how many tasks a waiting task still waits for."""

from __future__ import annotations

from mirrortool.replay.threads import Gate


class Counter:
    """A lock of a kind: its owner may run when every task that it points at has posted.

    Owner: the lock of the task group; only waiting on the gate happens outside of it.
    Bound: the number of tasks of the group, less one.
    Order: a post is for ever; the owner passes after the last, even if that comes before it waits (1174).
    Shutdown: none of its own. Every task that is pointed at posts when it leaves the table, so every wait ends.
    """

    __slots__ = ("gate", "left", "owner")

    def __init__(self, owner: int, gate: Gate) -> None:
        """The counter of the task with number `owner`, which waits at `gate`."""
        self.owner = owner
        self.gate = gate
        self.left = 0

    def establish(self, count: int) -> None:
        """Wait for this number of tasks (1168)."""
        assert self.left == 0, "a task waits for one unit at a time"
        self.left = count

    def post(self) -> bool:
        """One task fewer to wait for (1128). Whether that was the last, and the gate must be opened now."""
        assert self.left > 0, "a task posts once for each pointer"
        self.left -= 1
        return self.left == 0
