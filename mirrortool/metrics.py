"""The figures that `--metrics-file` tells, and the text that Prometheus reads (exposition format 0.0.4).

METRICS is the table of mirrortool-metrics(5). `*_samples` make samples of what a command knows of itself; `exposition`
makes text of samples. Several commands of one host write a file each, and node_exporter reads them together: so every
sample says by `journal` or `mirror` which it belongs to, and no two files have the same one.

Not here: the file (metricsfile.py).
Source: https://prometheus.io/docs/instrumenting/exposition_formats/, and its naming conventions: base units,
`_total` for what only grows, `_timestamp_seconds` for moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mirrortool.files import portable_path
from mirrortool.lsn import Lsn

COUNTER, GAUGE = "counter", "gauge"
PREFIX = "mirrortool_"
FILE_BEGINS = f"# HELP {PREFIX}"
"""What every text begins with that has a sample."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure: its name without the prefix, counter or gauge, the names of its labels, and a sentence."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a metric; None is not known, and not told."""

    name: str
    labels: Mapping[str, str]
    value: float | None


_JOURNAL, _VOLUME, _MIRROR, _LINK = ("journal",), ("journal", "volume"), ("mirror",), ("journal", "destination")
_SLOT = ("journal", "slot")

METRICS = (
    Metric("record_serving", GAUGE, _JOURNAL, "1 while clients are served, 0 after the end."),
    Metric("record_problem", GAUGE, _JOURNAL, "1 while changes are refused, or are not journaled."),
    Metric("record_clients", GAUGE, _VOLUME, "Connections that have the export now."),
    Metric("record_reads_total", COUNTER, _VOLUME, "Reads answered without an error."),
    Metric("record_writes_total", COUNTER, _VOLUME, "Writes, trims and zeroings answered without an error."),
    Metric("record_flushes_total", COUNTER, _VOLUME, "Flushes answered without an error."),
    Metric("record_errors_total", COUNTER, _VOLUME, "Requests answered with an error."),
    Metric("record_read_bytes_total", COUNTER, _VOLUME, "Bytes sent to clients."),
    Metric("record_written_bytes_total", COUNTER, _VOLUME, "Bytes received from clients, without zeros sent as such."),
    Metric("record_connections", GAUGE, _JOURNAL, "Connections now, those in the handshake included."),
    Metric("record_connections_refused_total", COUNTER, _JOURNAL, "Connections refused as there were too many."),
    Metric("record_client_memory_bytes", GAUGE, _JOURNAL, "Memory that all clients together have now."),
    Metric("record_client_memory_max_bytes", GAUGE, _JOURNAL, "Memory that they may have: --max-memory."),
    Metric("record_piecemeal_requests_total", COUNTER, _JOURNAL, "Large requests done in pieces, for want of memory."),
    Metric("record_operations_total", COUNTER, _JOURNAL, "Operations journaled for clients."),
    Metric("record_journaled_bytes_total", COUNTER, _JOURNAL, "Payload appended to the journal, as stored."),
    Metric("record_waiting_bytes", GAUGE, _JOURNAL, "Acknowledged and not on the volumes yet."),
    Metric("record_head_lsn", GAUGE, _JOURNAL, "LSN of the newest frame."),
    Metric("record_durable_lsn", GAUGE, _JOURNAL, "LSN of the newest frame that survives a power cut."),
    Metric("record_checkpoint_lsn", GAUGE, _JOURNAL, "LSN up to which the volumes hold everything durably."),
    Metric("record_commit_lsn", GAUGE, _JOURNAL, "LSN of the newest commit."),
    Metric("record_commit_timestamp_seconds", GAUGE, _JOURNAL, "Time of the newest commit."),
    Metric("record_sync_seconds", GAUGE, _JOURNAL, "What the newest fdatasync of the journal took."),
    Metric("record_incomplete_volumes", GAUGE, _JOURNAL, "Volumes that are not wholly journaled yet."),
    Metric("record_base_pages", GAUGE, _JOURNAL, "Pages that the initial scan has to read."),
    Metric("record_base_read_pages", GAUGE, _JOURNAL, "Pages that the initial scan has read."),
    Metric("record_full", GAUGE, _JOURNAL, "1 while changes find no room in the journal."),
    Metric("record_journal_bytes", GAUGE, _JOURNAL, "Of all journal files."),
    Metric("record_bases_bytes", GAUGE, _JOURNAL, "Of all bases."),
    Metric("record_free_bytes", GAUGE, _JOURNAL, "That the journal's file system has left for its recorder."),
    Metric("record_slot_held_bytes", GAUGE, _SLOT, "Of older journal files that could go, but for the slot."),
    Metric("record_scans_total", COUNTER, _JOURNAL, "Scans that ended with a commit."),
    Metric("record_fuzzy_scans_total", COUNTER, _JOURNAL, "Those of them with a fuzzy commit."),
    Metric("record_failed_scans_total", COUNTER, _JOURNAL, "Scans that ended with an error and without a commit."),
    Metric("record_scan_seconds", GAUGE, _JOURNAL, "What the newest scan with a commit took."),
    Metric("replay_following", GAUGE, _MIRROR, "1 while the journal is followed, 0 after the end."),
    Metric("replay_consistent", GAUGE, _MIRROR, "1 if the mirror is a committed state of the primary."),
    Metric("replay_applied_lsn", GAUGE, _MIRROR, "LSN of the mirror's checkpoint."),
    Metric("replay_applied_timestamp_seconds", GAUGE, _MIRROR, "Time of the state that the mirror holds."),
    Metric("replay_head_lsn", GAUGE, _MIRROR, "LSN of the journal's newest frame."),
    Metric("replay_replayed_bytes_total", COUNTER, _MIRROR, "Payload applied and durable."),
    Metric("replay_lag_operations", GAUGE, _MIRROR, "Operations behind the journal's newest commit."),
    Metric("replay_lag_bytes", GAUGE, _MIRROR, "Bytes of the journal after the mirror's checkpoint."),
    Metric(
        "replay_lag_seconds",
        GAUGE,
        _MIRROR,
        "Age of the state that the mirror holds; 0 at the newest commit, but at least the silence.",
    ),
    Metric(
        "replay_heard_timestamp_seconds",
        GAUGE,
        _MIRROR,
        "Time of the journal's newest frame: when the primary was last heard of.",
    ),
    Metric("replay_silent_seconds", GAUGE, _MIRROR, "How long ago that is, if news is overdue since; otherwise 0."),
    Metric("ship_connected", GAUGE, _LINK, "1 while the destination answers."),
    Metric("ship_connects_total", COUNTER, _LINK, "Connections made."),
    Metric("ship_sent_bytes_total", COUNTER, _LINK, "Bytes of the journal sent."),
    Metric("ship_acknowledged_lsn", GAUGE, _LINK, "LSN up to which the destination has the journal durably."),
    Metric("ship_head_lsn", GAUGE, _LINK, "LSN of the journal's newest frame."),
    Metric("ship_lag_operations", GAUGE, _LINK, "Operations that the destination has not acknowledged."),
    Metric("ship_lag_bytes", GAUGE, _LINK, "Bytes of the journal that the destination has not acknowledged."),
    Metric(
        "ship_lag_seconds", GAUGE, _LINK, "Age of what the destination has; 0 if it has all, but at least the silence."
    ),
)

_BY_NAME = {metric.name: metric for metric in METRICS}


def samples_of(group: str, labels: Mapping[str, str], values: Mapping[str, float | None]) -> list[Sample]:
    """Samples with the same labels; the metrics are named without `group`, which is record, replay or ship."""
    return [Sample(f"{group}_{name}", labels, value) for name, value in values.items()]


def replay_samples(
    mirror: str,
    *,
    following: bool,
    consistent: bool,
    applied_lsn: Lsn,
    applied_time_ns: int,
    head_lsn: Lsn | None,
    replayed_bytes: int,
    lag_operations: int | None,
    lag_bytes: int | None,
    lag_seconds: float | None,
    heard_time_ns: int,
    silent_seconds: float | None,
) -> list[Sample]:
    """Of a replay that follows; what is not known is left out."""
    values = {
        "following": following,
        "consistent": consistent,
        "applied_lsn": applied_lsn,
        "applied_timestamp_seconds": seconds_of(applied_time_ns),
        "head_lsn": head_lsn,
        "replayed_bytes_total": replayed_bytes,
        "lag_operations": lag_operations,
        "lag_bytes": lag_bytes,
        "lag_seconds": lag_seconds,
        "heard_timestamp_seconds": seconds_of(heard_time_ns),
        "silent_seconds": silent_seconds or 0.0,
    }
    return samples_of("replay", {"mirror": mirror}, values)


def ship_samples(
    journal: str,
    destination: str,
    *,
    connected: bool,
    connects: int,
    sent_bytes: int,
    acknowledged_lsn: Lsn | None,
    head_lsn: Lsn | None,
    lag_operations: int | None,
    lag_bytes: int | None,
    lag_seconds: float | None,
) -> list[Sample]:
    """Of the link to one destination; what is not known is left out."""
    values = {
        "connected": connected,
        "connects_total": connects,
        "sent_bytes_total": sent_bytes,
        "acknowledged_lsn": acknowledged_lsn,
        "head_lsn": head_lsn,
        "lag_operations": lag_operations,
        "lag_bytes": lag_bytes,
        "lag_seconds": lag_seconds,
    }
    return samples_of("ship", {"journal": journal, "destination": destination}, values)


def seconds_of(time_ns: int) -> float | None:
    """A time as Prometheus has it; None for 0, which stands for no time."""
    return time_ns / 1e9 if time_ns else None


def exposition(samples: Iterable[Sample]) -> str:
    """The text, in the order of METRICS: all samples of a metric together, as the format asks for."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        assert tuple(sample.labels) == _BY_NAME[sample.name].labels, sample
        if sample.value is not None:
            by_name.setdefault(sample.name, []).append(sample)
    lines = [line for metric in METRICS for line in _lines(metric, by_name.get(metric.name, ()))]
    return "".join(f"{line}\n" for line in lines)


def _lines(metric: Metric, samples: Sequence[Sample]) -> Iterator[str]:
    name = f"{PREFIX}{metric.name}"
    if samples:
        yield f"# HELP {name} {_escaped(metric.help)}"
        yield f"# TYPE {name} {metric.kind}"
    for sample in samples:
        labels = ",".join(f'{label}="{_escaped_label(text)}"' for label, text in sample.labels.items())
        yield f"{name}{{{labels}}} {_number(sample.value)}"


def _number(value: float | None) -> str:
    """Whole numbers to the last digit, whatever becomes of them in a reader that has floats only."""
    assert value is not None
    return str(int(value)) if isinstance(value, int) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escaped_label(text: str) -> str:
    """UTF-8 whatever the bytes of a path are."""
    known = portable_path(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _escaped(known).replace('"', '\\"')
