"""Pace: never more than the rate, but for a short burst."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrortool.ratelimit import BURST_SECONDS, Pace
from tests.conftest import FakeClock


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(takes=st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), max_size=50), rate=st.integers(1, 10**6))
def test_any_span_has_at_most_the_rate_and_a_burst(
    fake_clock: FakeClock, takes: list[tuple[int, float]], rate: int
) -> None:
    pace, went = Pace(rate), list[tuple[float, int]]()
    for length, pause in takes:
        fake_clock.advance(pause)
        fake_clock.advance(pace.consume(length))
        went.append((fake_clock.elapsed, length))
    for i, (first, _) in enumerate(went):
        total = 0
        for at, length in went[i:]:
            total += length
            own = went[i][1]  # the first had been paid for when it went
            assert total - own <= (at - first + BURST_SECONDS) * rate * (1 + 1e-6) + 1e-6 * rate


def test_without_a_limit_nobody_waits() -> None:
    assert Pace(None).consume(1 << 60) == 0.0


def test_a_steady_stream_gets_the_rate(fake_clock: FakeClock) -> None:
    pace = Pace(1000)
    for _ in range(100):
        fake_clock.advance(pace.consume(100))
    assert 9.7 <= fake_clock.elapsed <= 10.0
