"""Methods that are wrong, each in one respect, for the model checker to find out.

See mutants.py for wrong task groups.
"""

from __future__ import annotations

from tests.replay.model import NOBODY, SHOWN, HandsOut, Later, Task, World

# Of the figure, and of what departs from it.


class SendsAfterUnlocking(HandsOut):
    """1150 after 1152. Needs fine steps: in coarse ones nothing can come between."""

    def delegate(self, unit: int, hit: Task, gates: list[Later]) -> None:
        hit.shown |= self.pages[unit]
        gates.append((hit, unit))


class DoesNotGrow(HandsOut):
    """1148 left out."""

    def delegate(self, unit: int, hit: Task, gates: list[Later]) -> None:
        hit.mini += (unit,)


class PostsUndrained(HandsOut):
    """1128 before the mini queue is empty."""

    def step(self, w: World, me: Task, gates: list[Later]) -> None:
        if me.waiter != NOBODY:
            self.post(w, me, gates)
        super().step(w, me, gates)

    def pop_superseded(self, w: World, me: Task, gates: list[Later]) -> None:
        """Keep everything, as there is no counter to hand out for."""


class GivesBackLast(HandsOut):
    """To the end of the main queue."""

    def give_back(self, w: World, me: Task) -> None:
        me.work, back = self.split(me.work)
        me.shown = SHOWN | self.pages_of(me.work)
        w.main += back


class ShowsTooLittle(HandsOut):
    """Only the pages of the first unit that is kept."""

    def give_back(self, w: World, me: Task) -> None:
        super().give_back(w, me)
        me.shown = SHOWN | self.pages[me.work[0]]


class WakesNoLeader(HandsOut):
    """A leader that meets a full mini queue parks, and the task of that queue does not wake the next."""

    def pop_mini(self, w: World, me: Task, gates: list[Later]) -> None:
        idle, w.idle = w.idle, []
        super().pop_mini(w, me, gates)
        w.idle = idle


# Of handing out.


class HandsOutChains(HandsOut):
    """As first proposed: split as for giving back. A unit may overlap what is kept, and still be handed out."""

    def parts(self, units: tuple[int, ...]) -> list[tuple[int, ...]]:
        parts = []
        while units:
            part, units = self.split(units)
            parts.append(part)
        return parts


class HandsOutSingly(HandsOut):
    """Each unit is a part."""

    def parts(self, units: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [(unit,) for unit in units]


class HandsOutUncounted(HandsOut):
    """The waiter does not learn that one more will post."""

    def join(self, waiter: Task) -> None:
        pass


class HandsOutUnposted(HandsOut):
    """The helper does not post."""

    def enter_cleared(self, w: World, helper: Task, waiter: int) -> None:
        helper.shown = 0


class HandsOutShown(HandsOut):
    """The helper's row shows a range again, which the waiter's row covers already."""

    def enter_cleared(self, w: World, helper: Task, waiter: int) -> None:
        super().enter_cleared(w, helper, waiter)
        helper.shown = SHOWN | self.pages_of(helper.mini)


class HandsOutAsleep(HandsOut):
    """The helper is not woken."""

    def pop_superseded(self, w: World, me: Task, gates: list[Later]) -> None:
        super().pop_superseded(w, me, [])


class KeepsLast(HandsOut):
    """What no task is parked for goes to the end of the main queue, not to the own mini queue."""

    def pop_superseded(self, w: World, me: Task, gates: list[Later]) -> None:
        super().pop_superseded(w, me, gates)
        w.main += me.mini
        me.mini = ()


class KeepsFirst(HandsOut):
    """The same, to the front of the main queue, as what is given back."""

    def pop_superseded(self, w: World, me: Task, gates: list[Later]) -> None:
        super().pop_superseded(w, me, gates)
        w.main = me.mini + w.main
        me.mini = ()


class ForgetsTheRemainder(HandsOut):
    """What no task is parked for is lost."""

    def pop_superseded(self, w: World, me: Task, gates: list[Later]) -> None:
        super().pop_superseded(w, me, gates)
        me.mini = ()
