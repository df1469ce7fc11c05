"""Plans: whatever is kept and whoever reads, what was promised is restorable and every slot can continue."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.journal.position import Position
from mirrortool.journal.retention.plan import Hold, KeptFile, PrunePlan, SlotLag, Wish, plan
from mirrortool.journal.slots import Slot

LSN_MAX = 200


def slot(name: str, lsn: int, *, lost: bool = False, via: str = "", resync: int = 0) -> Slot:
    return Slot(name, "00" * 16, "mirror", "/m", Position(lsn, 0), 0, 0, lost, via, resync)


@dataclass(frozen=True)
class Case:
    files: list[KeptFile]
    bases: list[KeptFile]
    lags: list[SlotLag]
    others: list[Hold]
    wish: Wish


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lsns = st.integers(1, LSN_MAX)
    first = draw(st.sampled_from([1, 1, 30]))
    starts = sorted({first, *(lsn for lsn in draw(st.lists(lsns, max_size=8)) if lsn > first)})
    files = [KeptFile(start, draw(st.integers(1, 50))) for start in starts]
    # A journal that was pruned has a base that stands for what went.
    made = set(draw(st.lists(lsns, max_size=4))) | ({draw(st.integers(29, 60))} if first > 1 else set())
    slots = [
        SlotLag(
            slot(
                f"s{number}",
                draw(st.integers(0, LSN_MAX)),
                lost=draw(st.booleans()),
                via=draw(st.sampled_from(["", "", "x"])),
                resync=draw(st.sampled_from([0, 0, *sorted(made)])),
            ),
            draw(st.floats(0, 100)),
        )
        for number in range(draw(st.integers(0, 3)))
    ]
    promised = draw(st.none() | st.just(0) | st.integers(first, LSN_MAX))
    size = draw(st.none() | st.integers(0, 300)) if promised is not None else draw(st.integers(0, 300))
    wish = Wish(promised, size, draw(st.none() | st.integers(0, 200)), draw(st.none() | st.floats(0, 100)))
    others = [Hold(draw(lsns), "the recorder")] if draw(st.booleans()) else []
    return Case(files, [KeptFile(lsn, 7) for lsn in sorted(made)], slots, others, wish)


def has(files: list[int], lsn: int) -> bool:
    return bool(files) and files[0] <= lsn


def restorable(files: list[int], bases: list[int], lsn: int) -> bool:
    """From LSN 1, or from a base at or before, with every file after it."""
    return files[0] == 1 or any(base <= lsn and has(files, base + 1) for base in bases)


def carried_out(case: Case) -> tuple[PrunePlan, list[int], list[int]]:
    planned = plan(case.files, case.bases, case.lags, case.others, case.wish)
    files = [file.lsn for file in case.files if file.lsn not in planned.files]
    return planned, files, [base.lsn for base in case.bases if base.lsn not in planned.bases]


@given(cases())
def test_only_the_oldest_files_go_and_the_newest_stays(case: Case) -> None:
    planned, files, _ = carried_out(case)
    assert list(planned.files) + files == [file.lsn for file in case.files]
    assert files


@given(cases())
def test_every_promised_commit_stays_restorable(case: Case) -> None:
    _, files, bases = carried_out(case)
    before = [file.lsn for file in case.files], [base.lsn for base in case.bases]
    promised = case.wish.promised_lsn
    for lsn in range(1 if promised is None else promised, LSN_MAX + 1):
        if promised is None and lsn < max(before[1], default=LSN_MAX):
            continue  # no promise, but from the newest base on
        if restorable(*before, lsn):
            assert restorable(files, bases, lsn), lsn


@given(cases())
def test_every_slot_can_go_on_or_is_told(case: Case) -> None:
    planned, files, bases = carried_out(case)
    lost = {each.name for each in planned.lost}
    first = case.files[0].lsn
    for lag in case.lags:
        each = lag.slot
        if not each.holds_back:
            assert each.name not in lost
            continue
        assert (each.name in lost) == (not has(files, each.needs_lsn))
        limits = case.wish.slot_size, case.wish.slot_seconds
        if limits == (None, None) and each.needs_lsn >= first:
            assert each.name not in lost
            assert not each.resync_lsn or each.resync_lsn in bases


@given(cases())
def test_what_else_holds_back_is_respected(case: Case) -> None:
    _, files, _ = carried_out(case)
    for hold in case.others:
        assert has(files, max(hold.lsn, case.files[0].lsn))


@given(cases())
def test_the_newest_usable_base_stays(case: Case) -> None:
    _, _, bases = carried_out(case)
    if case.bases:
        assert case.bases[-1].lsn in bases


@given(cases())
def test_keep_size_keeps_the_newest_that_fit(case: Case) -> None:
    _, files, _ = carried_out(case)
    without = carried_out(replace(case, wish=replace(case.wish, size=None)))[1]
    sizes = {file.lsn: file.size for file in case.files}
    if case.wish.size is None:
        return
    extra = [lsn for lsn in files if lsn not in without]
    if extra:
        assert sum(sizes[lsn] for lsn in files) <= case.wish.size
    gone = [lsn for lsn in sizes if lsn not in files]
    if gone:
        assert sum(sizes[lsn] for lsn in files) + sizes[gone[-1]] > case.wish.size


@given(cases())
def test_a_second_time_nothing_more_goes(case: Case) -> None:
    planned, files, bases = carried_out(case)
    lost = {each.name for each in planned.lost}
    lags = [
        replace(lag, slot=replace(lag.slot, is_lost=True, resync_lsn=0)) if lag.slot.name in lost else lag
        for lag in case.lags
    ]
    left = replace(
        case,
        files=[file for file in case.files if file.lsn in files],
        bases=[base for base in case.bases if base.lsn in bases],
        lags=lags,
    )
    again = plan(left.files, left.bases, left.lags, left.others, left.wish)
    assert (again.files, again.lost) == ((), ())


FILES = [KeptFile(lsn, 10) for lsn in (1, 11, 21, 31, 41)]


@pytest.mark.parametrize(
    ("bases", "slots", "wish", "gone", "lost", "why"),
    [
        ([], [], Wish(25), (), (), "no base stands"),
        ([], [], Wish(0), (), (), "within --keep"),
        ([25], [], Wish(28), (1, 11), (), "base 25"),
        ([25], [], Wish(25), (1, 11), (), "base 25"),
        ([25], [], Wish(24), (), (), "no base stands"),
        ([15, 25, 35], [], Wish(28), (1, 11), (), "base 25"),
        ([45], [], Wish(None, 25), (1, 11, 21), (), "base 45|appended"),
        ([45], [], Wish(None, 30), (1, 11), (), "base 45|appended"),
        ([45], [], Wish(None, 0), (1, 11, 21, 31), (), "base 45|appended"),
        ([45], [slot("m", 14)], Wish(None, 0), (1,), (), "slot m, which is at LSN 14"),
        ([45], [slot("m", 10)], Wish(None, 0), (1,), (), "slot m"),
        ([45], [slot("m", 14, lost=True)], Wish(None, 0), (1, 11, 21, 31), (), "base 45|appended"),
        ([45], [slot("m", 14, via="c")], Wish(None, 0), (1, 11, 21, 31), (), "base 45|appended"),
        ([45], [slot("m", 14)], Wish(None, 0, 30), (1, 11, 21, 31), ("m",), "base 45|appended"),
        ([45], [slot("m", 14)], Wish(None, 0, 40), (1,), (), "slot m"),
        ([15, 45], [slot("m", 3, lost=True, resync=15)], Wish(None, 0), (1,), (), "slot m"),
    ],
)
def test_plans(
    bases: list[int], slots: list[Slot], wish: Wish, gone: tuple[int, ...], lost: tuple[str, ...], why: str
) -> None:
    found = plan(FILES, [KeptFile(lsn, 5) for lsn in bases], [SlotLag(each, 0.0) for each in slots], [], wish)
    assert found.files == gone
    assert tuple(each.name for each in found.lost) == lost
    assert any(part in found.holds[0].why for part in why.split("|"))
    assert found.needs_base == (why == "no base stands")


def test_a_slot_that_is_too_old_but_loses_nothing_is_not_lost() -> None:
    found = plan(FILES, [KeptFile(15, 5)], [SlotLag(slot("m", 20), 99.0)], [], Wish(17, None, None, 10.0))
    assert (found.files, found.lost) == ((1,), ())


@pytest.mark.parametrize(("seconds", "lost"), [(10.0, []), (10.1, ["m"])])
def test_a_slot_may_be_as_old_as_it_may(seconds: float, lost: list[str]) -> None:
    found = plan(FILES, [KeptFile(45, 5)], [SlotLag(slot("m", 14), seconds)], [], Wish(None, 0, None, 10.0))
    assert [each.name for each in found.lost] == lost


def test_a_base_from_which_nothing_follows_stands_for_nothing() -> None:
    left = FILES[2:]
    found = plan(left, [KeptFile(12, 5)], [], [], Wish(45))
    assert (found.files, found.needs_base) == ((), True)


def test_a_base_that_ends_where_the_files_begin_stands_for_what_was_before() -> None:
    left = FILES[2:]
    found = plan(left, [KeptFile(20, 5)], [], [], Wish(45))
    assert (found.files, found.needs_base, found.holds[0].lsn) == ((), False, 20)


def test_the_base_that_a_slot_starts_over_from_stays_with_what_follows() -> None:
    bases = [KeptFile(lsn, 5) for lsn in (5, 15, 45)]
    found = plan(FILES, bases, [SlotLag(slot("m", 3, lost=True, resync=15), 0.0)], [], Wish(None, None, None, None))
    assert (found.files, found.bases) == ((1,), (5,))
    found = plan(FILES, bases, [], [], Wish(None, None, None, None))
    assert (found.files, found.bases) == ((1, 11, 21, 31), (5, 15))
