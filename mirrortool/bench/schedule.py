"""The schedule of an ideal scheduler: the least time of a workload with any number of workers, without overhead.

Rule: a write waits for every earlier write that shares a page with it, and for nothing else.
Rule: every write needs one step. Of those that may run, the ones with the longest chain of followers go first.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from mirrortool.bench.workload import Workload


def dependencies(workload: Workload) -> list[set[int]]:
    """The writes that each write waits for, by number: the newest of each of its pages, which waits for the older."""
    newest: list[int | None] = [None] * workload.page_count
    found = []
    for number, write in enumerate(workload.writes):
        pages = slice(write.page, write.page + write.count)
        found.append({each for each in newest[pages] if each is not None})
        newest[pages] = [number] * write.count
    return found


def makespan(waits_for: Sequence[set[int]], workers: int) -> int:
    """Steps until all are done."""
    followers = _followers(waits_for)
    chains = _chains(followers)
    left = [len(each) for each in waits_for]
    ready = [(-chains[number], number) for number, count in enumerate(left) if count == 0]
    heapq.heapify(ready)
    steps = 0
    while ready:
        steps += 1
        done = [heapq.heappop(ready)[1] for _ in range(min(workers, len(ready)))]
        for follower in (each for number in done for each in followers[number]):
            left[follower] -= 1
            if left[follower] == 0:
                heapq.heappush(ready, (-chains[follower], follower))
    return steps


def _followers(waits_for: Sequence[set[int]]) -> list[list[int]]:
    """The opposite direction: the writes that wait for each."""
    followers: list[list[int]] = [[] for _ in waits_for]
    for number, each in enumerate(waits_for):
        for earlier in each:
            followers[earlier].append(number)
    return followers


def _chains(followers: Sequence[Sequence[int]]) -> list[int]:
    """How many writes the longest chain that begins with each has; followers come later."""
    chains = [1] * len(followers)
    for number in reversed(range(len(followers))):
        chains[number] += max((chains[each] for each in followers[number]), default=0)
    return chains
