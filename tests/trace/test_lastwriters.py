"""The last writer of each page is known, whatever runs are written."""

from __future__ import annotations

import random

import pytest

from mirrortool.trace import lastwriters
from mirrortool.trace.lastwriters import LastWriters


@pytest.mark.parametrize("bucket", [2, 4, 512])
def test_runs_end_as_single_pages_would(bucket, monkeypatch):
    monkeypatch.setattr(lastwriters, "BUCKET_RUNS", bucket)
    for seed in range(120):
        draw, writers, pages = random.Random(seed), LastWriters(), {}
        for writer in range(60):
            first = draw.randrange(100)
            end = first + draw.choice((1, 1, 2, 5, 30, 80))
            met = {}
            writers.replace(first, end, writer, met)
            before = {pages[page] for page in range(first, end) if page in pages}
            assert met.keys() == before
            assert all(first <= page < end and pages[page] == other for other, page in met.items())
            pages.update(dict.fromkeys(range(first, end), writer))
        met = {}
        writers.replace(0, 200, None, met)
        assert met.keys() == set(pages.values())
        assert len(writers) == 1


def test_a_run_over_the_whole_space_costs_what_it_overlaps():
    writers, met = LastWriters(), {}
    writers.replace(0, 1 << 62, "all", met)
    writers.replace(7, 1 << 61, "half", met)
    assert (met, len(writers)) == ({"all": 7}, 3)
