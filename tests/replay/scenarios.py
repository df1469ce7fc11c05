"""Small lists of units, each of which brings task groups into a situation of its own.

`how` names ways in which units come to their tasks there; a test that runs the scenario often enough must see them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.replay.harness import PAGES_A_GROUP, Case, Pages


@dataclass(frozen=True)
class Scenario:
    case: Case
    how: frozenset[str]


def _scenario(*ops: Pages, tasks: int = 2, how: str = "", **options) -> Scenario:
    return Scenario(Case(ops, tasks=tasks, **options), frozenset(each.strip() for each in how.split(";") if each))


WHOLE = range(6)
ELSEWHERE = PAGES_A_GROUP

SCENARIOS = {
    "one unit": _scenario([0], how="direct"),
    "adjacent, not overlapping": _scenario([0, 1], [2, 3], how="direct"),
    "scattered, not overlapping": _scenario([0, 2, 4], [1, 3, 5], how="direct"),
    "delegation": _scenario([0, 1], [1], how="direct; mini-queue"),
    "identical": _scenario([0], [0], [0], how="mini-queue"),
    "nested": _scenario(WHOLE, [1, 2], [2], how="mini-queue"),
    "chain": _scenario([0, 1], [1, 2], [2, 3], how="mini-queue"),
    "chain grows the range": _scenario([0], [0, 1], [1], [2], how="mini-queue"),
    "bridge of two": _scenario([0], [2], [0, 1, 2], tasks=3, how="counter wait 2"),
    "bridge of two, gaps": _scenario([0], [2], [0, 2], [1], tasks=4, how="counter wait 2; direct"),
    "bridge of three": _scenario([0], [2], [4], WHOLE, tasks=4, how="counter wait 3"),
    "bridge, then a part": _scenario([0, 1], [2, 3], [1, 2], [0], [3], tasks=3, how="counter wait 2; mini-queue"),
    "delegation to a waiter": _scenario([0], [2], [0, 1, 2], [1], tasks=4, how="counter wait 2; mini-queue"),
    "waiter superseded": _scenario([0], [2], [0, 1, 2], [1], [4], [1, 2, 3, 4], tasks=4, how="counter wait 2"),
    "superseded, drains, posts, continues": _scenario(
        [0], [2], [0], [0, 1, 2], [5], [0], tasks=3, how="mini-queue; counter wait 2; direct"
    ),
    "superseded with two to drain": _scenario(
        [0, 1], [4], [0], [1], [1, 2, 3, 4], [1], tasks=3, how="mini-queue; counter wait 2"
    ),
    "superseded with parts to hand out": _scenario(
        WHOLE, [0], [1], [1], [2], [8], [1, 2, 8], tasks=4, how="mini-queue; counter wait 2; counter wait 3"
    ),
    "two bridges": _scenario([0], [2], [0, 2], [4], [6], [4, 6], tasks=6, how="counter wait 2"),
    "split": _scenario(WHOLE, [0], [1], [0, 1], [0], [5], tasks=3, how="mini-queue; direct, given back"),
    "split, order of those given back": _scenario(
        WHOLE, [0], [1], [1, 2], [2], [1], tasks=2, how="mini-queue; direct, given back; mini-queue, given back"
    ),
    "split, more arrives": _scenario(WHOLE, [0], [1], [5], [1], [0, 1], tasks=3, batch=2, how="direct, given back"),
    "split, then a unit at the edge": _scenario(WHOLE, [0, 1], [1, 2], [2], tasks=3, batch=3, how="mini-queue"),
    "split, behind it the same page": _scenario(WHOLE, [0], [1], [9], [1], tasks=2, how="direct, given back"),
    "whole range, then small": _scenario(WHOLE, [0], [1], [2], [3], [4], tasks=4, how="direct, given back"),
    "one task": _scenario([0], [0, 1], [1], [2], tasks=1, how="direct"),
    "credit for one": _scenario([0], [0], [1], [0, 1], tasks=3, credits=1, how="direct"),
    "two groups": _scenario(
        [0], [ELSEWHERE], [0], [ELSEWHERE], [1], groups=2, drains=frozenset({3}), how="direct; mini-queue"
    ),
    "spanning units, cut in two": _scenario(
        [0, 1],
        [ELSEWHERE, ELSEWHERE + 1],
        [1],
        [ELSEWHERE],
        [0, 1, 2],
        [ELSEWHERE, ELSEWHERE + 2],
        groups=2,
        how="mini-queue",
    ),
}


def with_tasks(case: Case, tasks: int) -> Case:
    """The same with another number of tasks."""
    return replace(case, tasks=tasks)


def lingering(case: Case, seed: int) -> Case:
    """The same, where the units in the binary digits of `seed` take their time."""
    return replace(case, lingers=frozenset(each for each in range(len(case.ops)) if seed >> each & 1))
