"""Real files become a state that a power cut left (diskstate.py)."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile

from tests.fakes.disknodes import SECTOR, Node, Survivors


def top_of(path: str) -> str:
    """The directory highest above, in the same file system, that one may write in, but not the root itself."""
    device = os.stat(path).st_dev
    while (above := os.path.dirname(path)) != "/" and os.stat(above).st_dev == device and os.access(above, os.W_OK):
        path = above
    return path


class Tree:
    """Real files that become a state: `where` says where each node is, or is no more."""

    def __init__(self, where: dict[Node, str], top: str | None) -> None:
        self._where, self._top = where, top

    def become(self, survivors: Survivors) -> None:
        wanted: dict[tuple[Node, str], Node | None] = {}
        for change in reversed(survivors.lost):
            for directory, name, before, _ in change.entries:
                wanted[directory, name] = before
        if wanted and self._top:
            with tempfile.TemporaryDirectory(dir=self._top, prefix="lost-") as aside:
                for number, (directory, name) in enumerate(wanted):
                    self._put_aside(directory, name, f"{aside}/{number}")
                self._put_back(wanted, aside, survivors.contents)
                self._where = {node: path for node, path in self._where.items() if not path.startswith(f"{aside}/")}
        for node, content in survivors.contents.items():
            if node in self._where:
                _rewrite(self._where[node], content)

    def _put_aside(self, directory: Node, name: str, aside: str) -> None:
        if directory in self._where and os.path.lexists(path := os.path.join(self._where[directory], name)):
            self._move(path, aside)

    def _put_back(self, wanted: dict[tuple[Node, str], Node | None], aside: str, contents: dict[Node, bytes]) -> None:
        """Directories first, as others go into them; what is in none that is left stays lost."""
        left = [(directory, name, node) for (directory, name), node in wanted.items() if node]
        while ready := [each for each in left if each[0] in self._where]:
            for each in ready:
                directory, name, node = each
                left.remove(each)
                target, now = os.path.join(self._where[directory], name), self._where.get(node)
                if now is None:
                    _make(node, target, contents)
                    self._where[node] = target
                elif now.startswith(f"{aside}/"):
                    self._move(now, target)
                else:
                    os.link(now, target, follow_symlinks=False)

    def _move(self, source: str, target: str) -> None:
        os.rename(source, target)
        for node, path in self._where.items():
            if path == source or path.startswith(f"{source}/"):
                self._where[node] = target + path[len(source) :]


def _make(node: Node, path: str, contents: dict[Node, bytes]) -> None:
    """Bring back what was removed."""
    if node.link is not None:
        os.symlink(node.link, path)
        return
    if stat.S_ISDIR(node.mode):
        os.mkdir(path)
    elif stat.S_ISREG(node.mode):
        with open(path, "wb") as file:
            file.write(contents[node] if node in contents else node.cached())
    else:
        return
    os.chmod(path, stat.S_IMODE(node.mode))
    with contextlib.suppress(PermissionError):
        os.chown(path, *node.owner)


def _rewrite(path: str, content: bytes) -> None:
    """Change only what differs, so that holes and times stay otherwise."""
    with open(path, "r+b", buffering=0) as file:
        old = file.read()
        for start in range(0, len(content), SECTOR):
            part = content[start : start + SECTOR]
            if part != old[start : start + SECTOR]:
                os.pwrite(file.fileno(), part, start)
        if len(content) != len(old):
            file.truncate(len(content))
