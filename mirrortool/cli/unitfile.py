"""The text of a systemd unit: what a service needs, as the settings that give it that and nothing else.

Source: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.resource-control(5), systemd.syntax(7).
Not here: what a command line needs (unit.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mirrortool import files
from mirrortool.errors import UsageError

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./$-]+")
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")
_GUESTS = "libvirtd.service virtqemud.service libvirt-guests.service"

STOP_TIMEOUT = "10min"
"""A clean stop writes everything back: 128 MiB of single pages take some minutes on a disk."""
OPEN_FILES = 65536


@dataclass(slots=True)
class Needs:
    """What a service needs of its host; paths from the root.

    Attributes:
        writes, reads: directories.
        program: directories that hold it and its interpreter.
        devices: block devices that it writes.
        runtime: directories below /run that exist while it runs, relative to that.
        network: to listen, or to connect.
        low_port: to listen at a port below 1024.
        flushes_devices: to drop what the kernel caches of a device.
        runs_ssh: a program that reads the user's home.
        runs_anything: commands of the user's own.
        serves_guests: disks of virtual machines, so it starts before them and ends after them.
    """

    writes: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    program: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    runtime: set[str] = field(default_factory=set)
    network: bool = False
    low_port: bool = False
    flushes_devices: bool = False
    runs_ssh: bool = False
    runs_anything: bool = False
    serves_guests: bool = False


@dataclass(frozen=True, slots=True)
class Unit:
    """A service.

    Attributes:
        name: of the unit, without .service.
        title: what it is, in a line.
        manual: of the command.
        words: the command line, with the program's path.
        user: it runs as this user; None for root.
        final_codes: exit codes after which a restart does not help.
        restart_seconds: between an end and the next start.
        made: directories that it makes before each start if they are missing.
    """

    name: str
    title: str
    manual: str
    words: Sequence[str]
    user: str | None
    final_codes: Sequence[int]
    restart_seconds: int
    needs: Needs
    made: Sequence[str] = ()

    def text(self) -> str:
        """The file.

        Raises:
            UsageError: a word of the command line cannot be in a unit.
        """
        sections = {"Unit": self._unit(), "Service": self._service(), "Install": ["WantedBy=multi-user.target"]}
        return "\n".join("\n".join([f"[{name}]", *lines, ""]) for name, lines in sections.items())

    def _unit(self) -> Iterator[str]:
        needs = self.needs
        # No Documentation=: systemd-analyze complains where the manual pages are not installed.
        yield f"# See {self.manual}(1) and mirrortool-unit(1)."
        yield f"Description={_checked(self.title).replace('%', '%%')}"
        yield from _list("RequiresMountsFor", needs.writes | needs.reads)
        if needs.network:
            yield "Wants=network-online.target"
            yield "After=network-online.target"
        if needs.serves_guests:
            yield f"Before={_GUESTS}"
        yield "StartLimitIntervalSec=0"

    def _service(self) -> Iterator[str]:
        program, *arguments = self.words
        yield "Type=notify"
        yield "NotifyAccess=main"
        if self.made:  # with +, outside of what the unit sees of the host
            words = "/bin/sh", "-c", self._make_directories(), "sh", *self.made
            yield f"ExecStartPre=+{' '.join(map(argument_word, words))}"
        yield " ".join([f"ExecStart={path_word(program)}", *map(argument_word, arguments)])
        if self.user:
            yield f"User={self.user}"
        yield "Restart=on-failure"
        yield f"RestartSec={self.restart_seconds}"
        yield f"RestartPreventExitStatus={' '.join(map(str, self.final_codes))}"
        yield "SuccessExitStatus=129 130 131 143"
        yield "TimeoutStartSec=infinity"
        yield f"TimeoutStopSec={STOP_TIMEOUT}"
        yield "KillMode=mixed"
        yield "KillSignal=SIGTERM"
        yield f"LimitNOFILE={OPEN_FILES}"
        yield f"SyslogIdentifier={self.name}"
        yield from self._runtime()
        if self.needs.runs_anything:
            yield "# Commands of --before and --after need the host as it is: nothing of it is hidden or forbidden."
        else:
            yield from self._confinement()

    def _make_directories(self) -> str:
        """Make those that are missing; the others stay as they are."""
        owner = f"-o {self.user} " if self.user else ""
        return f'for path; do test -d "$path" || install -d -m 0700 {owner}"$path" || exit; done'

    def _runtime(self) -> Iterator[str]:
        if self.needs.runtime:
            yield from _list("RuntimeDirectory", self.needs.runtime)
            # Another unit may have its socket there, too.
            yield "RuntimeDirectoryPreserve=yes"

    def _confinement(self) -> Iterator[str]:
        needs = self.needs
        paths = needs.writes | needs.reads | needs.program
        yield "UMask=0027"
        yield "NoNewPrivileges=yes"
        yield "ProtectSystem=strict"
        # With -, the command reports one that is gone, and not systemd with 226/NAMESPACE.
        yield from _list("ReadWritePaths", (f"-{path}" for path in _outermost(needs.writes)))
        if needs.devices and needs.flushes_devices and not self.user:  # a mirror's devices are registered there
            yield "StateDirectory=mirrortool"
            yield "StateDirectoryMode=0700"
        yield f"ProtectHome={'read-only' if needs.runs_ssh or _any_below(paths, _HOMES) else 'yes'}"
        yield f"PrivateTmp={'no' if _any_below(paths, _TEMPORARY) else 'yes'}"
        yield from self._devices()
        yield from self._capabilities()
        yield f"RestrictAddressFamilies=AF_UNIX{' AF_INET AF_INET6 AF_NETLINK' if needs.network else ''}"
        for name in ("Clock", "ControlGroups", "Hostname", "KernelLogs", "KernelModules", "KernelTunables"):
            yield f"Protect{name}=yes"
        yield "ProtectProc=invisible"
        for name in ("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality"):
            yield f"{name}=yes"
        yield "SystemCallArchitectures=native"
        yield "SystemCallFilter=@system-service"
        yield "SystemCallErrorNumber=EPERM"

    def _devices(self) -> Iterator[str]:
        if not self.needs.devices:
            yield "PrivateDevices=yes"
            return
        yield "DevicePolicy=closed"
        for path in sorted(self.needs.devices):
            yield f"DeviceAllow={path_word(path)} rw"

    def _capabilities(self) -> Iterator[str]:
        port = ["CAP_NET_BIND_SERVICE"] * self.needs.low_port
        if self.user:
            yield f"CapabilityBoundingSet={' '.join(port)}"
            yield from (f"AmbientCapabilities={name}" for name in port)
            return
        # Volumes and journals may belong to anybody, and a socket is given to its group.
        names = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", *port]
        if self.needs.flushes_devices and self.needs.devices:
            names.append("CAP_SYS_ADMIN")
        yield f"CapabilityBoundingSet={' '.join(names)}"


def argument_word(text: str) -> str:
    """A word of ExecStart= after the program, exactly this text: variables and specifiers are escaped."""
    return _quoted(_checked(text).replace("%", "%%").replace("$", "$$"))


def path_word(text: str) -> str:
    """A path, or the program of ExecStart=, where $ is no variable."""
    return _quoted(_checked(text).replace("%", "%%"))


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _checked(text: str) -> str:
    """Text that a line of a unit can hold: UTF-8 without control characters.

    Raises:
        UsageError: it is not such text.
    """
    if not text.isprintable():
        raise UsageError(f"{text!r} cannot be in a unit", remedy="choose a name of printable characters")
    return text


def _list(name: str, paths: Iterable[str]) -> Iterator[str]:
    words = [path_word(path) for path in sorted(paths)]
    if words:
        yield f"{name}={' '.join(words)}"


def _outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie in another one."""
    found = set(paths)
    return [path for path in found if not _any_below([path], found - {path})]


def _any_below(paths: Iterable[str], directories: Iterable[str]) -> bool:
    """Whether a path is one of these directories or lies in one, by its name or by where that leads."""
    tops = [files.join(directory, "") for directory in directories]
    places = [files.join(each, "") for path in paths for each in (path, files.real(path))]
    return any(place.startswith(top) for place in places for top in tops)
