"""The NBD export of a running recorder's volume: what an NBD server calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mirrortool.change import Change
from mirrortool.nbd.ownexports import describe_export
from mirrortool.record.recorder import Recorder


class RecorderExport:
    """One volume; see nbd/export.py for what each method promises."""

    read_only = False
    zeroes_fast = True
    """Zeros are journaled without data, however they are written to the volume later."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder = recorder
        self.name = name
        self.description = describe_export(recorder.journal.uuid, name)
        self.size = recorder.volumes[name].size
        self.page_size = recorder.page_size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._recorder.read_into(self.name, offset, buffer)

    def change(self, changes: Sequence[Change]) -> None:
        self._recorder.change(self.name, changes)

    def flush(self) -> None:
        self._recorder.flush()

    def extents(self, offset: int, length: int) -> Iterable[tuple[int, bool]]:
        return self._recorder.extents(self.name, offset, length)

    def cache(self, offset: int, length: int) -> None:
        """The kernel reads ahead as it sees fit."""
