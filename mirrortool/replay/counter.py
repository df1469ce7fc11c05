"""The counter of FIG. 10 (986) and steps 1162-1174: how many tasks a waiting task still waits for."""

from __future__ import annotations

from mirrortool.replay.threads import Gate
from mirrortool.replay.tracing import Post


class Counter:
    """A lock of a kind: its owner may run when every task that it points at has posted.

    Owner: the lock of the task group; only waiting on the gate happens outside of it.
    Bound: the number of tasks of the group, less one.
    Order: a post is for ever; the owner passes after the last, even if that comes before it waits (1174).
    Shutdown: none of its own. Every task that is pointed at posts when it leaves the table, so every wait ends.
    """

    __slots__ = ("gate", "left", "owner", "posts")

    def __init__(self, owner: int, gate: Gate) -> None:
        """The counter of the task with number `owner`, which waits at `gate`."""
        self.owner = owner
        self.gate = gate
        self.left = 0
        self.posts: list[Post] = []  # since it was established, for traces; bounded as `left` is

    def establish(self, count: int) -> None:
        """Wait for this number of tasks (1168)."""
        assert self.left == 0, "a task waits for one unit at a time"
        self.left = count
        self.posts = []

    def join(self) -> None:
        """Wait for one task more: it does a part of what a task that is waited for has to do."""
        assert self.left > 0, "only a task that has not posted yet hands out its work"
        self.left += 1

    def post(self, task: int, at_ns: int) -> bool:
        """One task fewer to wait for (1128). Whether that was the last, and the gate must be opened now."""
        assert self.left > 0, "a task posts once for each pointer"
        self.left -= 1
        self.posts.append(Post(task, at_ns))
        return self.left == 0
