"""A store of volumes that are not held: what is written goes nowhere, so that a replay needs no case for them.

A mirror that holds only some of its journal's volumes keeps the sums of all, as the frames carry these; the bytes of
the others it drops. They cannot be read: whoever reads opens the store without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mirrortool.store.interface import WriteRun
from mirrortool.volume import VolumeSet


class AbsentStore:
    """The volumes with their sizes, and nothing else."""

    def __init__(self, volumes: VolumeSet) -> None:
        self.page_size = volumes.page_size
        self._volumes = volumes

    @property
    def volumes(self) -> VolumeSet:
        return self._volumes

    def capacity(self, name: str) -> int | None:
        assert name in self._volumes
        return None

    def find_why_not_direct(self) -> str | None:
        return None  # nothing stands in the way of the others

    def write_direct(self, wanted: bool) -> None:
        """Nothing."""

    def write(self, runs: Sequence[WriteRun]) -> None:
        """Nothing."""

    def zero(self, page: int, count: int) -> None:
        """Nothing."""

    def resize(self, name: str, size: int) -> None:
        self._volumes = self._volumes.resized(self._volumes[name], size)

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        raise AssertionError("not held: only what is held is read")

    def read_bytes(self, name: str, offset: int, buffer: memoryview) -> None:
        raise AssertionError("not held: only what is held is read")

    def data_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        raise AssertionError("not held: only what is held is read")

    def missing_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        return ()

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        """Nothing."""

    @property
    def frees_late(self) -> bool:
        return False

    @property
    def frees_wait(self) -> bool:
        return False

    def begin_checkpoint(self) -> None:
        """Nothing."""

    def end_checkpoint(self) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def drop_caches(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
