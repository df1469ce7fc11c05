"""`mirrortool unit`: a systemd unit for a command line, which is checked as the command itself checks it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
import xxhash
from click.shell_completion import CompletionItem

import mirrortool
from mirrortool import files, hostinfo
from mirrortool.cli.jsonoutput import print_json
from mirrortool.cli.options import BACK, DIRECTORY, FILE, NAMED_PATH, PathName, Value, as_json, parse_back, quiet
from mirrortool.cli.services import SERVICES
from mirrortool.cli.text import quoted, tell
from mirrortool.cli.unitfile import Needs, Unit
from mirrortool.errors import UsageError
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.nbdplace import NbdPlace
from mirrortool.nbd.uri import NbdUri, is_nbd_uri, parse_uri
from mirrortool.sockets.addresses import TcpAddress, UnixAddress, parse_address

LOW_PORTS = range(1, 1024)
_NAME_CHARACTERS_MAX = 100


def _parse_unit_name(text: str) -> str:
    name = text.removesuffix(".service")
    if not re.fullmatch(r"[A-Za-z0-9:_.@-]{1,200}", name):
        raise ValueError(f"{text!r} is not a name of a unit, such as mirrortool-vm")
    return name


def _parse_user(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}|[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is not a user's name")
    return text


class _UnitCommand(click.Command):
    """After the name of a command, its own options are completed."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        name = ctx.params.get("name")
        if name not in _names(ctx):
            return super().shell_complete(ctx, incomplete)
        command = _command(ctx, name)
        return command.shell_complete(command.make_context(name, [], resilient_parsing=True), incomplete)


def _complete_name(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in _names(ctx) if name.startswith(incomplete)]


def _complete_argument(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


@click.command("unit", cls=_UnitCommand, context_settings={"allow_interspersed_args": False})
@click.argument("name", metavar="COMMAND", shell_complete=_complete_name)
@click.argument(
    "arguments", metavar="ARGUMENTS...", nargs=-1, type=click.UNPROCESSED, shell_complete=_complete_argument
)
@click.option("--user-name", type=Value("user", _parse_user), metavar="USER", help="Run as this user.  [default: root]")
@click.option(
    "--name", "unit_name", type=Value("name", _parse_unit_name), metavar="NAME",
    help="Name of the unit.  [default: mirrortool-COMMAND- and the path]",
)  # fmt: skip
@as_json
@quiet
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    arguments: tuple[str, ...],
    user_name: str | None,
    unit_name: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print a systemd unit that runs `mirrortool COMMAND ARGUMENTS...`; record, replay and ship can be services.

    The options of unit itself stand before COMMAND.
    """
    if name not in _names(ctx):
        raise UsageError(
            f"{name!r} is not a command that can be a service", remedy=f"choose {' or '.join(_names(ctx))}"
        )
    service = SERVICES[name]
    line = _CommandLine(_command(ctx, name), name, [*(service.options if service.is_added else ()), *arguments])
    if not any(line.values[each.removeprefix("--")] for each in service.options):
        raise UsageError(f"a service runs until it is stopped: give {' or '.join(service.options)}")
    if line.values.get("replace_slot"):
        raise UsageError("--replace-slot is for one start: a service would do it at each start")
    needs = _needs(line)
    codes = service.final_codes
    if needs.network and name == "record":  # an address that this host does not have yet ends with 2, too
        codes = codes[1:]
    program = _program()
    title = f"mirrortool {name} {line.values['journal']}"
    made = [path for path in sorted(needs.writes) if not files.is_directory(path)]
    unit = Unit(
        unit_name or _unit_name(name, line), title, f"mirrortool-{name}", [*program, name, *line.words], user_name,
        codes, service.restart_seconds, needs, made,
    )  # fmt: skip
    if as_json:
        values = {"name": unit.name, "path": _path_of(unit), "makes": unit.made, "text": unit.text()}
        print_json(values)
    else:
        click.echo(unit.text(), nl=False)
    if not quiet:
        _tell_steps(unit)


def _path_of(unit: Unit) -> str:
    return f"/etc/systemd/system/{unit.name}.service"


def _tell_steps(unit: Unit) -> None:
    if unit.made:
        tell(f"the unit makes {' '.join(map(quoted, unit.made))}")
    tell(f"next: put this into {_path_of(unit)}; systemctl daemon-reload && systemctl enable --now {unit.name}")


def _unit_name(name: str, line: _CommandLine) -> str:
    """A name that no other journal, mirror or destination gives: made of the path, as far as it fits into names."""
    about = [line.values.get("mirror") or line.values["journal"], *line.destinations]
    plain = "-".join(path.strip("/").replace("/", "-") for path in about)
    shown = re.sub(r"[^A-Za-z0-9_.-]", "_", plain)
    if len(about) > 1 or shown != plain or re.search("-", "".join(about)) or len(shown) > _NAME_CHARACTERS_MAX:
        short = xxhash.xxh32_hexdigest("\0".join(map(files.portable_path, about)).encode("utf-8", "surrogateescape"))
        shown = f"{shown[-_NAME_CHARACTERS_MAX:].lstrip('-._')}-{short}"
    return f"mirrortool-{name}-{shown}"


def _names(ctx: click.Context) -> list[str]:
    root = ctx.find_root().command
    known = root.list_commands(ctx) if isinstance(root, click.Group) else []
    return [name for name, rules in SERVICES.items() if rules.has_unit and name in known]


def _command(ctx: click.Context, name: str) -> click.Command:
    """The command, which ignores our environment: a service has another one."""
    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    found = root.get_command(ctx, name)
    assert found is not None
    for parameter in found.params:
        parameter.envvar = None
    return found


class _CommandLine:
    """A command's arguments and options: the words, with every path from the root, and what they mean.

    Attributes:
        values: by the names of the parameters, as the command would have them, but for paths.
        words: the same command line once more.
    """

    def __init__(self, command: click.Command, name: str, arguments: Sequence[str]) -> None:
        """Parse and check them.

        Raises:
            click.UsageError, UsageError: as the command would.
        """
        context = command.make_context(f"mirrortool {name}", list(arguments))
        module = importlib.import_module(f"mirrortool.cli.{name}")
        check = getattr(module, "check_options", None)  # of commands whose options have rules among them
        if check:
            check(context.params)
        raw, _, _ = command.make_parser(context).parse_args(list(arguments))
        self.command = command
        self.values: dict[str, Any] = dict(context.params)
        self.words: list[str] = []
        for parameter in command.params:
            given = raw.get(parameter.name or "")
            self._add(parameter, given if isinstance(given, list | tuple) else [given])

    def _add(self, parameter: click.Parameter, given: Sequence[Any]) -> None:
        texts = [_from_root(parameter, text) if isinstance(text, str) else text for text in given]
        for text in texts:
            if not isinstance(text, str):
                self.words += [parameter.opts[-1]] if text is True else []
            elif isinstance(parameter, click.Argument):
                self.words.append(text)
            else:
                self.words += [parameter.opts[-1], text]
        kept = [text for text in texts if isinstance(text, str)]
        if kept:
            is_many = parameter.nargs != 1 or parameter.multiple
            self.values[parameter.name or ""] = kept if is_many else kept[0]

    def given(self, kind: click.ParamType[Any], *, is_argument: bool) -> Iterator[str]:
        """The texts of arguments, or of options, of a type."""
        for parameter in self.command.params:
            value = self.values[parameter.name or ""]
            if parameter.type is kind and isinstance(parameter, click.Argument) == is_argument and value:
                yield from [value] if isinstance(value, str) else value

    @property
    def destinations(self) -> Sequence[str]:
        """The destinations of ship."""
        for parameter in self.command.params:
            if _is_destination(parameter):
                value = self.values[parameter.name or ""]
                return [value] if isinstance(value, str) else list(value)
        return []


def _is_destination(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument) and parameter.human_readable_name.startswith("DEST")


def _is_remote(destination: str) -> bool:
    """[user@]host:path, or a URL."""
    return ":" in destination.partition("/")[0]


def _from_root(parameter: click.Parameter, text: str) -> str:
    """The same with every path from the root, as a service has another current directory.

    Raises:
        UsageError: a service cannot have that.
    """
    if _is_destination(parameter):
        if text == "-":
            raise UsageError("a service has no pipe to ship to", remedy="name a directory or a host")
        return text if _is_remote(text) else files.absolute(text)
    if parameter.name == "nbd":
        address = parse_address(text)
        return str(UnixAddress(files.absolute(address.path)) if isinstance(address, UnixAddress) else address)
    if isinstance(parameter.type, PathName):
        return files.absolute(text)
    if parameter.type is NAMED_PATH:
        name, _, path = text.partition("=")
        return text if is_nbd_uri(path) else f"{name}={files.absolute(path)}"
    if parameter.type is BACK:
        return f"{files.absolute(parse_back(text).path)}{text.removeprefix(parse_back(text).path)}"
    return text


def _program() -> list[str]:
    """How this very program is started."""
    script = files.absolute(sys.argv[0])
    facts = files.find_facts(script)
    if files.base_name(script) == "mirrortool" and facts and facts.kind == "file":
        return [script]
    return [sys.executable, "-m", "mirrortool"]


def _needs(line: _CommandLine) -> Needs:
    needs = Needs()
    needs.program |= {files.absolute(path) for path in (sys.prefix, sys.base_prefix, *mirrortool.__path__)}
    needs.writes |= {path for path in line.given(DIRECTORY, is_argument=True) if not _is_remote(path)}
    needs.writes |= {files.parent(path) for path in line.given(FILE, is_argument=False)}
    needs.reads |= set(line.given(DIRECTORY, is_argument=False))
    for address in line.values.get("nbd") or ():
        _need_address(needs, address)
    for destination in line.destinations:
        if _is_remote(destination):
            needs.network = needs.runs_ssh = True
        else:
            needs.writes.add(destination)
    for path in _volumes(line):
        _need_volume(needs, path)
    for uri in _exports(line):
        _need_server(needs, uri)
    needs.flushes_devices = "mirror" in line.values
    needs.runs_anything = bool(line.values.get("before") or line.values.get("after"))
    needs.serves_guests = bool(line.values.get("nbd"))
    return needs


def _need_address(needs: Needs, text: str) -> None:
    address = parse_address(text)
    if isinstance(address, TcpAddress):
        needs.network = True
        needs.low_port |= address.port in LOW_PORTS
        return
    directory = files.parent(address.path)
    below = directory.removeprefix("/var").removeprefix("/run/")
    is_ours = below.startswith("mirrortool") or not files.exists(files.join("/run", below.partition("/")[0]))
    # A directory of another program, such as libvirt, must not become ours.
    if directory.startswith(("/run/", "/var/run/")) and is_ours:
        needs.runtime.add(below)
    else:
        needs.writes.add(directory)


def _need_volume(needs: Needs, path: str) -> None:
    """A device, or the directory of a file: it may be replaced by another of its name, as a backup is restored."""
    facts = files.find_facts(path)
    if (facts and facts.kind == "block device") or hostinfo.is_among_devices(path):
        needs.devices.add(path)
    else:
        needs.writes.add(files.parent(path))


def _need_server(needs: Needs, uri: NbdUri) -> None:
    """To connect to a socket its directory must be seen, and no more; certificates are read."""
    if isinstance(uri.address, TcpAddress):
        needs.network = True
    else:
        needs.reads.add(files.parent(uri.address.path))
    if uri.certificates:
        needs.reads.add(uri.certificates)


def _exports(line: _CommandLine) -> Iterator[NbdUri]:
    """The exports of NBD servers in which a mirror has volumes, or is to have them."""
    targets = (named.partition("=")[2] for named in line.given(NAMED_PATH, is_argument=False))
    yield from (parse_uri(target) for target in targets if is_nbd_uri(target))
    mirror = line.values.get("mirror")
    if mirror is not None and files.exists(files.join(mirror, "mirror.json")):
        yield from (kept.place.uri for kept in Mirror(mirror).kept if isinstance(kept.place, NbdPlace))


def _volumes(line: _CommandLine) -> Iterator[str]:
    """The paths of the volumes: those that the options name, and those that journal or mirror know.

    Raises:
        NotAJournalError, NotAMirrorError: it knows none, because it is not a journal or mirror.
    """
    for named in line.given(NAMED_PATH, is_argument=False):
        target = named.partition("=")[2]
        if not is_nbd_uri(target):
            yield target
    yield from (parse_back(text).path for text in line.given(BACK, is_argument=False))
    mirror = line.values.get("mirror")
    if mirror is None and not line.destinations:
        yield from map(files.absolute, Journal(line.values["journal"]).volume_paths().values())
    elif mirror is not None and files.exists(files.join(mirror, "mirror.json")):
        yield from (holder.path for holder in Mirror(mirror).holders())
