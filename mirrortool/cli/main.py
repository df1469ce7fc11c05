"""The program: finds a command, runs it, and turns whatever it ends with into one line and an exit code.

Rule: `--help` and completion import neither rich nor watchdog, so that a TAB costs little; each command's module is
imported when it is asked for.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from keyword import iskeyword
from typing import NoReturn

import click

from mirrortool.cli import startupsignals
from mirrortool.cli.signals import answering, ignore_questions, interrupt, number_of, was_interrupted
from mirrortool.cli.text import printable, tell
from mirrortool.cli.variables import tell_unknown
from mirrortool.cli.workthread import Interrupted
from mirrortool.errors import ExhaustedError, HostError, MirrortoolError, host_error
from mirrortool.processsettings import allow_open_files

EXIT_BUG = 70

COMMANDS = {
    "init": "Make a journal for volumes.",
    "record": "Journal what changed in the volumes since the last record.",
    "import": "Journal the operations in a log of dm-log-writes, QEMU or fio.",
    "replay": "Bring a mirror up to a commit of its journal.",
    "ship": "Send a journal to other hosts, as it grows.",
    "receive": "Receive a journal that another host ships.",
    "verify": "Prove, page by page, that a mirror or journal is right.",
    "serve": "Show volumes as they were at any commit to NBD clients, without a copy.",
    "export": "Write a volume as it was at any commit into a file.",
    "diff": "Print which bytes of a volume differ between two commits.",
    "promote": "Make a mirror the primary, when the old one has died.",
    "status": "Show how journals and mirrors stand.",
    "log": "List the commits of a journal.",
    "mark": "Give the newest commit a name.",
    "base": "Write a whole committed state into one file, so that older journal files can be removed.",
    "prune": "Remove the journal files that are no longer needed.",
    "backing": "List, add, drain and remove the disks that a mirror's volumes lie on.",
    "slot": "List the readers of a journal, and remove those that are gone.",
    "volume": "Say where the volumes of a journal are now.",
    "unit": "Print a systemd unit for a command that runs until stopped.",
    "trace": "Prove from a trace of a replay that its order was right, and sum it up.",
    "bench": "Measure how much faster groups of tasks replay.",
    "demo": "Show it all: mirror a small volume, kill the replay, and prove the result.",
    "completion": "Print the shell's completion script.",
}


def _without_environment(option: click.Option | None) -> click.Option | None:
    """MIRRORTOOL_HELP must not turn every command into its help."""
    if option:
        option.allow_from_autoenv = False
    return option


def _name_variables(name: str, command: click.Command) -> None:
    """MIRRORTOOL_<COMMAND>_<OPTION> for each option, by the name that the manual gives it.

    Of a command with commands of its own: MIRRORTOOL_<COMMAND>_<ITS COMMAND>_<OPTION>.
    """
    for own, inner in getattr(command, "commands", {}).items():
        _without_environment(inner.get_help_option(click.Context(inner)))
        _name_variables(f"{name}_{own}", inner)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            option = parameter.opts[-1].lstrip("-").replace("-", "_")
            parameter.envvar = f"MIRRORTOOL_{name}_{option}".upper()


class Commands(click.Group):
    """The commands by name, each imported from its own module when it is needed."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return _without_environment(super().get_help_option(ctx))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mirrortool.cli.{cmd_name}{'_' * iskeyword(cmd_name)}")
        command: click.Command = module.command
        _without_environment(command.get_help_option(ctx))
        _name_variables(cmd_name, command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MIRRORTOOL"},
    invoke_without_command=True,
)
@click.version_option(
    package_name="mirrortool", prog_name="mirrortool", message="%(prog)s %(version)s", allow_from_autoenv=False
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Mirror disks and disk images through a journal, and prove that the mirror is right.

    \b
    mirrortool init JOURNAL disk=PATH     name the volume
    mirrortool record JOURNAL             journal its content, then each time what changed
    mirrortool replay JOURNAL MIRROR      bring the mirror up to it
    mirrortool verify MIRROR              prove it

    mirrortool(1) explains the whole, mirrortool-COMMAND(1) each command.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run() -> NoReturn:
    """The entry point: mirrortool's exit code is the process's."""
    if startupsignals.is_long_running(sys.argv[1:]):
        startupsignals.unwind()
    else:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # see __main__.py
        interrupt()
    allow_open_files()
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 shows escapes
    with answering(f"{_named(sys.argv[1:])} is running, and has no progress to show now"):
        code = main(sys.argv[1:])
    ignore_questions()
    if not _flush_streams():
        os._exit(code)  # the interpreter would try again, complain, and end with a code of its own
    sys.exit(code)


def _named(arguments: Sequence[str]) -> str:
    """The command, if these begin with one."""
    return arguments[0] if arguments and arguments[0] in COMMANDS else "it"


def _open_closed_streams() -> None:
    """Output to a stream that the caller closed is dropped, instead of going into the first file that we open."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: the one that was closed
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def _flush_streams() -> bool:
    """Write out what the streams still hold; whether that worked.

    Where it did not, main has reported it already, if it matters: what is left is what could not be written.
    """
    is_empty = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            is_empty = False
    return is_empty


def main(arguments: Sequence[str]) -> int:
    """Run the program; returns its exit code (mirrortool(1), EXIT STATUS)."""
    try:
        code = _run_command(arguments)
        sys.stdout.flush()
        return code
    except click.ClickException as error:
        return _fail(_usage_text(error), error.exit_code)
    except MirrortoolError as error:
        return _fail(str(error), error.exit_code)
    except Interrupted as end:
        return _fail(end.message, end.exit_code)
    except startupsignals.Stopped:
        return 0
    except (KeyboardInterrupt, click.Abort) as error:
        return _fail("interrupted", 128 + number_of(error))
    except BrokenPipeError:
        return _end_by_sigpipe()
    except MemoryError:
        return _fail("no memory left; free some and run the command again", ExhaustedError.exit_code)
    except ImportError as error:
        return _fail(
            f"cannot load a part of mirrortool: {error}; free some memory, or install it anew", HostError.exit_code
        )
    except OSError as error:
        known = host_error(error, "standard output", "write")
        return _fail(str(known), known.exit_code)
    except Exception as error:
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return _fail(
                "cannot start a thread; raise the limit of processes (ulimit -u), free some memory, or use fewer "
                "groups and tasks",
                ExhaustedError.exit_code,
            )
        if isinstance(error, RuntimeError) and was_interrupted(error):
            # A signal met the end of a thread that was waited for: Thread.join then fails to release its lock.
            return _fail("interrupted", 128 + number_of(error))
        return _fail_with_bug(error)


def _run_command(arguments: Sequence[str]) -> int:
    name = next(iter(arguments), "")
    if name in COMMANDS:
        tell_unknown(name, COMMANDS, lambda: cli.get_command(click.Context(cli), name))
    try:
        result = cli.main(list(arguments), prog_name="mirrortool", standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:  # only click raises it: 1 for a broken pipe, 0 after a completion
        if end.code == 1:
            raise BrokenPipeError from end
        return 0
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    """One line on stderr, whatever is in the message."""
    if message:
        tell(f"mirrortool: {printable(message)}")
    return code


def _usage_text(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    text = " ".join(error.format_message().split())
    return f"{text.rstrip('.')}; see '{context.command_path} --help'" if context else text


def _fail_with_bug(error: Exception) -> int:
    if os.environ.get("MIRRORTOOL_DEBUG"):
        import traceback  # loaded late: it costs 5 ms

        tell(traceback.format_exc())
    name = type(error).__name__
    return _fail(
        f"a bug in mirrortool: {name}: {error}; please report it with the output under MIRRORTOOL_DEBUG=1", EXIT_BUG
    )


def _end_by_sigpipe() -> int:
    """The reader of our output has gone: end silently, as any other program does then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    return 128 + signal.SIGPIPE
