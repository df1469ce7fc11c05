"""From moments to places: in order, inside, and one scale but for the pauses."""

from __future__ import annotations

import random

import pytest

from mirrortool.trace.timescale import TimeScale

START = 10**15


def random_spans(seed: int) -> list[tuple[int, int]]:
    source = random.Random(seed)
    starts = [START + source.randrange(10**9) for _ in range(source.randint(1, 40))]
    return [(start, start + source.choice([0, 10, 10**4, 10**7])) for start in starts]


@pytest.mark.parametrize("seed", range(50))
def test_later_moments_are_never_left_of_earlier_ones(seed: int) -> None:
    spans = random_spans(seed)
    first, last = min(spans)[0], max(end for _, end in spans)
    scale = TimeScale(spans, first, last, 100, 900)
    source = random.Random(seed)
    moments = sorted([*(at for span in spans for at in span), *(source.randint(first, last) for _ in range(100))])
    places = [scale.x(at) for at in moments]
    assert places == sorted(places)
    assert 100 == scale.x(first - 5) == places[0] and places[-1] <= scale.x(last + 5) <= 900
    assert all(x >= 100 and x + width <= 900.001 for x, width in scale.gap_places())


def test_what_lasts_as_long_is_as_wide_whatever_pause_is_between() -> None:
    hour = 3600 * 10**9
    scale = TimeScale([(0, 1000), (hour, hour + 1000), (hour + 1010, hour + 2010)], 0, 2 * hour, 0, 500)
    widths = [scale.x(start + 1000) - scale.x(start) for start in (0, hour, hour + 1010)]
    assert widths == [pytest.approx(widths[0])] * 3
    assert scale.gaps == [(1000, hour)]
    assert scale.x(hour // 2) == scale.x(1000) < scale.x(hour)


def test_ticks_are_round_and_none_is_in_a_pause() -> None:
    scale = TimeScale([(START, START + 700), (START + 10_000, START + 10_600)], START, START + 10_600, 0, 900)
    step, ticks = scale.ticks()
    assert step == 200
    assert ticks == [0, 200, 400, 600, 10_000, 10_200, 10_400, 10_600]


@pytest.mark.parametrize("spans", [[], [(5, 5)], [(0, 0), (9, 9)]])
def test_no_time_has_a_scale_too(spans: list[tuple[int, int]]) -> None:
    scale = TimeScale(spans, 0, 10, 0, 100)
    assert 0 <= scale.x(0) <= scale.x(10) <= 100
    assert scale.ticks()[1]


def test_pauses_that_would_be_wider_than_a_gap_are_left_out() -> None:
    """Also those that are short beside the busy time: what is busy becomes as wide as it can."""
    spans = [(1000 * n, 1000 * n + 960) for n in range(3)] + [(10_000, 11_000)]
    scale = TimeScale(spans, 0, 11_000, 0, 900)
    assert scale.gaps == [(2960, 10_000)]
    spans = [(1000 * n, 1000 * n + 500) for n in range(10)]
    assert len(TimeScale(spans, 0, 9500, 0, 900).gaps) == 9
