"""Volumes of a mirror in exports of NBD servers: opening those that are there, and making new ones.

An export has no lock, and no label fits on it. So whenever one is opened, what can be compared is: its name and its
size with those that it had when the mirror was made; and a replay compares sampled pages with their sums before it
writes (replay/preflight.py). That finds another export, and what another program wrote; it keeps nobody away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial

from mirrortool.errors import ChangedOutsideError, UnusableVolumeError
from mirrortool.imageformats import container_format
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.keptvolume import KeptVolume
from mirrortool.mirror.nbdplace import NbdPlace
from mirrortool.nbd.client import NbdClient
from mirrortool.nbd.clientcodec import ExportFacts
from mirrortool.nbd.ownexports import journal_of
from mirrortool.nbd.protocol import TransmissionFlag
from mirrortool.nbd.uri import NbdUri, parse_uri
from mirrortool.store.interface import Store
from mirrortool.store.nbdstore import NbdStore, capacity_of, zero_range
from mirrortool.volume import Volume, VolumeSet
from mirrortool.wording import byte_count, exact_bytes

_PIECE_BYTES = 4 << 20
_ZEROS = bytes(_PIECE_BYTES)


def open_exports(mirror: Mirror, kept: Sequence[KeptVolume], volumes: VolumeSet, write: bool) -> Store:
    """A store of these volumes of a mirror, in the exports that the owner named.

    Raises:
        ServerError: a server cannot be reached.
        UnusableVolumeError, ChangedOutsideError: a guard refuses, and why.
    """
    clients: dict[str, NbdClient] = {}
    with ExitStack() as opening:
        for each in kept:
            place = each.place
            assert isinstance(place, NbdPlace)
            client = opening.enter_context(closing(NbdClient(place.uri, write=write)))
            _check_is_same(place, client)
            _check_can_hold(client, volumes[each.name], volumes.page_size, mirror.journal_uuid, write=write)
            clients[each.name] = client
        opening.pop_all()
    return NbdStore(volumes, clients)


class NewExports:
    """Volumes of a new mirror that are to be in exports."""

    def __init__(
        self,
        volumes: Sequence[Volume],
        targets: Mapping[str, str],
        journal_uuid: bytes,
        page_size: int,
        *,
        overwrite: bool,
        raw: bool,
    ) -> None:
        """
        Args:
            targets: the URI of each, by name.
            journal_uuid: of the journal that is mirrored, none of whose volumes may be written.
            overwrite: whether data in them may be lost.
            raw: also where it is an image in a container format.
        Raises:
            UsageError: one is not a URI.
            UnusableVolumeError: two are one.
        """
        self._volumes = volumes
        self._uris = {volume.name: parse_uri(targets[volume.name]) for volume in volumes}
        self._journal_uuid, self._page_size = journal_uuid, page_size
        self._overwrite, self._raw = overwrite, raw
        self._facts: dict[str, ExportFacts] = {}  # as `check` found them
        _refuse_duplicates(self._uris)

    def check(self, primary_paths: Iterable[str]) -> None:
        """Nothing is changed.

        Raises:
            ServerError: a server cannot be reached.
            UnusableVolumeError: an export cannot be a volume.
        """
        for volume, client in self._each():
            _check_can_hold(client, volume, self._page_size, self._journal_uuid, write=True)
            _check_content(client, overwrite=self._overwrite, raw=self._raw)
            self._facts[volume.name] = client.facts

    def prepare(self, group: int | None) -> None:
        """Make them read as zeros."""
        for volume, client in self._each():
            if self._overwrite:
                zero_range(client, 0, volume.size)
            client.flush()

    def kept(self) -> list[KeptVolume]:
        """What mirror.json is to keep of them."""
        return [KeptVolume(volume.name, volume.start, self._kept_place(volume.name)) for volume in self._volumes]

    def beside(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def _kept_place(self, name: str) -> NbdPlace:
        facts = self._facts[name]
        return NbdPlace(self._uris[name], facts.name, facts.size)

    def _each(self) -> Iterator[tuple[Volume, NbdClient]]:
        for volume in self._volumes:
            with closing(NbdClient(self._uris[volume.name], write=True)) as client:
                yield volume, client


def _refuse_duplicates(uris: Mapping[str, NbdUri]) -> None:
    seen: dict[object, str] = {}
    for name, uri in uris.items():
        if seen.setdefault(uri.place, name) != name:
            raise UnusableVolumeError(f"volumes {seen[uri.place]} and {name} would share one export", where=uri)


def _check_is_same(place: NbdPlace, client: NbdClient) -> None:
    """Raise ChangedOutsideError where the server shows another export than the mirror was made on."""
    if client.facts.name != place.export:
        raise ChangedOutsideError(
            f"the server calls the export {client.facts.name!r}, and it was {place.export!r} when the mirror was made",
            where=place.uri,
            remedy="let the server show the right one",
        )
    if client.facts.size != place.size:
        raise ChangedOutsideError(
            f"the export has {exact_bytes(client.facts.size)}, and had {exact_bytes(place.size)} when the mirror was "
            "made",
            where=place.uri,
            remedy="let the server show the right one; if it was resized, make a new mirror",
        )


def _check_can_hold(client: NbdClient, volume: Volume, page_size: int, journal_uuid: bytes, *, write: bool) -> None:
    """Raise UnusableVolumeError where an export cannot hold a volume."""
    facts = client.facts
    refused = partial(UnusableVolumeError, where=client.uri)
    if journal_of(facts.description) == journal_uuid:
        raise refused(
            f"this is the primary's own: the server describes it as {facts.description!r}",
            remedy="choose another export",
        )
    if facts.block_min > page_size:
        raise refused(
            f"the server takes blocks of {byte_count(facts.block_min)}, and the journal's pages have "
            f"{byte_count(page_size)}",
            remedy="use a server with smaller blocks, such as nbdkit with the filter blocksize in between",
        )
    if capacity_of(client) < volume.size:
        raise refused(
            f"the export has {exact_bytes(capacity_of(client))}, volume {volume.name} needs {exact_bytes(volume.size)}",
            remedy="use a larger one",
        )
    if write and facts.can(TransmissionFlag.READ_ONLY):
        raise refused("the server lets it only be read", remedy="start the server without its option for reading only")
    if write and not facts.can(TransmissionFlag.SEND_FLUSH):
        raise refused(
            "the server has no FLUSH, so that nothing would ever be known to be durable",
            remedy="use another server, or one of its plugins that can flush",
        )


def _check_content(client: NbdClient, *, overwrite: bool, raw: bool) -> None:
    """Raise UnusableVolumeError where an export has data that is not to be lost."""
    if not raw and (found := container_format(_ReadableExport(client), capacity_of(client))):
        raise UnusableVolumeError(
            f"holds an image in the format {found}, and a mirror's volume is raw",
            where=client.uri,
            remedy="let the server open the image in its format, or give --raw with --overwrite if it may be lost",
        )
    if not overwrite and not _reads_as_zeros(client):
        raise UnusableVolumeError(
            "the export holds data", where=client.uri, remedy="give --overwrite if that data may be lost"
        )


class _ReadableExport:
    """An export as what looks for container formats reads it: a few bytes anywhere."""

    def __init__(self, client: NbdClient) -> None:
        self._client = client

    def pread(self, length: int, offset: int) -> bytes:
        block = self._client.facts.block_min
        first, last = offset - offset % block, -(-(offset + length) // block) * block
        data = bytearray(min(last, capacity_of(self._client)) - first)
        self._client.read_into(first, [memoryview(data)])
        return bytes(data[offset - first : offset - first + length])


def _reads_as_zeros(client: NbdClient) -> bool:
    """Whether all of an export does: as the server says, or else as it reads."""
    offset, buffer = 0, memoryview(bytearray(_PIECE_BYTES))
    for length, is_zero in client.extents(0, capacity_of(client)):
        end = offset + length
        while offset < end and not is_zero:
            piece = buffer[: min(_PIECE_BYTES, end - offset)]
            client.read_into(offset, [piece])
            if piece != _ZEROS[: len(piece)]:
                return False
            offset += len(piece)
        offset = end
    return True
