"""The plainest reading of a journal: operations one by one onto bytearrays, as serial replay would.

What the scan journals and what replay makes of it are both compared with this, so it shares no code with either but the
reader of frames.
"""

from __future__ import annotations

from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.operation import Kind, Operation


def volumes_at(journal: Journal, lsn: int | None = None) -> dict[str, bytes]:
    """The bytes of each volume after the operation `lsn`, by default after the newest.

    The journal must reach back to LSN 1, and `lsn` must be in it.
    """
    page_size = journal.page_size
    places = {volume.name: volume.start // page_size for volume in journal.volumes}
    contents = {volume.name: bytearray(volume.size) for volume in journal.volumes}
    reached = 0
    with JournalReader(journal, journal.start) as reader:
        while reached != lsn and (frame := reader.next_frame()):
            for operation in frame.batch.operations(frame.header.first_lsn):
                assert operation.lsn == reached + 1
                apply(operation, places, contents, page_size)
                reached = operation.lsn
                if reached == lsn:
                    break
    assert lsn is None or reached == lsn, f"the journal ends at LSN {reached}"
    return {name: bytes(content) for name, content in contents.items()}


def apply(operation: Operation, places: dict[str, int], contents: dict[str, bytearray], page_size: int) -> None:
    if operation.kind >= Kind.COMMIT:
        return
    name = max((name for name in places if places[name] <= operation.page), key=lambda name: places[name])
    content = contents[name]
    if operation.kind == Kind.RESIZE:
        assert operation.page == places[name]
        _resize(content, operation.count, page_size)
        return
    start = (operation.page - places[name]) * page_size
    length = operation.count * page_size
    data = bytes(operation.data) if operation.kind == Kind.WRITE else bytes(length)
    assert len(data) == length
    inside = min(length, len(content) - start)
    assert inside > length - page_size, "only the last page may be cut by the end of the volume"
    # What is written behind the end is padding.
    assert not any(data[inside:])
    content[start : start + inside] = data[:inside]


def _resize(content: bytearray, size: int, page_size: int) -> None:
    """A smaller volume reads as zeros from the page on that holds its end; a larger one behind its old end."""
    if size < len(content):
        del content[size - size % page_size :]
    content.extend(bytes(size - len(content)))
