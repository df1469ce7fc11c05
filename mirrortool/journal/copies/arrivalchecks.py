"""What arrives for a copy is checked before anything of it is stored: the header of a file, and frames. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from mirrortool.errors import CorruptJournalError, ForkedJournalError, LinkError, NewerJournalError, OtherJournalError
from mirrortool.journal import format as layout
from mirrortool.journal.bases.basefile import check_sums
from mirrortool.journal.bounds import check_inside
from mirrortool.journal.codec import (
    FileHeader,
    FrameError,
    FrameHeader,
    NewerFrameError,
    check_body,
    decode_body,
    decode_file_header,
    decode_frame_header,
)
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.lsn import Lsn
from mirrortool.volume import VolumeSet


def file_header(path: str, data: memoryview) -> FileHeader:
    """The header at the start of a file's bytes.

    Raises:
        LinkError: there is none.
    """
    try:
        return decode_file_header(bytes(data[: layout.FILE_HEADER.size]))
    except NewerFrameError as error:
        raise _newer(path, error) from None
    except FrameError as error:
        raise damaged(path, str(error)) from None


def check_file_header(journal: Journal, data: memoryview, position: Position) -> None:
    """A file belongs to the journal, and begins at this position, in an epoch that the journal has.

    Raises:
        LinkError: it has no header.
        OtherJournalError, ForkedJournalError: it does not.
    """
    header = file_header(journal.path, data)
    if header.uuid != journal.uuid or header.page_size != journal.page_size:
        raise OtherJournalError("a file of another journal arrived", where=journal.path, remedy="make a new copy")
    if header.start != position:
        raise ForkedJournalError(
            f"a file arrived that begins at position {header.start}; the copy ends at {position}",
            where=journal.path,
            remedy="one of them follows another history",
        )
    if journal.history.find(header.epoch, header.lineage) is None:
        raise ForkedJournalError(
            f"a file arrived of epoch {header.epoch}, at position {header.start}, which the sender did not name",
            where=journal.path,
            remedy="one of them follows another history",
        )


def check_frames(
    journal: Journal,
    data: memoryview,
    file_first_lsn: Lsn,
    offset: int,
    after: tuple[Position, int],
    meets: Callable[[FrameHeader, VolumeSet], VolumeSet] | None,
    volumes: VolumeSet,
) -> tuple[Position, int, VolumeSet]:
    """Position, time and volumes after frames that are whole and sound at this place, and that verify would pass.

    Args:
        after: position and time before them.
        meets: also looks at each, with the volumes after it, and returns these as it knows them; raises FrameError.
        volumes: with their sizes before them.
    Raises:
        LinkError: they are not whole, or belong elsewhere.
        CorruptJournalError: they are as they were sent, but contradict themselves.
    """
    (position, time_ns), at, size = after, 0, layout.FRAME_HEADER.size
    try:
        while at < len(data):
            seed = layout.frame_seed(journal.uuid, file_first_lsn, offset + at)
            header = decode_frame_header(data[at : at + size], seed, journal.page_size)
            end = at + size + header.body_bytes
            if header.first_lsn != position.next_lsn or header.chain != position.chain:
                raise FrameError("the frame does not continue the one before")
            if end > len(data) or header.time_ns < time_ns:
                raise FrameError("the frame is cut short, or older than the one before")
            check_body(header, data[at + size : end])
            volumes = _check_content(journal, header, data[at + size : end], volumes)
            if meets:
                volumes = meets(header, volumes)
            position, time_ns, at = header.position, header.time_ns, end
    except NewerFrameError as error:
        raise _newer(journal.path, error) from None
    except FrameError as error:
        where = f"at offset {offset + at} of the file of LSN {file_first_lsn}"
        raise damaged(journal.path, f"{where}: {error}") from None
    return position, time_ns, volumes


def _check_content(journal: Journal, header: FrameHeader, body: memoryview, volumes: VolumeSet) -> VolumeSet:
    """What a frame says makes sense; its checksum holds, so that it was sent so. Returns the volumes after it."""
    try:
        batch = decode_body(header, body, journal.page_size)
        volumes = check_inside(header, batch, volumes, journal.path)
        if not check_sums(batch, journal.page_size):
            raise FrameError("a page has not the sum that the frame gives it")
    except NewerFrameError:
        raise
    except (FrameError, CorruptJournalError) as error:
        what = error.what if isinstance(error, CorruptJournalError) else str(error)
        raise CorruptJournalError(
            f"the frame with LSN {header.first_lsn} that arrives contradicts itself: {what}",
            where=journal.path,
            remedy="mirrortool verify of the sender's journal tells more; nothing of it was stored",
        ) from None
    return volumes


def _newer(path: str, error: NewerFrameError) -> NewerJournalError:
    return NewerJournalError(
        f"what arrives is {error}: a newer one sent it; nothing of it was stored",
        where=path,
        remedy="upgrade the mirrortool that receives",
    )


def damaged(path: str, why: str) -> LinkError:
    """The error for what cannot be so at this place."""
    return LinkError(f"what arrived for {path} was damaged on the way: {why}", remedy="ship again")
