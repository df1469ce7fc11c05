"""Opens a log by its format, and imports all of one in one call."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mirrortool.errors import AccessError, UsageError
from mirrortool.files import File, open_file
from mirrortool.record.importers.fiolog import FileMap, FioLog
from mirrortool.record.importers.importloop import Import, ImportResult
from mirrortool.record.importers.logstep import Log
from mirrortool.record.importers.logwrites import LogWrites
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from mirrortool.volume import VolumeSet
from mirrortool.wording import counted


class LogFormat(StrEnum):
    """What wrote the log: dm-log-writes or QEMU's blklogwrites, or fio."""

    LOGWRITES = "logwrites"
    FIO = "fio"


def open_log_file(path: str) -> File:
    """The file of a log.

    Raises:
        AccessError: it can be read once only, such as a pipe.
    """
    log = open_file(path)
    kind = log.facts().kind
    if kind not in ("file", "block device"):
        log.close()
        raise AccessError(f"is a {kind}, and a log is read twice", where=path, remedy="save it into a file first")
    return log


def open_log(
    file: File,
    kind: LogFormat,
    volumes: VolumeSet,
    *,
    volume: str | None = None,
    mapped: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Log:
    """The log in an open file.

    Args:
        volume: that was logged, by name; by default the only one.
        mapped: of fio, volumes' names by the files that they stand for.
        seed: of fio, of the data that is made up.
    Raises:
        UsageError: there is no such volume, or several and none is named.
        BadLogError: it is not a log of that format.
    """
    for name in (mapped or {}).values():
        _check_name(volumes, name)
    if kind == LogFormat.LOGWRITES:
        return LogWrites(file, _only_volume(volumes, volume))
    default = volume if volume is None and len(volumes) > 1 else _only_volume(volumes, volume)
    return FioLog(file, FileMap(volumes, mapped or {}, default), seed)


def import_log(
    recorder: Recorder,
    path: str,
    kind: LogFormat,
    *,
    volume: str | None = None,
    mapped: Mapping[str, str] | None = None,
    seed: int = 0,
) -> ImportResult:
    """Write what a log says into a recorder's volumes, and journal it; volumes that are incomplete are scanned first.

    Args:
        volume, mapped, seed: as of open_log.
    Raises:
        BadLogError, UsageError: the log is not valid, or does not fit; nothing was changed.
        HostError: volumes or journal cannot be written; they have the first part of the log.
    """
    with open_log_file(path) as file:
        log = open_log(file, kind, recorder.volumes, volume=volume, mapped=mapped, seed=seed)
        work = Import(recorder, log)
        work.check()
        InitialScan(recorder).run()
        return work.run()


def _only_volume(volumes: VolumeSet, name: str | None) -> str:
    if name is not None:
        _check_name(volumes, name)
        return name
    if len(volumes) > 1:
        raise UsageError(
            f"the journal has {counted(len(volumes), 'volume')}; name the one that was logged with --volume"
        )
    return next(iter(volumes)).name


def _check_name(volumes: VolumeSet, name: str) -> None:
    if name not in volumes:
        raise UsageError(f"the journal has no volume {name}")
