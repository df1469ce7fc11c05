"""What of a file system is durable, what is only in the cache, and what a power cut may leave of that.

The real files are the cache: what processes see. Beside them stands, for each file that changed since its last sync,
what the medium has, and each change since; and for the names, each change of a directory since that directory's sync.

What may survive (`Reality` changes the last three):
- Of each 512-byte sector any version since the last sync, each sector on its own: write-back may have come between any
  two writes, in any order, and tear one. That holds of direct writes, too, as a device has a cache of its own.
- Of what was appended, any length; sectors that did not get there read as zeros. A resize (ftruncate) is lost or kept
  as a whole, in order among the resizes of its file; with a lost one, all that it made room for is lost.
- A name (create, rename, unlink, mkdir, rmdir, symlink) is durable by the fsync of its directory alone. fsync(2): "does
  not necessarily ensure that the entry in the directory containing the file has also reached disk. For that an explicit
  fsync() on a file descriptor for the directory is also needed."
- Names that nobody synced are lost or kept in any order: only a later change of the same name in the same directory
  needs the earlier one, and a rmdir all that emptied the directory. A rename is atomic: both names or neither. It comes
  after nothing else, not even after the data of what it renames: ext4's auto_da_alloc (ext4(5)) is a remedy for others'
  programs, and XFS has none.
- What lies in a directory whose own name is lost is lost with it, synced or not.

Ext4 and XFS do less harm than that: they keep names in the order of their journal, and a sync of a new file commits its
name. `JOURNALED` says so. Btrfs and F2FS, which log what is synced alone, need the default.

Not modelled: permissions, owners, times and attributes, durable at once; what a file system keeps of freed blocks, as
sectors that were never written read as zeros (data=writeback of ext4 is different).
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator

from tests.fakes.disknodes import (
    ANY_ORDER,
    SECTOR,
    NameChange,
    Node,
    Reality,
    Resize,
    Survivors,
    Write,
    sectors_of,
    without,
)
from tests.fakes.disksurvivors import Chooser, Enumerated, Newest, Oldest, Sampled, survive
from tests.fakes.disktree import Tree, top_of


class DiskState:
    """Of everything that went through `disk.DiskOs`, what is durable. Its caller lets in one thread at a time."""

    def __init__(self, reality: Reality = ANY_ORDER, seed: int = 0) -> None:
        self.reality = reality
        self._chance = random.Random(f"disk {seed}")
        self._nodes: dict[tuple[int, int], Node] = {}
        self._names: list[NameChange] = []
        self._count = 0
        self._newest: Node | NameChange | None = None  # what changed last

    # What happens to files. A method whose name ends with _before is called before the file changes.

    def write_before(self, descriptor: int) -> Node | None:
        """None if it is no file or device."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISBLK(found.st_mode):
            return None
        node = self._node(f"/proc/self/fd/{descriptor}")
        if node.medium is None:
            node.medium = node.cached()
        self._newest = node
        return node

    def sync(self, descriptor: int) -> None:
        """Of a file what it holds; of a directory its names."""
        node = self._known(descriptor)
        if node is None:
            return
        if stat.S_ISDIR(node.mode):
            self._keep([change for change in self._names if any(entry[0] is node for entry in change.entries)])
        else:
            self._sync_file(node)
        self._forget_clean()

    def fail_sync(self, descriptor: int, share: float | None = None) -> None:
        """Some of what was dirty got to the device; the other is dropped, and the kernel holds all for written.

        ext4 and XFS do that since Linux 4.13: the next sync succeeds. Direct writes were at the device before.
        """
        node = self._known(descriptor)
        if node is None or stat.S_ISDIR(node.mode) or node.medium is None:
            return
        last: dict[int, Write] = {}
        for change in node.changes:
            if isinstance(change, Write):
                last.update((sector, change) for sector in sectors_of(change.offset, len(change.data)))
        share = self._chance.choice([0.5, 1.0]) if share is None else share
        for sector, change in sorted(last.items(), key=lambda item: item[0]):
            if not change.is_direct and self._chance.random() < share:
                node.dropped.add(sector)
        node.changes = [part for change in node.changes for part in without(change, node.dropped)]

    def evict(self, descriptor: int, offset: int = 0, length: int = 0) -> None:
        """Read from the medium what the cache forgets: clean sectors that were dropped become what the medium has."""
        node = self._known(descriptor)
        if node is not None and node.dropped:
            self._evict(node, node.dropped.intersection(sectors_of(offset, length)) if length else node.dropped)
            self._forget_clean()

    def evict_all(self) -> None:
        for node in self._nodes.values():
            if node.dropped:
                self._evict(node, node.dropped)
        self._forget_clean()

    def _evict(self, node: Node, wanted: set[int]) -> None:
        size, medium = len(node.cached()), node.medium or b""
        with open(f"/proc/self/fd/{node.descriptor}", "r+b", buffering=0) as file:
            for sector in sorted(wanted):
                start, end = sector * SECTOR, min(sector * SECTOR + SECTOR, size)
                os.pwrite(file.fileno(), medium[start:end].ljust(max(0, end - start), b"\0"), start)
        node.dropped = node.dropped - wanted
        if not node.dropped and not node.changes:
            self._clean(node)

    # What happens to names.

    def name_before(self, path: str) -> Node | None:
        """What a name leads to now, before it leads elsewhere."""
        return self._node(path) if os.path.lexists(path) else None

    def named(self, path: str, before: Node | None, after: Node | None) -> None:
        inside = {change for change in self._names if any(entry[0] is before for entry in change.entries)}
        self._change([(*self._place(path), before, after)], inside)

    def renamed(self, source: str, target: str, moved: Node, replaced: Node | None) -> None:
        if moved is replaced:
            return
        gone, come = (*self._place(source), moved, None), (*self._place(target), replaced, moved)
        if self.reality.split_renames and gone[0] is not come[0] and not stat.S_ISDIR(moved.mode):
            self._change([gone], {self._change([come])})
        else:
            self._change([gone, come])

    def _change(
        self, entries: list[tuple[Node, str, Node | None, Node | None]], needs: set[NameChange] | None = None
    ) -> NameChange:
        places = {entry[:2] for entry in entries}
        earlier = {each for each in self._names if any(entry[:2] in places for entry in each.entries)}
        change = NameChange(tuple(entries), earlier | (needs or set()))
        self._names.append(change)
        self._newest = change
        return change

    # What is asked of it.

    @property
    def has_dropped(self) -> bool:
        """Whether the cache of some file has what the medium never will."""
        return any(node.dropped for node in list(self._nodes.values()))

    def dirty(self) -> dict[str, bytes]:
        """What the medium has of each file that is not durable, by its path."""
        found = {}
        for node in self._nodes.values():
            if node.medium is not None and (node.changes or node.dropped) and (path := node.path()):
                found[path] = node.medium
        return found

    def medium(self, path: str) -> bytes:
        """The bytes of a file that no power cut can lose."""
        with open(path, "rb") as file:
            node = self._known(file.fileno())
            return file.read() if node is None or node.medium is None else node.medium

    def name_count(self) -> int:
        """How many changes of names are not durable."""
        return len(self._names)

    def operation_count(self) -> int:
        """How many operations are not durable: writes, resizes, and changes of names."""
        return len(self._names) + sum(len(node.changes) for node in self._nodes.values())

    def survivors(self, chance: random.Random) -> Survivors:
        """One of the states that may survive."""
        return self.decided_by(Sampled(chance))

    def oldest(self) -> Survivors:
        """The state of which nothing survives that was not synced."""
        return self.decided_by(Oldest())

    def newest_alone(self) -> Survivors:
        """The state of which, of all that was not synced, the newest change of a name or file alone survives.

        It shows best what came before something that it should have come after.
        """
        kept = [self._newest] if isinstance(self._newest, NameChange) and self._newest in self._names else []
        for change in kept:
            kept += [each for each in change.needs if each not in kept]
        lost = [change for change in self._names if change not in kept]
        contents = {}
        for node in self._nodes.values():
            if node.medium is not None:
                chooser = Newest() if node is self._newest else Oldest()
                contents[node] = survive(node.medium, node.changes, chooser, node.dropped)
        return Survivors(tuple(lost), contents)

    def every_survivor(self, most: int) -> Iterator[Survivors]:
        """All of them.

        Raises:
            OverflowError: after `most` of them there is another.
        """
        chooser = Enumerated()
        for _ in range(most):
            yield self.decided_by(chooser)
            if not chooser.advance():
                return
        raise OverflowError(f"more than {most} states may survive")

    def keep(self, wanted: Callable[[str], bool]) -> None:
        """What has such a path is durable."""
        for node in self._nodes.values():
            if (path := node.path()) and wanted(path):
                self._clean(node)
        self._names = [
            change for change in self._names if not any(wanted(entry[0].path() or "") for entry in change.entries)
        ]
        self._forget_clean()

    def cut(self, survivors: Survivors) -> None:
        """Let the real files become that state, which is durable."""
        where = {node: path for node in self._nodes.values() if (path := node.path())}
        directories = [where[entry[0]] for change in survivors.lost for entry in change.entries if entry[0] in where]
        Tree(where, top_of(min(directories, key=len)) if directories else None).become(survivors)
        self.close()

    def copy(self, root: str, into: str, survivors: Survivors) -> None:
        """Make of the directory `root` a copy as that state has it; here nothing changes."""
        shutil.copytree(root, into, symlinks=True)
        where = {}
        for node in self._nodes.values():
            if (path := node.path()) and (path == root or path.startswith(f"{root}/")):
                where[node] = into + path[len(root) :]
        Tree(where, os.path.dirname(into)).become(survivors)

    def close(self) -> None:
        """Hold all for durable."""
        self._names = []
        for node in self._nodes.values():
            self._clean(node)
        self._forget_clean()

    def __del__(self) -> None:
        self.close()

    # Below, the ways to decide and to find.

    def decided_by(self, chooser: Chooser) -> Survivors:
        """The state that this leaves of what may survive."""
        lost: list[NameChange] = []
        chooser.turn()
        in_order = self.reality.in_order or chooser.is_in_order()
        for change in self._names:
            if (in_order and lost) or not change.needs.isdisjoint(lost) or not chooser.keeps():
                lost.append(change)
        contents = {}
        for node in sorted(self._nodes.values(), key=lambda node: node.number):
            if node.medium is not None:
                chooser.turn()
                contents[node] = survive(node.medium, node.changes, chooser, node.dropped)
        return Survivors(tuple(lost), contents)

    def _sync_file(self, node: Node) -> None:
        names = [change for change in self._names if any(entry[3] is node for entry in change.entries)]
        has_grown = any(isinstance(change, Resize) or change.end > len(node.medium or b"") for change in node.changes)
        if self.reality.in_order and (names or has_grown):
            self._names = []
        elif self.reality.sync_keeps_name:
            self._keep(names)
        if not node.dropped:
            self._clean(node)
            return
        now, old = bytearray(node.cached()), node.medium or b""
        for sector in node.dropped:
            place = slice(sector * SECTOR, min(sector * SECTOR + SECTOR, len(now)))
            now[place] = old[place].ljust(max(0, place.stop - place.start), b"\0")
        node.medium, node.changes = bytes(now), []

    def _clean(self, node: Node) -> None:
        node.medium, node.changes, node.dropped = None, [], set()

    def _keep(self, changes: list[NameChange]) -> None:
        """These are durable, and so is what they need."""
        kept: set[NameChange] = set()
        while changes:
            change = changes.pop()
            if change not in kept:
                kept.add(change)
                changes += change.needs
        self._names = [change for change in self._names if change not in kept]
        for change in self._names:
            change.needs -= kept

    def _known(self, descriptor: int) -> Node | None:
        found = os.fstat(descriptor)
        return self._nodes.get((found.st_dev, found.st_ino))

    def _place(self, path: str) -> tuple[Node, str]:
        directory, name = os.path.split(path.rstrip("/"))
        return self._node(os.path.realpath(directory or ".")), name

    def _node(self, path: str) -> Node:
        """What is there; the last link of a path is followed only if it is one of /proc."""
        follow = path.startswith("/proc/self/fd/")
        found = os.stat(path, follow_symlinks=follow)
        key = (found.st_dev, found.st_ino)
        if key not in self._nodes:
            link = os.readlink(path) if stat.S_ISLNK(found.st_mode) else None
            can_read = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or stat.S_ISBLK(found.st_mode)
            flags = (os.O_RDONLY if can_read else os.O_PATH) | (0 if follow else os.O_NOFOLLOW)
            opened = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
            self._count += 1
            owner = (found.st_uid, found.st_gid)
            self._nodes[key] = Node(self._count, key, opened, found.st_mode, owner, link)
        return self._nodes[key]

    def _forget_clean(self) -> None:
        named = {node for change in self._names for entry in change.entries for node in (entry[0], *entry[2:])}
        for key, node in list(self._nodes.items()):
            if node.medium is None and node not in named:
                os.close(node.descriptor)
                del self._nodes[key]
