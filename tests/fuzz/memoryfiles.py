"""Files in memory, in place of those on a disk: reading one costs no call of the operating system.

Only what readers call is here: open_file, find_facts and list_directory of files.py, on which its other functions rest.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mirrortool import files
from mirrortool.errors import host_error
from mirrortool.openfile import Buffer, Facts, File, Identity

_PATCHED = ("open_file", "find_facts", "list_directory")


class MemoryFile(File):
    """An open file of given bytes. Its second half has holes, if anybody asks."""

    def __init__(self, path: str, data: bytes, facts: Facts) -> None:
        self.path, self._data, self._facts, self._scribbled, self._fd = path, data, facts, 0, -1

    def close(self) -> None:
        return

    def pread(self, length: int, offset: int) -> bytes:
        return self._data[offset : offset + length]

    def pread_into(self, buffers: Sequence[memoryview], offset: int) -> int:
        got = 0
        for buffer in buffers:
            data = self._data[offset + got : offset + got + len(buffer)]
            buffer[: len(data)] = data
            got += len(data)
        return got

    def size(self) -> int:
        return len(self._data)

    def length(self) -> int:
        return len(self._data)

    def facts(self) -> Facts:
        return self._facts

    def is_in_place(self) -> bool:
        return True

    def is_locked(self) -> bool:
        return False

    def fdatasync(self) -> None:
        return

    def expect_sequential(self) -> None:
        return

    def drop_cache(self, offset: int = 0, length: int = 0) -> None:
        return

    def data_extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        end = min(end, len(self._data))
        if start < end:
            yield start, (start + end + 1) // 2


class MemoryFiles:
    """Inside `with`, these files are all that there are; nothing can be written."""

    _patched: tuple[str, ...] = _PATCHED

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents
        self._facts = {path: _facts(number, len(data), "file") for number, (path, data) in enumerate(contents.items())}
        self._directories = _tree(tuple(contents))

    def __enter__(self) -> MemoryFiles:
        self._before = [getattr(files, name) for name in self._patched]
        for name in self._patched:
            setattr(files, name, getattr(self, name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in zip(self._patched, self._before, strict=True):
            setattr(files, name, function)

    def open_file(self, path: str, **_options: Any) -> File:
        data = self._contents.get(path)
        if data is None:
            error = OSError(errno.EISDIR if path in self._directories else errno.ENOENT, "no such file")
            raise host_error(error, path, "open") from error
        return MemoryFile(path, data, self._facts[path])

    def find_facts(self, path: str) -> Facts | None:
        return self._facts.get(path) or (_DIRECTORY if path in self._directories else None)

    def list_directory(self, path: str) -> list[str]:
        return list(self._directories.get(path, ()))


@functools.cache
def _tree(paths: tuple[str, ...]) -> dict[str, list[str]]:
    """The names in each directory, sorted."""
    found: dict[str, set[str]] = {}
    for path in paths:
        for below, above in itertools.pairwise((path, *_above(path))):
            found.setdefault(above, set()).add(_split(below)[1])
    return {path: sorted(names) for path, names in found.items()}


@functools.cache
def _above(path: str) -> tuple[str, ...]:
    """The directories that a path lies in, the innermost first."""
    above = os.path.dirname(path)
    return () if above == path else (above, *_above(above))


_split = functools.cache(os.path.split)


def _facts(number: int, size: int, kind: str) -> Facts:
    return Facts(Identity(7, number, False), size, size, 10**18, 10**18, kind)


_DIRECTORY = _facts(1 << 20, 4096, "directory")


class WrittenFile(MemoryFile):
    """A file that can be written."""

    _data: bytearray  # type: ignore[assignment]

    def pread(self, length: int, offset: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    def pwrite(self, data: Buffer, offset: int) -> None:
        self._data.extend(bytes(max(0, offset - len(self._data))))
        self._data[offset : offset + len(data)] = data

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        for each in buffers:
            self.pwrite(each, offset)
            offset += len(each)

    def truncate(self, size: int) -> None:
        del self._data[size:]
        self._data.extend(bytes(size - len(self._data)))

    def facts(self) -> Facts:
        return replace(self._facts, size=len(self._data), allocated=len(self._data))

    def lock(self, *, exclusive: bool, what: str) -> None:
        return

    def scribble(self, data: bytes) -> None:
        return


class WritableFiles(MemoryFiles):
    """Inside `with`, these files are all that there are; they can be written, renamed and removed, in a directory each.

    What is written stays in `contents`.
    """

    _patched = (
        *_PATCHED, "rename", "remove", "make_directory", "claim_directory", "sync_directory", "free_bytes",
        "remove_tree",
    )  # fmt: skip

    def __init__(self, contents: Mapping[str, bytes], directories: Iterable[str] = ()) -> None:
        self.contents: dict[str, bytearray] = {path: bytearray(data) for path, data in contents.items()}
        self._made = {above for path in (*contents, *directories) for above in _above(path)} | {*directories}
        self._numbers = dict(zip(self.contents, itertools.count(1), strict=False))

    def open_file(self, path: str, *, create: bool = False, exclusive: bool = False, **_: Any) -> File:
        if path not in self.contents and not create:
            if path in self._made:
                return WrittenFile(path, bytearray(), _DIRECTORY)
            raise self._error(errno.ENOENT, path)
        if path not in self.contents:
            if _split(path)[0] not in self._made:
                raise self._error(errno.ENOENT, path)
            self.contents[path] = bytearray()
            self._numbers[path] = max(self._numbers.values(), default=0) + 1
        elif exclusive and create:
            raise self._error(errno.EEXIST, path)
        facts = _facts(self._numbers[path], len(self.contents[path]), "file")
        return WrittenFile(path, self.contents[path], facts)

    def find_facts(self, path: str) -> Facts | None:
        if path in self.contents:
            return _facts(self._numbers[path], len(self.contents[path]), "file")
        return _DIRECTORY if path in self._made else None

    def list_directory(self, path: str) -> list[str]:
        every = (*self.contents, *self._made)
        return sorted({name for above, name in map(_split, every) if above == path})

    def rename(self, source: str, target: str) -> None:
        if source not in self.contents:
            raise self._error(errno.ENOENT, source)
        self.contents[target] = self.contents.pop(source)
        self._numbers[target] = self._numbers.pop(source)

    def remove(self, path: str) -> None:
        self.contents.pop(path, None)
        self._numbers.pop(path, None)

    def make_directory(self, path: str, *, exist_ok: bool = False, mode: int | None = None) -> None:
        if path in self._made and not exist_ok:
            raise self._error(errno.EEXIST, path)
        self._made.add(path)

    def claim_directory(self, path: str, group: int | None = None) -> None:
        self._made.add(path)

    def sync_directory(self, path: str) -> None:
        return

    def free_bytes(self, path: str) -> int:
        return 1 << 40

    def remove_tree(self, path: str) -> None:
        for each in [each for each in self.contents if each.startswith(f"{path}/")]:
            self.remove(each)
        self._made = {each for each in self._made if each != path and not each.startswith(f"{path}/")}

    def _error(self, number: int, path: str) -> Exception:
        error = OSError(number, os.strerror(number))
        found = host_error(error, path, "open")
        found.__cause__ = error
        return found
