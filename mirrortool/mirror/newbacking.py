"""Makes backings: of a new mirror, or one more for a mirror that is there.

What is to be a backing must read as zeros, because that is what a free cell is; or what it holds may be lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

from mirrortool import clock, files
from mirrortool.errors import UnusableVolumeError, UsageError
from mirrortool.files import File
from mirrortool.mirror.keptbacking import BackTarget, KeptBacking, KeptBackings, SpannedPlace
from mirrortool.mirror.keptvolume import KeptVolume
from mirrortool.mirror.targetvolume import (
    Primaries,
    check_content,
    check_not_primary,
    make_zero,
    open_target,
    reads_as_zeros,
)
from mirrortool.store.backing import make_backing, read_header
from mirrortool.store.backingformat import HEADER_BYTES, BackingHeader
from mirrortool.volume import Volume
from mirrortool.wording import exact_bytes


class NewBacking:
    """A backing that is to be made."""

    def __init__(
        self, target: BackTarget, mirror_uuid: bytes, extent_bytes: int, *, overwrite: bool, raw: bool
    ) -> None:
        """
        Args:
            overwrite: whether data there may be lost.
            raw: also where it is an image in a container format.
        """
        self._path = files.absolute(target.path)
        self._size = target.size
        self._mirror_uuid, self._extent_bytes = mirror_uuid, extent_bytes
        self._overwrite, self._raw = overwrite, raw

    def check(self, primaries: Primaries) -> None:
        """Nothing is changed.

        Raises:
            UnusableVolumeError, UsageError: it cannot be one.
        """
        path = self._path
        if not files.exists(path):
            check_not_primary(path, None, primaries)
            self._header(self._size)
            return
        with open_target(path) as file:
            facts = file.facts()
            check_not_primary(path, facts, primaries)
            if facts.identity.is_device and self._size is not None and self._size > facts.size:
                raise UnusableVolumeError(
                    f"the device has {exact_bytes(facts.size)}, not {exact_bytes(self._size)}",
                    where=path,
                    remedy="name it without a size",
                )
            self._header(self._size or facts.size)
            if not self._is_unused(file):
                check_content(file, path, overwrite=self._overwrite, raw=self._raw)

    def make(self, group: int | None) -> KeptBacking:
        """Make it, durably; made again after a crash it is another one.

        Args:
            group: the number of one whose members may read a file that is made; by default only the owner may.
        """
        is_new = not files.exists(self._path)
        with open_target(self._path, create=True) as file:
            if is_new:
                file.give_access(0o600 if group is None else 0o640, group)
            header = self._header(self._size or file.size())
            if self._overwrite:
                make_zero(file, header.size)
            elif not is_new:
                file.punch(0, HEADER_BYTES)
            make_backing(file, header)
        files.sync_name(self._path)
        return KeptBacking(header.uuid, self._path)

    def _header(self, size: int | None) -> BackingHeader:
        if not size:
            remedy = f"give it a size: {self._path}:100G"
            raise UsageError("a backing that is to be made needs a size", where=self._path, remedy=remedy)
        try:
            return BackingHeader.of_new(
                secrets.token_bytes(16), self._mirror_uuid, self._extent_bytes, size, clock.now_ns()
            )
        except UnusableVolumeError as error:
            error.where = self._path
            raise

    def _is_unused(self, file: File) -> bool:
        """Whether it is a backing that nothing was ever written to, as a call that was interrupted leaves it."""
        try:
            return read_header(file) is not None and reads_as_zeros(file, HEADER_BYTES, file.size())
        except UnusableVolumeError:
            return False


class NewBackings:
    """Volumes of a new mirror that are to lie on backings, and these."""

    def __init__(
        self,
        volumes: Sequence[Volume],
        targets: Sequence[BackTarget],
        mirror_uuid: bytes,
        extent_bytes: int,
        *,
        overwrite: bool,
        raw: bool,
    ) -> None:
        self._volumes = volumes
        self._extent_bytes = extent_bytes
        self._new = [NewBacking(target, mirror_uuid, extent_bytes, overwrite=overwrite, raw=raw) for target in targets]
        self._made: list[KeptBacking] = []

    def check(self, primary_paths: Iterable[str]) -> None:
        primaries = Primaries(primary_paths)
        for each in self._new:
            each.check(primaries)

    def prepare(self, group: int | None) -> None:
        self._made = [each.make(group) for each in self._new]

    def kept(self) -> list[KeptVolume]:
        return [KeptVolume(volume.name, volume.start, SpannedPlace()) for volume in self._volumes]

    def beside(self) -> dict[str, object]:
        return KeptBackings(self._extent_bytes, tuple(self._made)).to_json()
