"""Metrics are text that Prometheus reads, their names as its conventions want them; nothing unknown is told."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mirrortool.metrics import COUNTER, METRICS, PREFIX, exposition, replay_samples, samples_of, ship_samples
from tests.fakes.exposition import parsed


def test_text_is_that_of_the_format() -> None:
    samples = samples_of("record", {"journal": 'a"b\\c\nd'}, {"commit_lsn": 7, "sync_seconds": 0.25, "serving": True})
    assert exposition(samples) == (
        "# HELP mirrortool_record_serving 1 while clients are served, 0 after the end.\n"
        "# TYPE mirrortool_record_serving gauge\n"
        'mirrortool_record_serving{journal="a\\"b\\\\c\\nd"} 1\n'
        "# HELP mirrortool_record_commit_lsn LSN of the newest commit.\n"
        "# TYPE mirrortool_record_commit_lsn gauge\n"
        'mirrortool_record_commit_lsn{journal="a\\"b\\\\c\\nd"} 7\n'
        "# HELP mirrortool_record_sync_seconds What the newest fdatasync of the journal took.\n"
        "# TYPE mirrortool_record_sync_seconds gauge\n"
        'mirrortool_record_sync_seconds{journal="a\\"b\\\\c\\nd"} 0.25\n'
    )


paths = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"\n,{}='))


@given(st.dictionaries(paths, st.integers(0, 1 << 62)))
def test_any_label_is_read_back(values: dict[str, int]) -> None:
    samples = [
        each
        for path, value in values.items()
        for each in samples_of("record", {"journal": "j", "volume": path}, {"clients": value})
    ]
    expected = {("mirrortool_record_clients", (("journal", "j"), ("volume", path))): values[path] for path in values}
    assert parsed(exposition(samples)) == expected


def test_a_path_that_is_no_utf_8_can_be_written() -> None:
    text = exposition(samples_of("record", {"journal": "a\udcff"}, {"head_lsn": 1}))
    assert "a\N{REPLACEMENT CHARACTER}" in text and text.encode()


def test_what_is_not_known_is_not_told() -> None:
    replay = replay_samples(
        "/m", following=True, consistent=False, applied_lsn=3, applied_time_ns=0, head_lsn=None, replayed_bytes=9,
        lag_operations=None, lag_bytes=None, lag_seconds=None, heard_time_ns=0, silent_seconds=None,
    )  # fmt: skip
    names = {name.removeprefix("mirrortool_replay_") for name, _ in parsed(exposition(replay))}
    assert names == {"following", "consistent", "applied_lsn", "replayed_bytes_total", "silent_seconds"}


def test_replay_and_ship_tell_all_their_metrics() -> None:
    samples = replay_samples(
        "/m", following=True, consistent=True, applied_lsn=3, applied_time_ns=10**18, head_lsn=4, replayed_bytes=9,
        lag_operations=1, lag_bytes=2, lag_seconds=0.5, heard_time_ns=10**18, silent_seconds=45.0,
    ) + ship_samples(
        "/j", "host:/j", connected=True, connects=2, sent_bytes=3, acknowledged_lsn=4, head_lsn=5, lag_operations=1,
        lag_bytes=7, lag_seconds=0.25,
    )  # fmt: skip
    found = parsed(exposition(samples))
    expected = {f"{PREFIX}{each.name}" for each in METRICS if not each.name.startswith("record_")}
    assert {name for name, _ in found} == expected
    assert found["mirrortool_replay_applied_timestamp_seconds", (("mirror", "/m"),)] == 10**9


def test_names_follow_the_conventions() -> None:
    assert len({each.name for each in METRICS}) == len(METRICS)
    for each in METRICS:
        assert re.fullmatch(r"(record|replay|ship)_[a-z_]+", each.name)
        assert each.name.endswith("_total") == (each.kind == COUNTER), each
        assert each.help.endswith(".")
